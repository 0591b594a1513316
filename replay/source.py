"""The log a command reads: opened read-only, one workspace of it, with positions resolved.

Guarantees: nothing is written to it; a position is a sequence, `-N` from the end, `@TIME`, or a token of the library,
and stands for the end of the decision that holds it. Does not: keep the log in memory.
"""

import datetime as dt
from collections.abc import Iterator

import click

from ccs_stream.log.fold import fold_entry
from ccs_stream.log.port import LogStore, Position
from ccs_stream.log.reader import Entry, ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay.output import progress


class Source:
    """One workspace of one log."""

    def __init__(self, store: LogStore, workspace: str) -> None:
        self.store = store
        self.workspace = workspace

    @classmethod
    def open(cls, url: str, workspace: str | None) -> "Source":
        """Open `url` read-only. Raises `LogError`s, and `click.UsageError` where the workspace is not clear."""
        store = open_log(url, create=False, read_only=True)
        names = store.workspaces()
        if not names:
            raise click.UsageError(f"{store.display_url} holds no workspace yet")
        if workspace is None:
            if len(names) > 1:
                raise click.UsageError(
                    f"{store.display_url} holds several workspaces; choose with --workspace: {names}"
                )
            workspace = names[0]
        if workspace not in names:
            raise click.UsageError(f"{store.display_url} holds no workspace {workspace!r}; it holds {names}")
        return cls(store, workspace)

    def reader(self, *, tolerant: bool = True) -> ShardReader:
        """A reader at the beginning."""
        return ShardReader(self.store, self.workspace, tolerant=tolerant)

    def entries(self, *, bodies: bool = False, until: int | None = None) -> Iterator[Entry]:
        """All entries to an offset, with progress on a terminal."""
        end = self.store.end(self.workspace) if until is None else until
        return progress(self.reader().read(until=until, bodies=bodies), end + 1)

    def state_at(self, at: str | None) -> tuple[Directory, Position]:
        """The folded state at a position (the end, where none is given)."""
        until = None if at is None else self.offset(at)
        reader, state = self.reader(tolerant=False), Directory()
        end = self.store.end(self.workspace) if until is None else until
        for entry in progress(reader.read(until=until, bodies=False), end + 1):
            fold_entry(state, entry)
        return state, reader.position(self.workspace)

    def offset(self, at: str) -> int:
        """Offset of the decision a position stands for. Raises `UsageError`."""
        if at.startswith("@"):
            return self._offset_at(_instant(at[1:]))
        if at.lstrip("-").isdigit():
            sequence = int(at)
            if sequence < 0:
                sequence = max(self._last_sequence() + 1 + sequence, 1)
            return self._offset_of(sequence, at)
        position = Position.parse(at)
        if position.log_id != self.store.log_id:
            raise UsageError(f"the position {at!r} is of another log than {self.store.display_url}")
        return self._offset_of(position.sequence, at)

    def _offset_of(self, sequence: int, at: str) -> int:
        stored = self.store.find(self.workspace, sequence)
        if stored is None:
            last = self._last_sequence()
            raise UsageError(f"{self.store.display_url} holds no sequence {at}: it ends at {last}")
        return stored.offset

    def _last_sequence(self) -> int:
        for stored in self.store.read(self.workspace, self.store.end(self.workspace) - 1, bodies=False):
            record = self.reader().decode(stored)
            if isinstance(record, DecisionRecord):
                return record.first_sequence + len(record.events) - 1
        return 0

    def _offset_at(self, micros: int) -> int:
        """The last decision recorded at or before an instant, found by halves: decisions are in order of time."""
        low, high = 0, self.store.end(self.workspace)
        while low < high:
            middle = (low + high + 1) // 2
            stored = next(self.store.read(self.workspace, middle - 1, until=middle, bodies=False))
            record = self.reader().decode(stored)
            if isinstance(record, DecisionRecord) and record.recorded_at > micros:
                high = middle - 1
            else:
                low = middle
        return low


def _instant(text: str) -> int:
    """Microseconds of an ISO 8601 time; UTC unless it says otherwise."""
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"not a time: {text!r}; write it like @2026-11-01T10:00:00Z") from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    return round((at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1))
