"""The calls of clients and their results, as the clients wrote them down: one JSON line for each call and each return.

Guarantees: a call without a return is there, as one whose outcome is not known. Does not: judge; `checker` does.

Times are of the system's one monotonic clock, so that those of several processes can be compared.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True, kw_only=True)
class Operation:
    """One call of one agent."""

    id: str
    """Unique in a run, and part of every value written."""
    process: str
    agent: str
    workspace: str
    kind: str
    """`write`, `increment` or `read`."""
    key: str
    invoked_at: float
    value: Any = None
    """The value to be written."""
    freshness: str | None = None
    asked: int | None = None
    """Sequence of the position that a read was to be no older than."""
    ended_at: float | None = None
    outcome: str = "unknown"
    """`ok`, `fail` (nothing happened), `unknown`, or `bug` (no error of ours)."""
    version: int = 0
    """Written or read; 0 for nothing there."""
    sequence: int | None = None
    """Of the position that came with it."""
    seen: Any = None
    """The value that was read."""
    error: str | None = None
    said: str | None = None
    retryable: bool = False
    stale: bool = False
    """True if the client said that its state may be older than it should be."""


def load(paths: Iterable[Path]) -> list[Operation]:
    """All operations of some histories, in the order of their calls."""
    found: dict[str, Operation] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue  # the last line of a process that was killed
            operation = found.get(fields["id"])
            if operation is None:
                found[fields["id"]] = Operation(**fields)
            else:
                for name, value in fields.items():
                    setattr(operation, name, value)
    return sorted(found.values(), key=lambda each: each.invoked_at)
