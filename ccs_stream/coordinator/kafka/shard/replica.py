"""One partition as this process follows it: the states of its workspaces, folded from what was admitted.

Guarantees: a state is changed only by decisions read from the log, admitted; listeners are told of a decision once it
is folded. Does not: lead; `shard` does. Has no thread: whoever has something for it takes its lock and says so.
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
from ccs_stream.log.reader import Entry, ShardReader
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandRefused, Event
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned

LOG = logging.getLogger(__name__)


class CatchUpBuffer:
    """What a replica took while another one was read to where it stood."""

    def __init__(self) -> None:
        self.after = 0
        """Offset of the last record that is not kept."""
        self.messages: list[Message] = []


class ShardReplica:
    """See the module's docstring."""

    def __init__(self, store: KafkaLog, partition: int, *, workspace: str | None = None) -> None:
        """Follow all of `partition`, or only one workspace of it (and those adopted later)."""
        self.store = store
        self.partition = partition
        self.lock = threading.RLock()
        self.states: dict[str, Directory] = {}
        self.counts = ShardCounts()
        self.log_end = 0
        """Where the partition ended at the last fetch."""
        self.follows_all = workspace is None
        if workspace is not None:
            self.states[workspace] = Directory()
        self.reader = ShardReader(store, workspace or f"partition {partition}", all_workspaces=workspace is None)
        self._listeners: dict[str, tuple[DecisionListener, ...]] = {}
        """By workspace; whoever listens twice in one process is told twice."""
        self._kept: list[CatchUpBuffer] = []
        self._unsaved = 0
        """Decisions taken since the last snapshot."""
        self._behind_decision = False
        """Whether the last record taken was an admitted decision: a snapshot is taken only behind one."""

    # Workspaces.

    def listen(self, listener: DecisionListener) -> Directory | None:
        """Tell `listener` what becomes of its workspace: its state, changed under the lock; None if not followed."""
        name = listener.workspace
        with self.lock:
            if not self.follows(name):
                return None
            self._listeners[name] = (*self._listeners.get(name, ()), listener)
            return self.states.setdefault(name, Directory())

    def unlisten(self, listener: DecisionListener) -> None:
        """Tell it nothing any more; a workspace nobody listens to is not followed where not all are."""
        name = listener.workspace
        with self.lock:
            left = tuple(each for each in self._listeners.get(name, ()) if each is not listener)
            if left:
                self._listeners[name] = left
                return
            self._listeners.pop(name, None)
            if not self.follows_all:
                self.reader.unwant(name)
                self.states.pop(name, None)

    def follows(self, workspace: str) -> bool:
        """Whether the workspace's decisions are folded here."""
        return self.follows_all or workspace in self.states

    @contextlib.contextmanager
    def keeping(self) -> Iterator["CatchUpBuffer"]:
        """Keep what is taken from now on, for another that is to be adopted."""
        kept = CatchUpBuffer()
        with self.lock:
            kept.after = self.reader.offset
            self._kept.append(kept)
        try:
            yield kept
        finally:
            with self.lock:
                self._kept.remove(kept)

    def adopt(self, other: "ShardReplica", kept: "CatchUpBuffer") -> bool:
        """Go on with the workspaces of another replica of this partition.

        It stands where keeping began or further on; False while this one is behind it. Raises what taking raises.
        """
        with self.lock:
            if self.reader.offset < other.reader.offset:
                return False
            other.take(each for each in kept.messages if (each.offset() or 0) > other.reader.offset)
            for workspace, state in other.states.items():
                if workspace not in self.states:
                    self.states[workspace] = state
                    self.reader.want(workspace)
            return True

    # The log.

    def take(self, messages: Iterable[Message]) -> None:
        """Take the next messages of the partition. Raises `LogDiverged`, `CorruptRecord`, `UnknownSchema`."""
        with self.lock:
            for message in messages:
                self._take(message)
                for kept in self._kept:
                    kept.messages.append(message)

    def _take(self, message: Message) -> None:
        if self._take_own(message):
            return
        entry = self.reader.take(stored_of(message))
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

    def _fold(self, entry: Entry, record: DecisionRecord) -> None:
        fold_entry(self.states.setdefault(record.workspace, Directory()), entry)
        self._tell(record, entry.events, entry.offset, entry.hash, lambda: entry.stored.contents)

    def _tell(
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
            listener.decided(record, events, offset, digest, contents)

    # For whoever leads.

    def _take_own(self, message: Message) -> bool:
        """Whether it is a decision of this process's own, which was folded without being decoded."""
        del message
        return False

    def _decision_read(self, record: DecisionRecord, verdict: Verdict) -> None:
        """A decision was judged, and folded where it was admitted."""

    def _claim_read(self, record: LeaderClaimed, verdict: Verdict) -> None:
        """A claim was judged."""

    def _resignation_read(self, record: LeaderResigned, verdict: Verdict) -> None:
        """A resignation was judged."""

    # Snapshots, and where to go on.

    def next_command_offset(self) -> int:
        """Where the commands topic goes on that is not decided yet."""
        cursor = self.reader.cursor
        return cursor.command_offset + 1 if cursor.commands_log_id == self.store.commands_id else 0

    @property
    def unsaved(self) -> int:
        """Decisions taken since the last snapshot."""
        return self._unsaved

    def take_snapshots(self) -> list[tuple[str, SnapshotBlob]]:
        """A snapshot of every workspace, all at one place; none where the last record taken was no decision."""
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

    def saved(self, unsaved: int) -> None:
        """Somebody else has kept a snapshot; so many decisions have been taken since."""
        with self.lock:
            self._unsaved = unsaved
