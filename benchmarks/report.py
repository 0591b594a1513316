"""The report of a benchmark: rows of ratios, with their targets.

Guarantees: a row without a target is for information, and says so; a miss is not rounded away. Does not: measure.
"""

import dataclasses
import json
import platform
import sqlite3
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A bound that a ratio must keep."""

    sense: Literal["at least", "at most"]
    bound: float

    def met_by(self, ratio: float) -> bool:
        """True if the ratio keeps it."""
        return ratio >= self.bound if self.sense == "at least" else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.sense == 'at least' else '≤'} {self.bound:g}"


def at_least(bound: float) -> Target:
    """The ratio must reach `bound`."""
    return Target("at least", bound)


def at_most(bound: float) -> Target:
    """The ratio must not exceed `bound`."""
    return Target("at most", bound)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `ratio` is what `meaning` says, such as "times faster than" the peer."""

    what: str
    ours: str
    peer: str
    peers: str
    ratio: float
    meaning: str
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """Says if the target is met; "-" if there is none."""
        if self.target is None:
            return "-"
        return "met" if self.target.met_by(self.ratio) else "MISSED"


def duration(seconds: float) -> str:
    """A time in the unit people read it in."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def rate(per_second: float, of: str) -> str:
    """A rate."""
    return f"{per_second:,.0f} {of}/s"


def size(count: float) -> str:
    """Bytes."""
    return f"{count / 1e6:.1f} MB"


def faster(what: str, ours_s: float, peer: str, peer_s: float, ratio: float, target: Target | None = None) -> Row:
    """How many times faster than a peer."""
    return Row(what, duration(ours_s), peer, duration(peer_s), ratio, "x faster", target)


def longer(what: str, ours_s: float, peer: str, peer_s: float, ratio: float, target: Target | None = None) -> Row:
    """How many times as long as a peer takes."""
    return Row(what, duration(ours_s), peer, duration(peer_s), ratio, "x the time", target)


def machine() -> dict[str, Any]:
    """The machine and the versions that were measured."""
    names = ("ccs-stream", "agent-coherence", "eventsourcing", "fastavro", "langgraph-checkpoint", "orjson")
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {name: metadata.version(name) for name in names},
    }


def print_rows(section: str, rows: Sequence[Row]) -> None:
    """The table of a section, on stdout."""
    table = Table(title=section, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("what", "ours", "against", "theirs", "ratio", "target", ""):
        table.add_column(column, overflow="fold", justify="left" if column in ("what", "against") else "right")
    for row in rows:
        target = "" if row.target is None else str(row.target)
        table.add_row(row.what, row.ours, row.peer, row.peers, f"{row.ratio:.2f} {row.meaning}", target, row.verdict)
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=200, highlight=False)
    console.print(table)
    console.print()


def as_json(rows: Sequence[Row]) -> str:
    """The same as one JSON document."""
    listed = [
        {**dataclasses.asdict(row), "target": None if row.target is None else str(row.target), "verdict": row.verdict}
        for row in rows
    ]
    return json.dumps({"measured_on": machine(), "rows": listed}, indent=2, ensure_ascii=False)
