"""The LogStore port: the interface of a place that keeps a coherence log.

The memory, SQLite, Kafka and archive stores implement it; coordinators, readers and tools are written against it.

Guarantees (held by the conformance suite in `ccs_stream.testing`, which any store can run): a shard is one order of
records that never changes; an append happens whole or not at all, and only where the caller expected the shard to
end; what was acknowledged is read by everybody from then on; half a batch is never seen.
Does not: look into records. `protocol.admit` decides which of them are facts, through `ccs_stream.log.reader`.

A shard is named by any workspace in it. Where a shard holds several workspaces (a Kafka partition), `read` yields the
records of all of them, and `find` looks for the workspace's own sequence.

A store keeps four things for a log, so that one URL is always enough: records, bodies too large to travel in their
decision, snapshots, and deliveries.

A store translates the errors of its driver into those of `protocol.errors` (`LogUnavailable`, `LogBusy`, `LogFull`,
`LogReadOnly`, `OutcomeUnknown`, ...): callers retry, queue or go degraded by their class, and know no driver.
"""

import base64
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from ccs_stream.log.envelope import decode_tail, encode_tail
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import Hash, LogId, Micros, SequenceNumber
from ccs_stream.protocol.limits import POSITION_CHARACTERS_MAX, check_text, check_whole_number, shown
from ccs_stream.protocol.records import Record

BEFORE_FIRST: Final = -1
"""Offset before a shard's first record."""
_ID_BYTES: Final = 16
_HASH_BYTES: Final = 32
LOG_FORMAT: Final = 1
"""Version of the log format this release writes, recorded in `LogOpened`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """A place in a log, opaque to users; `str()` gives a token that survives JSON and crosses hosts."""

    log_id: LogId
    shard: str
    offset: int
    sequence: SequenceNumber
    hash: Hash

    def __str__(self) -> str:
        parts = [self.log_id.hex(), self.shard, self.offset, self.sequence, self.hash.hex()]
        return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, token: "str | Position") -> "Position":
        """The position a token stands for. Raises `UsageError` for anything else."""
        if isinstance(token, Position):
            return token
        given: object = token
        if not isinstance(given, str) or not 0 < len(given) <= POSITION_CHARACTERS_MAX:
            raise _no_position(given)
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            log_id, shard, offset, sequence, chain = json.loads(raw)
            found = cls(
                LogId(bytes.fromhex(log_id)),
                check_text(shard, "a shard"),
                check_whole_number(offset, "an offset", least=BEFORE_FIRST),
                SequenceNumber(check_whole_number(sequence, "a sequence")),
                Hash(bytes.fromhex(chain)),
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise _no_position(token) from error
        if len(found.log_id) != _ID_BYTES or len(found.hash) != _HASH_BYTES:
            raise _no_position(token)
        return found


def _no_position(token: object) -> UsageError:
    return UsageError(f"not a position: {shown(token)}; use the value a write or read returned")


class _NotKept(bytes):
    """A body that is no longer kept. A class of its own, because there is one empty `bytes` for all."""

    __slots__ = ()


NOT_KEPT: Final[bytes] = _NotKept()
"""Stands where a body was that its store keeps no longer, because its version was replaced. Compare it with `is`."""


class StoredRecord:
    """One record as a store keeps it: the head, which the hash chain covers, and the contents, which it does not."""

    __slots__ = ("_contents", "_tail", "head", "offset", "record")

    def __init__(
        self,
        offset: int,
        head: bytes,
        *,
        tail: bytes | None = None,
        contents: tuple[bytes, ...] | None = None,
        record: Record | None = None,
    ) -> None:
        self.offset = offset
        self.head = head
        self.record = record
        """The record in `head`, if the store had to decode it to tell head from tail."""
        self._tail = tail
        self._contents = contents

    @property
    def contents(self) -> tuple[bytes, ...]:
        """Inline bodies. Raises `CorruptRecord`."""
        if self._contents is None:
            self._contents = decode_tail(self._tail) if self._tail else ()
        return self._contents

    def drop_content(self, index: int) -> None:
        """Keep the inline body at `index` no longer."""
        contents = self.contents
        self._contents = (*contents[:index], NOT_KEPT, *contents[index + 1 :])

    @property
    def tail(self) -> bytes:
        """The contents as stored; empty for a record that is not a decision."""
        if self._tail is None:
            self._tail = encode_tail(self._contents or ())
        return self._tail


@dataclasses.dataclass(slots=True)
class Draft:
    """A record to append. `first_sequence` and `last_sequence` are 0 where it is not a decision."""

    head: bytes
    contents: tuple[bytes, ...] = ()
    first_sequence: int = 0
    last_sequence: int = 0
    events: Sequence[Event] = ()
    """The events in `head`, where the author has them."""
    decision: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Appended:
    """The batch is durable; its last record has this offset."""

    offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was appended: the shard ends at `end`, and not where the caller expected."""

    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """The batch may or may not be, or come to be, in the log."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotBlob:
    """A stored snapshot. Its reader verifies whether it may be trusted."""

    snapshot_id: str
    sequence: SequenceNumber
    data: bytes


def scan_shards(store: "LogStore") -> Iterator[str | None]:
    """`LogStore.scan` for a store whose shards hold one workspace each: the opening record, then decisions."""
    for workspace in store.workspaces():
        yield None
        yield from itertools.repeat(workspace, store.end(workspace))


def count_records(store: "LogStore") -> int:
    """`LogStore.record_count` for such a store."""
    return sum(store.end(workspace) + 1 for workspace in store.workspaces())


class LogStore(Protocol):
    """A place that keeps logs. One object serves all threads of one process."""

    @property
    def log_id(self) -> LogId:
        """Id of the log, from the first record of its shards."""

    @property
    def display_url(self) -> str:
        """The URL to show: without credentials."""

    @property
    def serialises_writers(self) -> bool:
        """True if `turn` excludes all other writers, in every process.

        Then each record is admitted, and there are no epochs and no claims. Otherwise coordinators append under claims,
        and a reader tells facts from void records (`protocol.admit`).
        """

    @property
    def finds_by_sequence(self) -> bool:
        """True if `find` and `workspaces` are look-ups.

        Otherwise both read the log; `find` begins at the last decision before the sequence that `learn` was given.
        """

    @property
    def instantaneous(self) -> bool:
        """True if no call ever waits for I/O, so that an event loop may call it directly."""

    @property
    def named_workspace(self) -> str | None:
        """The workspace that the URL names, if it does."""

    @property
    def default_freshness(self) -> str:
        """Freshness of a read that names none: `latest` where asking the log costs microseconds, else `own_writes`."""

    def expected_time(self) -> Micros | None:
        """The time as the first process that opened the log since the machine was started knew it, plus what passed.

        None where the log does not keep that.
        """

    def workspaces(self) -> list[str]:
        """Names of the workspaces in the log, sorted."""

    def scan(self) -> Iterator[str | None]:
        """For each record of the log, the workspace that it decides about; None for a record that decides nothing.

        The names are those of `workspaces`.
        """

    def record_count(self) -> int:
        """An upper bound of the records that `scan` goes through, for showing progress."""

    def turn(self, shard: str) -> AbstractContextManager[None]:
        """The exclusive right to append to `shard`; what is appended inside is durable when the block ends.

        Raises `LogBusy` when another writer keeps it for too long. An error on leaving means nothing was appended,
        unless it is `OutcomeUnknown`.
        """

    def abandon_turn(self, shard: str) -> None:
        """End the turn of this thread, if it has one that an interrupt left open; what is not durable is dropped.

        For whoever was interrupted inside `with turn(...)`: the interrupt may have come before the block was left.
        """

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        """Append all drafts, if the shard ends at offset `expected`. Raises `LogFull`, `LogReadOnly`, `LogBusy`."""

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        """Records with offsets above `after`, to `until` or the end as it is now. Without `bodies`, tails are empty."""

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        """The decision that holds event `sequence`, if it is in the log."""

    def find_each(self, shard: str, sequences: Sequence[int]) -> Iterator[StoredRecord | None]:
        """As `find` for each of these sequences, which ascend; in bulk, where the store can."""

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        """Remember that an admitted decision with these events is at `offset`.

        Readers call it for every decision, in the order of the log; known decisions are passed over. A store that finds
        by sequence ignores it.
        """

    def end(self, shard: str) -> int:
        """Offset of the shard's last record; `BEFORE_FIRST` for a shard that does not exist."""

    def change_mark(self, shard: str) -> int:
        """A number that changes when another writer may have appended. Costs microseconds, on Kafka a round trip."""

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        """Wait until the shard ends beyond `after`, for at most `timeout_s`; true if it does."""

    def put_content(self, body: bytes) -> bytes:
        """Keep a large body durably; returns its locator."""

    def drop_content(self, locator: bytes) -> None:
        """Free a body that no decision names, or will name: its write was refused. A store may leave it."""

    def collect_uploads(self, now: Micros, *, records_max: int | None = None) -> int:
        """Free uploads that no decision names and whose grace time is over at `now`; returns how many.

        Does nothing where that takes reading more than `records_max` records.

        A store that cannot tell leaves them.
        """

    def get_content(self, locator: bytes) -> bytes:
        """A body by its locator. Raises `ContentMissing`."""

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        """Keep a snapshot; older ones beyond a few are dropped."""

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        """Snapshots kept, newest first."""

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        """Keep encoded deliveries, in order."""

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        """Deliveries kept, in order."""

    def deliveries_end(self, shard: str) -> int | None:
        """Count of all deliveries ever kept; None if the store cannot tell. With fewer to read, some were cut off."""

    def close(self) -> None:
        """Release everything; further calls raise `Closed`. Closing twice is allowed."""
