"""One run of the benchmarks: how long to measure, where files go, what is being measured now.

Guarantees: messages go to stderr, and only on a terminal. Does not: measure.
"""

import dataclasses
import sys
from pathlib import Path

from benchmarks.timing import FULL, QUICK, Effort


@dataclasses.dataclass(slots=True)
class Run:
    """The settings that every section is given."""

    folder: Path
    """An empty folder on a real disk, removed afterwards."""
    quick: bool = False

    @property
    def effort(self) -> Effort:
        """How long to measure."""
        return QUICK if self.quick else FULL

    def count(self, full: int, quick: int) -> int:
        """How many of something to use."""
        return quick if self.quick else full

    def now(self, what: str) -> None:
        """Show what is measured now."""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{what} ...")
            sys.stderr.flush()

    def done(self) -> None:
        """Show that nothing is measured any more."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
