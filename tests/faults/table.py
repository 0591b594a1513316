"""The table that a run of the faults prints: one line for each."""

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from tests.faults.cluster import Outcome

RETRYABLE: Final = frozenset({"OutcomeUnknown", "LogUnavailable"})
"""Errors that clients may get while no broker answers."""
NOTHING: Final[frozenset[str]] = frozenset()
_HEADS: Final = (
    "fault",
    "rounds",
    "acknowledged",
    "unknown",
    "lost",
    "applied twice",
    "void records",
    "longest unavailability s",
    "verdict",
)


@dataclass(slots=True)
class Row:
    """The result of one fault, over all of its rounds."""

    fault: str
    rounds: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lost: int = 0
    twice: int = 0
    void: Counter[str] = field(default_factory=Counter)
    unavailable_s: float = 0.0
    findings: list[str] = field(default_factory=list)
    """Defects found; a fault that did not happen is one, too."""
    notes: list[str] = field(default_factory=list)
    """Remarks."""

    def add(self, outcome: Outcome, *, rounds: int = 1) -> None:
        """A run, judged."""
        report = outcome.report
        self.rounds += rounds
        self.acknowledged += report.acknowledged
        self.unknown += report.unknown
        self.lost += report.lost
        self.twice += report.twice
        self.void += report.void
        self.unavailable_s = max(self.unavailable_s, outcome.longest_gap_s)
        self.findings += outcome.findings
        if report.unknown:
            self.notes.append(f"{report.landed} of {report.unknown} unknown outcomes are in the log, once")
        errors = outcome.errors()
        if errors:
            self.notes.append("errors: " + ", ".join(f"{name} {count}" for name, count in sorted(errors.items())))

    def expect(self, holds: object, what: str) -> None:
        """Something that must hold."""
        if not holds:
            self.findings.append(what)

    def expect_told(self, outcome: Outcome, allowed: AbstractSet[str]) -> None:
        """Clients must have got these kinds of errors and no other."""
        for kind, count in outcome.errors().items():
            if kind not in allowed:
                said = next(each.said for each in outcome.operations if each.error == kind)
                self.findings.append(f"clients got {kind} {count} times, such as: {said}")

    @property
    def verdict(self) -> str:
        return "holds" if not self.findings else f"{len(self.findings)} FINDINGS"

    def cells(self) -> tuple[str, ...]:
        """As printed."""
        numbers = (self.rounds, self.acknowledged, self.unknown, self.lost, self.twice, self.void.total())
        return (self.fault, *map(str, numbers), f"{self.unavailable_s:.1f}", self.verdict)


def table(rows: list[Row]) -> str:
    """All rows, and below them what there is to say."""
    cells = [_HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for row in rows:
        lines += [f"{row.fault}: {note}" for note in dict.fromkeys(row.notes)]
        if row.void:
            lines.append(f"{row.fault}: void by reason: {dict(row.void)}")
        lines += [f"{row.fault}: WRONG: {each}" for each in row.findings[:20]]
    return "\n".join(lines)


def holds(row: Row) -> None:
    """For tests: fails with what is wrong."""
    print(table([row]))  # noqa: T201  # pytest shows it when the test fails
    assert not row.findings, "\n".join(row.findings)
