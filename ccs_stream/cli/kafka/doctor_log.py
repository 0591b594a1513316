"""The log as `ccs-stream doctor` reads it: each partition as a coordinator would, and who is in their group.

Guarantees: reads only; a partition that cannot be read is reported with its error, and the others are read. Does not:
judge what it finds.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import KafkaException, Message

from ccs_stream.coordinator.kafka.leader_log import WarmProducers
from ccs_stream.coordinator.kafka.member import DEDICATED_CLIENT
from ccs_stream.coordinator.kafka.restoring import restore
from ccs_stream.coordinator.kafka.shard import Shard
from ccs_stream.coordinator.port import wall_clock
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.kafka.errors import nobody_ever_joined, translated
from ccs_stream.log.kafka.partition import Partitions
from ccs_stream.log.kafka.store import KafkaLog, stored_of
from ccs_stream.log.port import BEFORE_FIRST
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, NotAuthorised
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.statehash import state_hash

Progress = Callable[[Iterator[Any], int], Iterator[Any]]
"""Shows how far a long reading has come."""


@dataclasses.dataclass(slots=True)
class Group:
    """The coordinators' group."""

    name: str
    members: list[tuple[str, frozenset[int]]] = dataclasses.field(default_factory=list)
    """Client id and host of each, and the partitions it is to lead."""
    dedicated: int = 0
    unknown: str | None = None
    """Why it could not be looked at."""

    def offered_by(self, partition: int) -> list[str]:
        """Who is to lead a partition."""
        return [who for who, partitions in self.members if partition in partitions]


def group_of(store: KafkaLog) -> Group:
    """Who coordinates a log. Joins nothing."""
    found = Group(store.names.coordinators)
    futures = store.clients.admin.describe_consumer_groups([found.name], request_timeout=store.settings.timeout_s)
    doing = f"asking who is in the group {found.name}"
    try:
        described: Any = futures[found.name].result()
    except KafkaException as error:
        if not nobody_ever_joined(error):
            found.unknown = str(translated(error, doing, store.clients.trouble))
        return found
    for member in described.members:
        assigned = () if member.assignment is None else member.assignment.topic_partitions
        partitions = frozenset(each.partition for each in assigned if each.topic == store.names.commands)
        found.members.append((f"{member.client_id} at {member.host}", partitions))
        found.dedicated += str(member.client_id).startswith(DEDICATED_CLIENT)
    return found


class Followed:
    """One partition, read as a coordinator would read it: from its snapshots, then to the end as it was at the time."""

    def __init__(self, store: KafkaLog, partition: int) -> None:
        self.partition = partition
        self.error: CcsError | None = None
        """Why it could not be read to its end."""
        self.unused_snapshots = False
        """Whether there are snapshots that could not be used."""
        self.from_snapshot = False
        self.undecided = 0
        """Messages in the commands topic behind the last one that was decided."""
        self.end = 0
        """Offset of the first record that was not read."""
        self._store = store
        # Never started: it has no thread, and appends nothing unless it is told to lead.
        producers = WarmProducers(store.clients, batch_bytes=0, spare=0)
        self._shard = Shard(store, partition, _Alone(), producers, clock=wall_clock)

    @property
    def states(self) -> dict[str, Directory]:
        """The state of each workspace."""
        return self._shard.states

    @property
    def cursor(self) -> Cursor:
        """What admission knows at the end."""
        return self._shard.reader.cursor

    def restore(self) -> None:
        """Stand behind the newest snapshots that can be used."""
        try:
            restore(self._shard)
        except NotAuthorised:
            return  # from the beginning, then: that this user lacks a right was said before
        self.from_snapshot = self._shard.reader.offset > BEFORE_FIRST
        self.unused_snapshots = not self.from_snapshot and bool(self._store.snapshotted(self.partition))

    def go_on(self, progress: Progress) -> None:
        """Read to the end as it is now."""
        store, reader = self._store, self._shard.reader
        try:
            # Commands first: what is decided meanwhile is no lag.
            waiting = store.bounds(store.names.commands, self.partition)[1]
            self.end = store.bounds(store.names.log, self.partition)[1]
            for message in progress(_messages(store, self.partition, reader.offset, self.end), self.end):
                _fold(reader, self.states, message)
        except CcsError as error:
            self.error = error
        else:
            self.undecided = max(waiting - self._shard.next_command_offset(), 0)


def follow_partition(store: KafkaLog, partition: int, progress: Progress) -> Followed:
    """Read a partition; what goes wrong is in its `error`."""
    followed = Followed(store, partition)
    try:
        store.check_head(partition)
        followed.restore()
    except CcsError as error:
        followed.error = error
        return followed
    followed.go_on(progress)
    return followed


def folds_from_zero(store: KafkaLog, followed: Followed, progress: Progress) -> dict[str, str]:
    """The hash of each workspace's state, folded from the beginning to where `followed` stands."""
    states: dict[str, Directory] = {}
    reader = ShardReader(store, f"partition {followed.partition}", all_workspaces=True)
    for message in progress(_messages(store, followed.partition, BEFORE_FIRST, followed.end), followed.end):
        _fold(reader, states, message)
    return state_hashes(states)


def state_hashes(states: dict[str, Directory]) -> dict[str, str]:
    """The hash of each state."""
    return {workspace: state_hash(state) for workspace, state in states.items()}


def _messages(store: KafkaLog, partition: int, after: int, end: int) -> Iterator[Message]:
    reading = Partitions(store.clients)
    try:
        yield from reading.read(store.names.log, partition, after, end - 1)
    finally:
        reading.close()


def _fold(reader: ShardReader, states: dict[str, Directory], message: Message) -> None:
    entry = reader.take(stored_of(message, bodies=False))
    if entry is not None and type(entry.record) is DecisionRecord and entry.events:
        fold_entry(states.setdefault(entry.record.workspace, Directory()), entry)


class _Alone:
    """The surroundings of a shard that only reads: nothing is ever asked of them."""

    def prove_membership(self, partition: int) -> None:
        raise self._bug(partition)

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        raise self._bug(partition, offset, term)

    def forward(self, batch: object) -> None:
        raise self._bug(batch)

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        raise self._bug(partition, error)

    def _bug(self, *what: object) -> AssertionError:
        return AssertionError(f"a shard that only reads wants something done: {what}")
