"""A log that fails as told: before the append, on leaving the turn, or after it was written."""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import Appended, Conflict, Draft, Unknown
from ccs_stream.protocol.errors import LogBusy, LogFull, OutcomeUnknown


class FaultyLog(MemoryLog):
    """A memory log whose turns fail in the order of `plan`; afterwards they succeed.

    `busy`: the turn is not given. `full`: the append raises. `full-at-end`: leaving the turn raises, nothing was
    written. `lost`: leaving raises `OutcomeUnknown`, nothing was written. `written`: the same, and it was.
    """

    def __init__(self, plan: Sequence[str] = ()) -> None:
        super().__init__()
        self.plan = list(plan)
        self._staged: list[tuple[str, Sequence[Draft], int]] = []
        self._failing = ""
        self._turn_of: int | None = None

    @contextlib.contextmanager
    def turn(self, shard: str) -> Iterator[None]:
        """The turn, failing where planned."""
        with super().turn(shard):
            self._failing = self.plan.pop(0) if self.plan else ""
            self._staged.clear()
            if self._failing == "busy":
                raise LogBusy("another process has the turn")
            self._turn_of = threading.get_ident()
            try:
                yield
            finally:
                self._turn_of = None
            staged, failing = list(self._staged), self._failing
            self._staged.clear()
            if failing == "full-at-end":
                raise LogFull("no space left")
            if failing == "lost":
                raise OutcomeUnknown("no word from the disk")
            for name, drafts, expected in staged:
                super().append(name, drafts, expected)
            if failing == "written":
                raise OutcomeUnknown("no word from the disk")

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        """Staged until the turn ends."""
        if self._turn_of != threading.get_ident():
            with self.turn(shard):
                return self.append(shard, drafts, expected)
        if self._failing == "full":
            raise LogFull("no space left")
        end = self.end(shard) + sum(len(staged) for name, staged, _ in self._staged if name == shard)
        if expected != end:
            return Conflict(end)
        self._staged.append((shard, drafts, expected))
        return Appended(expected + len(drafts))
