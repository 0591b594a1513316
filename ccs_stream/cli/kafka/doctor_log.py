"""Reads the log for `ccs-stream doctor`: each partition as a coordinator would read it.

Guarantees: it writes nothing; a partition that cannot be read is reported with its error, and the others are read. Does
not: judge what it finds.
"""

from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Message

from ccs_stream.coordinator.kafka.shard.replica import ShardReplica
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.kafka.store import KafkaLog, stored_of
from ccs_stream.log.port import BEFORE_FIRST
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, NotAuthorised
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.statehash import state_hash

Progress = Callable[[Iterator[Any], int], Iterator[Any]]
"""Passes items on, and shows how far a long reading has come."""


class PartitionReader:
    """One partition, read as a coordinator reads it: from its snapshots, then to its end at that time."""

    def __init__(self, store: KafkaLog, partition: int) -> None:
        self.partition = partition
        self.error: CcsError | None = None
        """Why it could not be read to its end."""
        self.unused_snapshots = False
        """True if there are snapshots, none of which could be used."""
        self.from_snapshot = False
        self.undecided = 0
        """Messages in the commands topic after the last decided command."""
        self.end = 0
        """Offset after the last record that was read."""
        self._store = store
        self._replica = ShardReplica(store, partition)

    @property
    def states(self) -> dict[str, Directory]:
        """The state of each workspace."""
        return self._replica.states

    @property
    def cursor(self) -> Cursor:
        """The position of the reader, and who leads there."""
        return self._replica.reader.cursor

    def restore(self) -> None:
        """Start from the newest snapshots that can be used."""
        try:
            restore(self._replica)
        except NotAuthorised:
            return  # from the beginning, then: that this user lacks a right was said before
        self.from_snapshot = self._replica.reader.offset > BEFORE_FIRST
        self.unused_snapshots = not self.from_snapshot and bool(self._store.workspaces_with_snapshots(self.partition))

    def read_to_end(self, progress: Progress) -> None:
        """Read to the end as it is now."""
        store, reader = self._store, self._replica.reader
        try:
            # Commands first: what is decided meanwhile is no lag.
            waiting = store.bounds(store.names.commands, self.partition)[1]
            self.end = store.bounds(store.names.log, self.partition)[1]
            for message in progress(store.messages(self.partition, reader.offset, self.end - 1), self.end):
                _fold(reader, self.states, message)
        except CcsError as error:
            self.error = error
        else:
            self.undecided = max(waiting - self._replica.next_command_offset(), 0)


def follow_partition(store: KafkaLog, partition: int, progress: Progress) -> PartitionReader:
    """Read a partition; an error is kept in its `error`."""
    followed = PartitionReader(store, partition)
    try:
        store.check_head(partition)
        followed.restore()
    except CcsError as error:
        followed.error = error
        return followed
    followed.read_to_end(progress)
    return followed


def folds_from_zero(store: KafkaLog, followed: PartitionReader, progress: Progress) -> dict[str, str]:
    """The hash of each workspace's state, folded from the first record to where `followed` stands."""
    states: dict[str, Directory] = {}
    reader = ShardReader(store, f"partition {followed.partition}", all_workspaces=True)
    for message in progress(store.messages(followed.partition, BEFORE_FIRST, followed.end - 1), followed.end):
        _fold(reader, states, message)
    return state_hashes(states)


def state_hashes(states: dict[str, Directory]) -> dict[str, str]:
    """The hash of each state, by workspace."""
    return {workspace: state_hash(state) for workspace, state in states.items()}


def _fold(reader: ShardReader, states: dict[str, Directory], message: Message) -> None:
    entry = reader.judge(stored_of(message, bodies=False))
    if entry is not None and type(entry.record) is DecisionRecord and entry.events:
        fold_entry(states.setdefault(entry.record.workspace, Directory()), entry)
