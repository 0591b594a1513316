"""The source of a command of `ccs-replay`: one workspace of a log, opened read-only, with positions resolved.

Every command of `ccs-replay` reads through `Source`.

Guarantees: nothing is written to the log; a position is a sequence, `-N` from the end, `@TIME`, or a token of the
library, and stands for the end of the decision that holds it. Does not: keep the log in memory.

In a log with leaders, only a reader that began at the beginning can tell a decision from a void one. There a position
is found by reading the shard, and not by looking at single records.
"""

import dataclasses
import datetime as dt
import re
from collections.abc import Iterator
from typing import Final

import click

from ccs_stream.log.fold import fold_entry
from ccs_stream.log.port import BEFORE_FIRST, LogStore, Position
from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.projections.processes import Processes
from ccs_stream.protocol.admit import Cursor, Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay.output import progress, say

_SEQUENCE: Final = re.compile(r"-?[0-9]{1,18}")
"""The number of an event, counted from the beginning or the end: as many digits as 64 bits always hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Folded:
    """The state of a workspace at a position."""

    state: Directory
    processes: Processes
    position: Position
    """Position of the workspace's last decision up to there."""
    offset: int
    """Offset of the shard's last record up to there, of any workspace."""


class Source:
    """One workspace of one log."""

    def __init__(self, store: LogStore, workspace: str) -> None:
        self.store = store
        self.workspace = workspace
        self._last: int | None = None
        """The last sequence, once it is known: all positions of one command count from the same end."""

    @classmethod
    def open(cls, url: str, workspace: str | None) -> "Source":
        """Open `url` read-only. Raises `LogError`s, and `click.UsageError` where the workspace is not clear."""
        store = open_log(url, create=False, read_only=True)
        try:
            return cls(store, _chosen(store, workspace))
        except BaseException:
            store.close()
            raise

    def reader(self, *, tolerant: bool = True) -> ShardReader:
        """A reader that begins at the first record."""
        return ShardReader(self.store, self.workspace, tolerant=tolerant)

    def entries(self, reader: ShardReader, *, bodies: bool = False, until: int | None = None) -> Iterator[LogEntry]:
        """The entries that `reader` has not read yet, to an offset or the end as it is now. Shows progress."""
        end = self.store.end(self.workspace) if until is None else until
        records = self.store.read(self.workspace, reader.offset, until=end, bodies=bodies)
        for stored in progress(records, end - reader.offset):
            entry = reader.judge(stored)
            if entry is None:
                continue
            if (record := decision_of(entry)) is not None:
                self.store.learn(record.workspace, record.first_sequence, entry.offset, entry.events)
            yield entry

    def state_at(self, at: str | None) -> Folded:
        """The folded state at a position, without one at the end. Raises `UsageError` if there is no decision."""
        until = None if at is None else self.offset(at)
        reader, state, processes = self.reader(tolerant=False), Directory(), Processes()
        offset = BEFORE_FIRST
        for entry in self.entries(reader, until=until):
            fold_entry(state, entry)
            if decision_of(entry) is not None:
                processes.decision(entry.events)
                offset = entry.offset
        if at is None and not state.sequence:
            raise self.nothing(reader)
        position = dataclasses.replace(reader.position(self.workspace), offset=offset)
        return Folded(state, processes, position, reader.offset)

    def workspaces(self, cursor: Cursor) -> list[str]:
        """The workspaces of the log; if the store does not list them, those of the shard that `cursor` has met."""
        return self.store.workspaces() if self.store.finds_by_sequence else sorted(cursor.workspaces)

    def nothing(self, reader: ShardReader) -> UsageError:
        """The error for a workspace without a decision; `reader` has read to the end."""
        others = sorted(reader.cursor.workspaces)
        there = f"; beside it there would be {others}" if others else ""
        return UsageError(f"{self.store.display_url} holds no decision of the workspace {self.workspace!r}{there}")

    def offset(self, at: str) -> int:
        """Offset of the decision that a position stands for. Raises `UsageError`."""
        if at.startswith("@"):
            micros = _instant(at[1:])
            return self._look_at(micros) if self.store.serialises_writers else self._pass_to(micros)
        if _SEQUENCE.fullmatch(at):
            sequence = int(at)
            if sequence < 0:
                sequence = max(self._last_sequence() + 1 + sequence, 1)
            return self._offset_of(sequence, at)
        position = Position.parse(at)
        if position.log_id != self.store.log_id:
            raise UsageError(f"the position {at!r} is of another log than {self.store.display_url}")
        return self._offset_of(position.sequence, at)

    def _offset_of(self, sequence: int, at: str) -> int:
        if self.store.finds_by_sequence or self._last is not None:
            stored = self.store.find(self.workspace, sequence)
            found = None if stored is None else stored.offset
        else:
            found = self._pass_over(sequence)
        if found is None:
            raise UsageError(f"{self.store.display_url} holds no sequence {at}: it ends at {self._last_sequence()}")
        return found

    def _last_sequence(self) -> int:
        if self._last is None:
            if self.store.serialises_writers:
                last = self.store.read(self.workspace, self.store.end(self.workspace) - 1, bodies=False)
                self._last = max((_last_of(self.reader().decode(stored)) for stored in last), default=0)
            else:
                self._last = max((_last_of(record) for _, record in self._decisions()), default=0)
        return self._last

    def _look_at(self, micros: int) -> int:
        """Offset of the last decision recorded at or before an instant; decisions are in order of time."""
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

    def _pass_to(self, micros: int) -> int:
        """As `_look_at`, for a shard that holds other records between the decisions of the workspace."""
        found = 0
        for offset, record in self._decisions():
            if record.recorded_at > micros:
                break
            found = offset
        return found

    def _pass_over(self, sequence: int) -> int | None:
        """Offset of the decision that holds a sequence, found by reading, which tells the store where decisions are."""
        last = 0
        for offset, record in self._decisions():
            last = _last_of(record)
            if record.first_sequence <= sequence <= last:
                return offset
        self._last = last
        return None

    def _decisions(self) -> Iterator[tuple[int, DecisionRecord]]:
        for entry in self.entries(self.reader()):
            record = decision_of(entry)
            if record is not None:
                yield entry.offset, record


def decision_of(entry: LogEntry) -> DecisionRecord | None:
    """The decision of an entry; None if it is void, or no decision."""
    record = entry.record
    return record if isinstance(record, DecisionRecord) and entry.verdict is Verdict.ADMITTED else None


def _last_of(record: object) -> int:
    return record.first_sequence + len(record.events) - 1 if isinstance(record, DecisionRecord) else 0


def _chosen(store: LogStore, wanted: str | None) -> str:
    """The workspace to read: the one that was named, or else the only one."""
    named = store.named_workspace
    if wanted is not None and named is not None and wanted != named:
        raise click.UsageError(f"the URL names the workspace {named!r}, and --workspace names {wanted!r}: choose one")
    chosen = wanted if named is None else named
    if store.finds_by_sequence:
        names = store.workspaces()
    else:
        if chosen is not None:
            return chosen  # the command finds out whether it exists; a check here would read the log twice
        say(
            f"reading all of {store.display_url} to find its workspaces: name one with workspace=NAME in the URL, or "
            "with --workspace",
            err=True,
        )
        names = sorted({name for name in progress(store.scan(), store.record_count()) if name is not None})
    if not names:
        raise click.UsageError(f"{store.display_url} holds no workspace yet")
    if chosen is None:
        if len(names) > 1:
            raise click.UsageError(f"{store.display_url} holds several workspaces; choose with --workspace: {names}")
        return names[0]
    if chosen not in names:
        raise click.UsageError(f"{store.display_url} holds no workspace {chosen!r}; it holds {names}")
    return chosen


def _instant(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time, which is UTC unless it names an offset."""
    try:
        at = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"not a time: {text!r}; write it like @2026-11-01T10:00:00Z") from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    return round((at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(microseconds=1))
