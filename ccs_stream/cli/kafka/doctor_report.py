"""What `ccs-stream doctor` reports.

Guarantees: plain data, the same for people and for programs. Does not: look at anything.
"""

import dataclasses
import enum
from typing import Any


class Level(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclasses.dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing looked at."""

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclasses.dataclass(slots=True)
class DoctorReport:
    """Everything that was found."""

    url: str
    checks: list[CheckResult] = dataclasses.field(default_factory=list)
    partitions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something is not as it must be."""
        return any(each.level is Level.FAILED for each in self.checks)
