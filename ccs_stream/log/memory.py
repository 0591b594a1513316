"""The log in memory: a list of records for each shard.

Tests, the simulation and a store without a URL use it.

Guarantees: the whole port, without a disk. A body is held once: the record keeps the very object it was given. Bodies
of replaced and deleted versions are kept within a budget; beyond it, the oldest are no longer kept (`ContentMissing`).
Does not: outlive its process, or serve another one.
"""

import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import (
    BEFORE_FIRST,
    LOG_FORMAT,
    Appended,
    Conflict,
    Draft,
    SnapshotBlob,
    StoredRecord,
    Unknown,
    count_records,
    scan_shards,
)
from ccs_stream.log.replaced_bodies import REPLACED_BYTES_MAX, ReplacedBodies
from ccs_stream.protocol.errors import Closed, ContentMissing
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import LogId, Micros
from ccs_stream.protocol.records import DecisionRecord, LogOpened

SNAPSHOTS_KEPT = 3
NOTED_EVERY: Final = 64
"""After so many records, roughly, it is seen what they replaced: one put in so many pays for it."""


class _MemoryShard:
    __slots__ = (
        "appended",
        "appended_lock",
        "deliveries",
        "first_sequences",
        "records",
        "replaced",
        "snapshots",
        "turn",
        "unnoted",
        "waiting",
    )

    def __init__(self, opened: StoredRecord, replaced: ReplacedBodies) -> None:
        self.replaced = replaced
        self.unnoted: list[tuple[StoredRecord, Sequence[Event]]] = []
        """The last decisions, which `replaced` was not told of yet."""
        self.records = [opened]
        self.first_sequences = [0]
        """Parallel to the records: bisected to find the one that holds a sequence. One that is no decision repeats the
        first sequence of the record before it."""
        self.turn = threading.RLock()
        self.appended_lock = threading.Lock()
        self.appended = threading.Condition(self.appended_lock)
        self.waiting = 0
        self.snapshots: list[SnapshotBlob] = []
        self.deliveries: list[bytes] = []


class MemoryLog:
    """See the module's docstring; the port is `ccs_stream.log.port.LogStore`."""

    serialises_writers = True
    finds_by_sequence = True
    default_freshness = "latest"
    named_workspace = None
    instantaneous = True

    def __init__(self, *, log_id: LogId | None = None, replaced_bytes_max: int = REPLACED_BYTES_MAX) -> None:
        """An empty log, which keeps bodies of replaced and deleted versions within `replaced_bytes_max` bytes."""
        self._replaced_bytes_max = replaced_bytes_max
        self._uploads = 0
        self._log_id = log_id or LogId(uuid.uuid4().bytes)
        self._shards: dict[str, _MemoryShard] = {}
        self._contents: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def log_id(self) -> LogId:
        return self._log_id

    @property
    def display_url(self) -> str:
        return "memory:"

    def expected_time(self) -> Micros | None:
        return None

    def workspaces(self) -> list[str]:
        return sorted(self._shards)

    def scan(self) -> Iterator[str | None]:
        return scan_shards(self)

    def record_count(self) -> int:
        return count_records(self)

    def turn(self, shard: str) -> AbstractContextManager[None]:
        return self._shard(shard).turn  # type: ignore[return-value]  # a lock's __enter__ returns a bool, which is not used

    def abandon_turn(self, shard: str) -> None:
        del shard  # a lock of the interpreter's own: no interrupt comes between its being taken and its block

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        kept = self._shard(shard)
        with kept.turn:
            records, first_sequences = kept.records, kept.first_sequences
            end = len(records) - 1
            if end != expected:
                return Conflict(end)
            if len(first_sequences) > end + 1:
                del first_sequences[end + 1 :]  # of an append that was interrupted
            added = []
            for draft in drafts:
                end += 1
                if draft.decision:
                    first_sequences.append(draft.first_sequence)
                    stored = StoredRecord(end, draft.head, contents=draft.contents)
                    added.append(stored)
                    kept.unnoted.append((stored, draft.events))
                else:
                    first_sequences.append(first_sequences[-1])
                    added.append(StoredRecord(end, draft.head, tail=b""))
            records.extend(added)  # one step: an interrupt leaves all of them or none
            if not end % NOTED_EVERY:
                unnoted, kept.unnoted = kept.unnoted, []
                kept.replaced.note(unnoted)
        if kept.waiting:
            with kept.appended_lock:
                kept.appended.notify_all()
        return Appended(end)

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        del bodies  # they cost nothing here
        if shard not in self._shards:
            return iter(())
        records = self._shards[shard].records
        return iter(records[after + 1 : len(records) if until is None else until + 1])

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        if shard not in self._shards:
            return None
        kept = self._shards[shard]
        offset = bisect_right(kept.first_sequences, sequence, hi=len(kept.records)) - 1
        while offset > 0:
            stored = kept.records[offset]
            record, _ = DEFAULT_CODEC.decode_record(stored.head)
            if type(record) is DecisionRecord:
                return stored if sequence < record.first_sequence + len(record.events) else None
            offset -= 1
        return None

    def find_each(self, shard: str, sequences: Sequence[int]) -> Iterator[StoredRecord | None]:
        return (self.find(shard, sequence) for sequence in sequences)

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        del workspace, first_sequence, offset, events  # `find` looks it up

    def end(self, shard: str) -> int:
        kept = self._shards.get(shard)
        return BEFORE_FIRST if kept is None else len(kept.records) - 1

    def change_mark(self, shard: str) -> int:
        return self.end(shard)

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        kept = self._shard(shard)
        with kept.appended_lock:
            kept.waiting += 1
            try:
                return kept.appended.wait_for(lambda: len(kept.records) - 1 > after, timeout_s)
            finally:
                kept.waiting -= 1

    def put_content(self, body: bytes) -> bytes:
        with self._lock:
            locator = str(self._uploads).encode()
            self._uploads += 1
            self._contents[locator] = body
        return locator

    def drop_content(self, locator: bytes) -> None:
        self._contents.pop(locator, None)

    def collect_uploads(self, now: Micros, *, records_max: int | None = None) -> int:
        del now, records_max
        return 0

    def get_content(self, locator: bytes) -> bytes:
        body = self._contents.get(locator)
        if body is None:
            raise ContentMissing(f"no body at locator {locator!r} in {self.display_url}")
        return body

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        kept = self._shard(shard)
        with self._lock:
            kept.snapshots = sorted([*kept.snapshots, snapshot], key=lambda each: each.sequence)[-SNAPSHOTS_KEPT:]

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        kept = self._shards.get(shard)
        return iter(()) if kept is None else reversed(list(kept.snapshots))

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        self._shard(shard).deliveries.extend(deliveries)

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        kept = self._shards.get(shard)
        return iter(()) if kept is None else iter(list(kept.deliveries))

    def deliveries_end(self, shard: str) -> int | None:
        kept = self._shards.get(shard)
        return 0 if kept is None else len(kept.deliveries)

    def close(self) -> None:
        self._closed = True

    def _shard(self, shard: str) -> _MemoryShard:
        if self._closed:
            raise Closed("this log in memory was closed: open a new one")
        kept = self._shards.get(shard)
        if kept is None:
            with self._lock:
                kept = self._shards.get(shard)
                if kept is None:
                    opened = LogOpened(
                        log_id=self._log_id,
                        shards=0,
                        partitioner="workspace",
                        format=LOG_FORMAT,
                        opened_at=Micros(time.time_ns() // 1_000),
                    )
                    head = DEFAULT_CODEC.encode_record(opened)
                    kept = self._shards[shard] = _MemoryShard(
                        StoredRecord(0, head, tail=b""), ReplacedBodies(self._contents, self._replaced_bytes_max)
                    )
        return kept
