"""One run of the benchmarks: how much effort, where files go, what is being measured now.

Guarantees: talk goes to stderr, and only on a terminal. Does not: measure.
"""

import dataclasses
import sys
from pathlib import Path

from benchmarks.timing import FULL, QUICK, Effort


@dataclasses.dataclass(slots=True)
class Run:
    """Passed to every section."""

    folder: Path
    """Empty, on a real disk, removed afterwards."""
    quick: bool = False

    @property
    def effort(self) -> Effort:
        """How long to time."""
        return QUICK if self.quick else FULL

    def count(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full

    def now(self, what: str) -> None:
        """Say what is measured now."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{what} ...")
            sys.stderr.flush()

    def done(self) -> None:
        """Nothing is measured any more."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
