"""The one way to read a log: decode, admit, check the chain, decode the events.

Coordinators, the client's observers, consumers and `ccs-replay` all read through `ShardReader`.

Guarantees: every reader agrees on what happened, because every reader is this one; a void record is yielded with its
verdict and never with events. A log without its first record or with one missing later on, a broken chain, a garbled
record and a record of a later release raise an error that names the place. Does not: fold.
"""

import dataclasses
from collections.abc import Iterator

from ccs_stream.log.codec import DEFAULT_CODEC, Codec
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.port import BEFORE_FIRST, LOG_FORMAT, LogStore, Position, StoredRecord
from ccs_stream.protocol.admit import ChainEnd, Cursor, Verdict, admit, advance, chain_holds
from ccs_stream.protocol.errors import CorruptRecord, LogDiverged, MissingHead, NewerFormat, UnknownSchema
from ccs_stream.protocol.events import Event, UnknownEvent
from ccs_stream.protocol.ids import GENESIS_HASH, NO_LEADER, NO_LOG, Hash, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord, ForeignRecord, LogOpened, LogTruncated, Record


def record_is_missing(cursor: Cursor, record: Record | ForeignRecord) -> bool:
    """True if a void record proves that earlier records were deleted.

    In a log with leaders, void records are normal; in a log without leaders (memory, SQLite) they can only mean that a
    record is missing.
    """
    return cursor.leader_id == NO_LEADER and isinstance(record, DecisionRecord) and record.leader_id == NO_LEADER


@dataclasses.dataclass(slots=True)
class LogEntry:
    """One record of the log with its verdict. `events` is empty unless the record is an admitted decision."""

    stored: StoredRecord
    record: Record | ForeignRecord
    verdict: Verdict
    events: list[Event]
    hash: Hash

    @property
    def offset(self) -> int:
        """Offset in the shard."""
        return self.stored.offset


class ShardReader:
    """Reads one shard from a place on. `cursor` and `offset` say how far it has read."""

    def __init__(
        self,
        store: LogStore,
        shard: str,
        *,
        codec: Codec = DEFAULT_CODEC,
        tolerant: bool = False,
        all_workspaces: bool = False,
    ) -> None:
        """Read the shard of the workspace `shard`; yield its entries, or with `all_workspaces` those of all.

        Every record of the shard is admitted, whatever is yielded. With `tolerant` (for tools), unknown critical
        events, and records after a gap, are yielded instead of raising.
        """
        self.store = store
        self.shard = shard
        self._wanted: set[str] | None = None if all_workspaces else {shard}
        """Workspaces whose decisions are yielded; None for all."""
        self.cursor = Cursor()
        self.offset = BEFORE_FIRST
        self._codec = codec
        self._tolerant = tolerant

    def include(self, workspace: str) -> None:
        """From here on, yield decisions of this workspace, too."""
        if self._wanted is not None:
            self._wanted.add(workspace)

    def exclude(self, workspace: str) -> None:
        """From here on, yield no decisions of this workspace, unless the reader yields those of all."""
        if self._wanted is not None:
            self._wanted.discard(workspace)

    def read(self, *, until: int | None = None, bodies: bool = True) -> Iterator[LogEntry]:
        """Entries after the last one read, to `until` or the end as it is now.

        Raises `MissingHead`, `LogDiverged`, `CorruptRecord`, `UnknownSchema`, `NewerFormat`; the reader then stands
        before the record that raised.
        """
        for stored in self.store.read(self.shard, self.offset, until=until, bodies=bodies):
            entry = self.judge(stored)
            if entry is not None:
                yield entry

    def judge(self, stored: StoredRecord) -> LogEntry | None:
        """Admit the next stored record and move past it; None for a decision of a workspace that is not yielded."""
        cursor = self.cursor
        try:
            record = self.decode(stored)
        except UnknownSchema:
            raise
        except CorruptRecord as error:
            if self.store.serialises_writers or cursor.log_id is None:
                raise
            return self._void(stored, ForeignRecord(size=len(stored.head), why=str(error)), Verdict.FOREIGN)
        if cursor.log_id is None:
            self._check_head(record)
        verdict = admit(cursor, record)
        digest = GENESIS_HASH
        events: list[Event] = []
        if verdict is Verdict.ADMITTED:
            if type(record) is DecisionRecord:
                if not chain_holds(cursor, record):
                    where = self._where(stored.offset, record.first_sequence)
                    raise LogDiverged(
                        f"the hash chain breaks at {where}: this record, or the one before it, was altered or "
                        "comes from another log; restore the log from a copy, or verify an archive of it"
                    )
                digest = chain_hash(stored.head)
                if self._wanted is not None and record.workspace not in self._wanted:
                    advance(cursor, record, digest)
                    self.offset = stored.offset
                    return None
                events = self._decode_events(record, stored.offset)
            advance(cursor, record, digest)
        else:
            if record_is_missing(cursor, record) and not self._tolerant and self.store.serialises_writers:
                raise LogDiverged(
                    f"a record is missing before {self._where(stored.offset)} ({verdict}): something was cut out of "
                    "this log; restore it from a copy"
                )
            return self._void(stored, record, verdict)
        self.offset = stored.offset
        return LogEntry(stored, record, verdict, events, digest)

    def _void(self, stored: StoredRecord, record: Record | ForeignRecord, verdict: Verdict) -> LogEntry:
        self.cursor.void += 1
        self.offset = stored.offset
        return LogEntry(stored, record, verdict, [], GENESIS_HASH)

    def decode(self, stored: StoredRecord) -> Record:
        """Decode a stored record, without admitting it. Raises `CorruptRecord`, `UnknownSchema`."""
        if stored.record is not None:
            return stored.record
        try:
            return self._codec.decode_record(stored.head)[0]
        except CorruptRecord as error:
            raise type(error)(str(error), position=self._where(stored.offset)) from error

    def decode_events(self, record: DecisionRecord) -> list[Event]:
        """Decode the events of a decision. Raises `CorruptRecord`."""
        return [self._codec.decode_event(each) for each in record.events]

    def advance_past(self, record: DecisionRecord, digest: Hash, offset: int) -> None:
        """Move past a decision that this process itself appended, and knows to be in the log."""
        advance(self.cursor, record, digest)
        self.offset = offset

    def seek(self, position: Position) -> None:
        """Continue after `position`, as if everything up to it had been read.

        Raises `LogDiverged` if the log does not hold that position.
        """
        if position.sequence == 0:
            return
        stored = self.store.find(self.shard, position.sequence)
        record = None if stored is None else self._codec.decode_record(stored.head)[0]
        if (
            stored is None
            or type(record) is not DecisionRecord
            or position.log_id != self.store.log_id
            # Behind the decision the shard may hold what is none of this workspace's.
            or stored.offset > position.offset
            or chain_hash(stored.head) != position.hash
        ):
            raise LogDiverged(
                f"{self.store.display_url}, shard {self.shard!r}, does not hold the position at sequence "
                f"{position.sequence}: the position is of another log, or this is an older or altered copy of it"
            )
        self.start_after(stored)

    def start_after(self, stored: StoredRecord) -> None:
        """Continue after a decision that is known to be admitted, and to be of this log."""
        record = self.decode(stored)
        if type(record) is not DecisionRecord:
            raise CorruptRecord("no decision", position=self._where(stored.offset))
        last = SequenceNumber(record.first_sequence + len(record.events) - 1)
        self.cursor = Cursor(
            log_id=self.store.log_id, epoch=record.epoch, leader_id=record.leader_id, index=record.index, midway=True
        )
        self.cursor.workspaces[record.workspace] = ChainEnd(last, chain_hash(stored.head))
        self.offset = stored.offset

    def move_to(self, cursor: Cursor, offset: int) -> None:
        """Continue after `offset`, with the cursor of admission there; the reader owns `cursor` from now on."""
        self.cursor, self.offset = cursor, offset

    def fork(self) -> "ShardReader":
        """An independent reader that continues from the same place."""
        other = ShardReader(self.store, self.shard, codec=self._codec, tolerant=self._tolerant)
        other.move_to(self.cursor.copy(), self.offset)
        return other

    def check_head(self) -> None:
        """Check that the shard begins with the record that opens a log. Needed before reading from further on.

        Raises `MissingHead`, `NewerFormat`, `CorruptRecord`.
        """
        stored = next(self.store.read(self.shard, BEFORE_FIRST, bodies=False), None)
        if stored is None:
            raise MissingHead(
                f"{self.store.display_url}, shard {self.shard!r}, holds no record: restore it from a copy"
            )
        self._check_head(self.decode(stored))

    def position(self, workspace: str) -> Position:
        """The position up to which `workspace` was read."""
        end = self.cursor.end(workspace)
        return Position(self.cursor.log_id or NO_LOG, self.shard, self.offset, end.sequence, end.hash)

    def _check_head(self, record: Record) -> None:
        if type(record) is LogOpened:
            if record.format > LOG_FORMAT:
                raise NewerFormat(
                    f"{self.store.display_url} has log format {record.format}, this release reads up to {LOG_FORMAT}: "
                    "upgrade ccs-stream"
                )
        elif type(record) is not LogTruncated:
            raise MissingHead(
                f"{self.store.display_url}, shard {self.shard!r}: the first record is a {type(record).__name__}, not "
                "the one that opens a log: its head was cut off; restore it from a copy"
            )

    def _decode_events(self, record: DecisionRecord, offset: int) -> list[Event]:
        try:
            events = self.decode_events(record)
        except CorruptRecord as error:
            where = self._where(offset, record.first_sequence)
            raise type(error)(f"an event cannot be read: {error}", position=where) from error
        if record.critical and not self._tolerant:
            for number, event in enumerate(events):
                if type(event) is UnknownEvent:
                    raise UnknownSchema(
                        "a critical event of a later release; state folded without it would be wrong: upgrade",
                        position=self._where(offset, record.first_sequence + number),
                    )
        return events

    def _where(self, offset: int, sequence: int | None = None) -> str:
        place = f"{self.store.display_url}, shard {self.shard!r}, offset {offset}"
        return place if sequence is None else f"{place}, sequence {sequence}"
