"""One partition as this process follows it: the states of its workspaces, folded from admitted decisions.

`ShardCoordinator` extends it for processes that may lead; `ccs-stream doctor` uses it as it is. Guarantees: a state is
changed only by decisions read from the log, admitted; listeners are called once a decision is folded. Does not: lead,
or have a thread; its methods may be called from any thread, and take its lock.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator

from confluent_kafka import Message

from ccs_stream.coordinator.kafka.shard.ports import Contents, DecisionListener, ShardCounts
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.kafka.store import KafkaLog, stored_of
from ccs_stream.log.port import Position, SnapshotBlob
from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandRefused, Event
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned

LOG = logging.getLogger(__name__)


class CatchUpBuffer:
    """The records that a replica takes while another one catches up with it."""

    def __init__(self) -> None:
        self.after = 0
        """Offset of the last record before those in the buffer."""
        self.messages: list[Message] = []


class ShardReplica:
    """Follows one partition, or some workspaces of it."""

    def __init__(self, store: KafkaLog, partition: int, *, workspace: str | None = None) -> None:
        """Follow all of `partition`, or only one workspace of it (and those merged in later)."""
        self.store = store
        self.partition = partition
        self.lock = threading.RLock()
        self.states: dict[str, Directory] = {}
        self.counts = ShardCounts()
        self.log_end = 0
        """Offset behind the last record of the partition at the last fetch."""
        self.follows_all = workspace is None
        if workspace is not None:
            self.states[workspace] = Directory()
        self.reader = ShardReader(store, workspace or f"partition {partition}", all_workspaces=workspace is None)
        self._listeners: dict[str, tuple[DecisionListener, ...]] = {}
        """By workspace; one workspace may be open several times in a process."""
        self._buffers: list[CatchUpBuffer] = []
        self._unsaved = 0
        """Decisions taken since the last snapshot."""
        self._behind_decision = False
        """True if the last record taken was an admitted decision: a snapshot is taken only behind one."""

    # Workspaces.

    def add_listener(self, listener: DecisionListener) -> Directory | None:
        """Call `listener` with every decision of its workspace.

        Returns the workspace's state, which changes under the lock; None where the workspace is not followed.
        """
        name = listener.workspace
        with self.lock:
            if not self.follows(name):
                return None
            self._listeners[name] = (*self._listeners.get(name, ()), listener)
            return self.states.setdefault(name, Directory())

    def remove_listener(self, listener: DecisionListener) -> None:
        """Call it no more. Where not all workspaces are followed, one without a listener is not followed on."""
        name = listener.workspace
        with self.lock:
            left = tuple(each for each in self._listeners.get(name, ()) if each is not listener)
            if left:
                self._listeners[name] = left
                return
            self._listeners.pop(name, None)
            if not self.follows_all:
                self.reader.exclude(name)
                self.states.pop(name, None)

    def follows(self, workspace: str) -> bool:
        """True if the workspace's decisions are folded here."""
        return self.follows_all or workspace in self.states

    @contextlib.contextmanager
    def buffering(self) -> Iterator["CatchUpBuffer"]:
        """Buffer the records taken from now on, for another replica that is to be merged in."""
        buffer = CatchUpBuffer()
        with self.lock:
            buffer.after = self.reader.offset
            self._buffers.append(buffer)
        try:
            yield buffer
        finally:
            with self.lock:
                self._buffers.remove(buffer)

    def merge_from(self, other: "ShardReplica", buffer: "CatchUpBuffer") -> bool:
        """Go on with the workspaces of another replica of this partition.

        The other one stands where buffering began or further on. Returns False, and does nothing, while this one is
        behind it. Raises what `take` raises.
        """
        with self.lock:
            if self.reader.offset < other.reader.offset:
                return False
            other.take(each for each in buffer.messages if (each.offset() or 0) > other.reader.offset)
            for workspace, state in other.states.items():
                if workspace not in self.states:
                    self.states[workspace] = state
                    self.reader.include(workspace)
            return True

    # The log.

    def take(self, messages: Iterable[Message]) -> None:
        """Take the next messages of the partition. Raises `LogDiverged`, `CorruptRecord`, `UnknownSchema`."""
        with self.lock:
            for message in messages:
                self._take(message)
                for buffer in self._buffers:
                    buffer.messages.append(message)

    def _take(self, message: Message) -> None:
        if self._take_own(message):
            return
        entry = self.reader.judge(stored_of(message))
        self._behind_decision = False
        if entry is None:
            return
        record = entry.record
        if entry.verdict is not Verdict.ADMITTED:
            self.counts.void[entry.verdict.value] += 1
            LOG.warning(
                "void record at offset %d of %s [%d]: %s",
                entry.offset,
                self.store.names.log,
                self.partition,
                entry.verdict.value,
            )
        if type(record) is DecisionRecord:
            if entry.verdict is Verdict.ADMITTED:
                self._fold(entry, record)
            self._decision_read(record, entry.verdict)
        elif type(record) is LeaderClaimed:
            self.counts.claims += entry.verdict is Verdict.ADMITTED
            self._claim_read(record, entry.verdict)
        elif type(record) is LeaderResigned:
            self._resignation_read(record, entry.verdict)

    def _fold(self, entry: LogEntry, record: DecisionRecord) -> None:
        fold_entry(self.states.setdefault(record.workspace, Directory()), entry)
        self._count_and_notify(record, entry.events, entry.offset, entry.hash, lambda: entry.stored.contents)

    def _count_and_notify(
        self,
        record: DecisionRecord,
        events: list[Event],
        offset: int,
        digest: Hash,
        contents: Contents,
    ) -> None:
        counts = self.counts
        counts.decisions += 1
        counts.events += len(events)
        if type(events[-1]) is CommandRefused:
            counts.refused[events[-1].reason.value] += 1
        self._unsaved += 1
        self._behind_decision = True
        self.store.learn(record.workspace, record.first_sequence, offset, events)
        for listener in self._listeners.get(record.workspace, ()):
            listener.on_decision(record, events, offset, digest, contents)

    # For a subclass that leads.

    def _take_own(self, message: Message) -> bool:
        """Fold a decision that this process appended, without decoding it; whether it was one."""
        del message
        return False

    def _decision_read(self, record: DecisionRecord, verdict: Verdict) -> None:
        """A decision was read, and folded where it was admitted."""

    def _claim_read(self, record: LeaderClaimed, verdict: Verdict) -> None:
        """A claim was read."""

    def _resignation_read(self, record: LeaderResigned, verdict: Verdict) -> None:
        """A resignation was read."""

    # Snapshots, and where to go on.

    @property
    def lag_records(self) -> int:
        """Records that were in the partition at the last fetch and were not taken yet."""
        return max(self.log_end - 1 - self.reader.offset, 0)

    def next_command_offset(self) -> int:
        """Offset of the first command of the commands topic that is not decided yet."""
        cursor = self.reader.cursor
        return cursor.command_offset + 1 if cursor.commands_log_id == self.store.commands_id else 0

    @property
    def unsaved(self) -> int:
        """Decisions taken since the last snapshot."""
        return self._unsaved

    def take_snapshots(self) -> list[tuple[str, SnapshotBlob]]:
        """A snapshot of every workspace, all at one place; none where the last record taken was not a decision."""
        with self.lock:
            if not self._behind_decision:
                return []
            cursor, offset = self.reader.cursor, self.reader.offset
            blobs: list[tuple[str, SnapshotBlob]] = []
            for workspace, state in self.states.items():
                end = cursor.end(workspace)
                position = Position(self.store.log_id, workspace, offset, end.sequence, end.hash)
                made = self.store.index(workspace).offset_of
                blobs.append((workspace, take_snapshot(state, position, cursor=cursor, offset_of=made)))
            self._unsaved = 0
            return blobs
