"""The log in a Kafka topic: `ccs_stream.log.port.LogStore` over brokers.

`open_log("kafka://...")` opens it; the coordinators in `coordinator.kafka` append to it.

Guarantees: a partition is a shard; what `append` reports as appended is on all in-sync replicas; what is read is below
the high watermark, so that no failure of a broker takes it back. Does not: exclude other writers; claims in the log
decide whose records are facts (`protocol.admit`), and coordinators append under such a claim.

A shard is named by a workspace in it. Bodies, snapshots and deliveries are in topics of their own beside the log.
"""

import copy
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any, Final

from confluent_kafka import Message

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import encode_tail
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.content_topic import ContentTopic
from ccs_stream.log.kafka.names import partition_of
from ccs_stream.log.kafka.sequence_index import SequenceIndex
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.snapshot_topic import SnapshotTopic
from ccs_stream.log.kafka.topic_reader import TopicReader
from ccs_stream.log.port import Appended, Conflict, Draft, SnapshotBlob, StoredRecord, Unknown
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Cursor, Verdict, admit, advance
from ccs_stream.protocol.errors import Closed, CorruptRecord, LogDiverged, LogMissing, LogReadOnly, OutcomeUnknown
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import LogId, Micros
from ccs_stream.protocol.records import DecisionRecord

_POLL_S: Final = 0.005
"""`wait` asks this often where the partition ends; each time is one round trip."""


class _ReferenceCount:
    """Counts the `KafkaLog` objects that share one set of clients."""

    def __init__(self) -> None:
        self._count = 1
        self._lock = threading.Lock()
        self.on_last_release: list[Callable[[], None]] = []

    def acquire(self) -> bool:
        """Count one more; false if the last one was released already."""
        with self._lock:
            self._count += self._count > 0
            return self._count > 0

    def release(self) -> bool:
        """Count one less; true if it was the last."""
        with self._lock:
            self._count -= 1
            return self._count == 0


class KafkaLog:
    """See the module's docstring."""

    serialises_writers = False
    finds_by_sequence = False
    instantaneous = False
    default_freshness = "own_writes"

    def __init__(self, settings: KafkaSettings, *, read_only: bool = False) -> None:
        """Find the log. Raises `LogMissing` where there is none, `LogDiverged`, `LogUnavailable`, `NotAuthorised`."""
        self.settings = settings
        self.clients = Clients(settings)
        self.names = self.clients.names
        self._read_only = read_only
        self._closed = False
        self._references = _ReferenceCount()
        self._lock = threading.Lock()
        self._turns: dict[int, threading.RLock] = {}
        self._indexes: dict[str, SequenceIndex] = {}
        self._reader = TopicReader(self.clients)
        self._appender = Appender(self.clients)
        there = topics.describe(self.clients, settings=False)
        missing = [name for name in self.names.all if name not in there]
        if missing:
            raise LogMissing(
                f"{self.display_url} has no topic {', '.join(missing)}: make the topics of a new log with "
                f"`ccs-stream topics create {self.display_url}`; where there was a log before, restore it from a copy"
            )
        self.opened = {name: there[name] for name in (self.names.log, self.names.commands)}
        """The topics that must stay as they are."""
        self.commands_id = there[self.names.commands].topic_id
        """Id of the commands topic: a topic that is made anew has another id."""
        self.build = f"ccs-stream {metadata.version('ccs-stream')}"
        """Release of this process. Claims name it, so that an incident shows which release led."""
        self.partitions = there[self.names.log].partitions
        self._check_partitions(there)
        self._log_id = topics.read_opened(self._reader, self.names.log, 0).log_id
        content = there[self.names.content].partitions
        self._content = ContentTopic(self.names.content, content, self._appender, self._reader)
        self._snapshots = SnapshotTopic(self.names.snapshots, self._appender, self._reader)

    @property
    def named_workspace(self) -> str | None:
        return self.settings.workspace

    @property
    def log_id(self) -> LogId:
        return self._log_id

    @property
    def display_url(self) -> str:
        return self.settings.display_url

    @functools.cached_property
    def largest_message(self) -> int:
        """Bytes of the largest batch that the log's topic takes."""
        return topics.largest_message(self.clients, self.names.log)

    def partition(self, workspace: str) -> int:
        """The partition of a workspace."""
        return partition_of(workspace, self.partitions)

    def expected_time(self) -> Micros | None:
        return None

    def workspaces(self) -> list[str]:
        return sorted({name for name in self.scan() if name is not None})

    def scan(self) -> Iterator[str | None]:
        self._check()
        for partition in range(self.partitions):
            cursor = Cursor()
            for message in self.messages(partition, -1):
                record = stored_of(message, bodies=False).record
                # Any program with the right to write may write any name: only admitted records count.
                if record is None or admit(cursor, record) is not Verdict.ADMITTED:
                    yield None
                    continue
                advance(cursor, record)
                yield record.workspace if type(record) is DecisionRecord else None

    def record_count(self) -> int:
        bounds = (self.bounds(self.names.log, partition) for partition in range(self.partitions))
        return sum(high - low for low, high in bounds)

    def turn(self, shard: str) -> AbstractContextManager[None]:
        """The turn among the threads of this process; other processes are excluded by claims alone."""
        self._check()
        with self._lock:
            return self._turns.setdefault(self.partition(shard), threading.RLock())  # type: ignore[return-value]

    def abandon_turn(self, shard: str) -> None:
        del shard  # a lock of the interpreter's own: no interrupt comes between its being taken and its block

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        """See the port. Another process may append between the check of the end and the append."""
        self._check_writable()
        partition = self.partition(shard)
        with self.turn(shard):
            end = self.end(shard)
            if end != expected:
                return Conflict(end)
            key = shard.encode()
            records: list[tuple[bytes | None, bytes | None]] = [
                (key if draft.decision else None, message_of(draft)) for draft in drafts
            ]
            try:
                offsets = self._appender.append(self.names.log, partition, records)
            except OutcomeUnknown as error:
                return Unknown(str(error))
            return Appended(max(offsets, default=end))

    def messages(self, partition: int, after: int, until: int | None = None) -> Iterator[Message]:
        """Messages of a partition of the log with offsets above `after`, as `read`."""
        self._check()
        return self._reader.read(self.names.log, partition, after, until)

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        self._check()
        for message in self.messages(self.partition(shard), after, until):
            yield stored_of(message, bodies=bodies)

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        self._check()
        if sequence < 1:
            return None
        offset = self.index(shard).offset_of(sequence)
        if offset is not None:
            stored = self.record_at(shard, offset)
            if stored is None:
                raise LogDiverged(f"offset {offset} of {self.names.log} was read before and is gone")
            return stored
        return self._look_for(shard, sequence)

    def find_each(self, shard: str, sequences: Sequence[int]) -> Iterator[StoredRecord | None]:
        return (self.find(shard, sequence) for sequence in sequences)

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        self.index(workspace).learn(first_sequence, offset, events)

    def index(self, workspace: str) -> SequenceIndex:
        """The index of a workspace: where its decisions are."""
        found = self._indexes.get(workspace)
        if found is None:
            found = self._indexes.setdefault(workspace, SequenceIndex())
        return found

    def end(self, shard: str) -> int:
        self._check()
        return self._reader.bounds(self.names.log, self.partition(shard))[1] - 1

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Offsets of the first message of a partition of any topic, and of the one that will come next."""
        self._check()
        return self._reader.bounds(topic, partition)

    def record_at(self, shard: str, offset: int) -> StoredRecord | None:
        """The record at an offset; None beyond the end."""
        self._check()
        message = next(iter(self.messages(self.partition(shard), offset - 1, offset)), None)
        return None if message is None or message.offset() != offset else stored_of(message)

    def check_head(self, partition: int) -> None:
        """Check that a partition begins with the record that opens this log. Raises `LogMissing`, `LogDiverged`."""
        opened = topics.read_opened(self._reader, self.names.log, partition)
        if opened.log_id != self._log_id:
            raise LogDiverged(
                f"{self.names.log} [{partition}] is of another log than partition 0: the topic was put together from "
                "two; restore it from one copy"
            )

    def workspaces_with_snapshots(self, partition: int) -> frozenset[str]:
        """Workspaces of a partition that have snapshots."""
        self._check()
        return self._snapshots.workspaces(partition)

    def change_mark(self, shard: str) -> int:
        return self.end(shard)

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.end(shard) <= after:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    # Beside the records.

    def put_content(self, body: bytes) -> bytes:
        self._check_writable()
        return self._content.put(body)

    def drop_content(self, locator: bytes) -> None:
        del locator  # a topic forgets by its retention

    def collect_uploads(self, now: Micros, *, records_max: int | None = None) -> int:
        del now, records_max
        return 0

    def get_content(self, locator: bytes) -> bytes:
        self._check()
        return self._content.get(locator)

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        self._check_writable()
        self._snapshots.save(self.partition(shard), shard, snapshot)

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        self._check()
        return self._snapshots.all(self.partition(shard), shard)

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        self._check_writable()
        key = shard.encode()
        self._appender.append(self.names.deliveries, self.partition(shard), [(key, each) for each in deliveries])

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        self._check()
        key = shard.encode()
        for message in self._reader.read(self.names.deliveries, self.partition(shard), -1):
            value = message.value()
            if message.key() == key and isinstance(value, bytes):
                yield value

    def deliveries_end(self, shard: str) -> int | None:
        """None: a topic tells where it ends, and not whether deliveries were cut off its end."""
        del shard
        self._check()
        return None

    def share(self, settings: KafkaSettings | None = None) -> "KafkaLog | None":
        """Another object for the same log, with the same clients, to be closed by itself; None if all are closed.

        `settings` may name another workspace, and nothing else that differs.
        """
        if not self._references.acquire():
            return None
        other = copy.copy(self)
        other.settings = settings or self.settings
        other._closed = False  # noqa: SLF001  # its own class
        return other

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._references.release():
            self._reader.close()
            self._appender.close()
            for each in self._references.on_last_release:
                each()

    def on_close(self, call: Callable[[], None]) -> None:
        """Call this when the last object that shares the clients is closed."""
        self._references.on_last_release.append(call)

    # Within.

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")
        self.clients.check_process()

    def _check_writable(self) -> None:
        self._check()
        if self._read_only:
            raise LogReadOnly(f"{self.display_url} was opened read-only: open it for writing to append")

    def _check_partitions(self, there: Mapping[str, topics.Topic]) -> None:
        opened = topics.read_opened(self._reader, self.names.log, 0)
        for name in (self.names.log, self.names.commands):
            if there[name].partitions != opened.shards:
                raise LogDiverged(
                    f"{name} has {there[name].partitions} partitions, and the log was opened with {opened.shards}: a "
                    "workspace would be looked for in the wrong one. Partitions cannot be taken away: make a new log "
                    "under another prefix, or restore the topic from a copy"
                )

    def _look_for(self, workspace: str, sequence: int) -> StoredRecord | None:
        """Find the decision by reading from a known one before it, or from the beginning."""
        with self._lock:
            begin = self.index(workspace).before(sequence)
        reader = ShardReader(self, workspace)
        if begin is not None:
            stored = self.record_at(workspace, begin)
            if stored is None:
                raise LogDiverged(f"offset {begin} of {self.names.log} was read before and is gone")
            if _holds(stored, sequence):
                return stored
            reader.start_after(stored)
        for entry in reader.read():
            if entry.verdict is Verdict.ADMITTED and _holds(entry.stored, sequence):
                return entry.stored
        return None


def _holds(stored: StoredRecord, sequence: int) -> bool:
    record = stored.record
    if type(record) is not DecisionRecord:
        return False
    return record.first_sequence <= sequence < record.first_sequence + len(record.events)


def message_of(draft: Draft) -> bytes:
    """A record as one message."""
    return draft.head + encode_tail(draft.contents) if draft.decision else draft.head


def stored_of(message: Message, *, bodies: bool = True) -> StoredRecord:
    """A message as a stored record. A message that is no record becomes one that does not decode."""
    value: Any = message.value()
    data: bytes = value if isinstance(value, bytes) else b""
    offset = message.offset() or 0
    try:
        record, at = DEFAULT_CODEC.decode_record(data)
    except CorruptRecord:
        return StoredRecord(offset, data, tail=b"")
    tail = data[at:]
    if not bodies:
        return StoredRecord(offset, data[:at], tail=b"", record=record)
    return StoredRecord(offset, data[:at], tail=tail, record=record)
