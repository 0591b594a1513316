"""The report of `ccs-stream doctor`, as data.

Guarantees: people and programs get the same facts. Does not: check anything.
"""

import dataclasses
import enum
from typing import Any


class Level(enum.StrEnum):
    """The outcome of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclasses.dataclass(frozen=True, slots=True)
class CheckResult:
    """One finding of one check."""

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclasses.dataclass(slots=True)
class DoctorReport:
    """All findings."""

    url: str
    checks: list[CheckResult] = dataclasses.field(default_factory=list)
    partitions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def failed(self) -> bool:
        """True if a check failed."""
        return any(each.level is Level.FAILED for each in self.checks)
