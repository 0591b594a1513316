"""The membership of a process in the coordinators' group: the partitions it should try to lead, and their commands.

`LogFollower` makes one when it offers to lead. Guarantees: one thread owns the group's consumer; rebalance callbacks
only note what happened; a proof of membership is a synchronous offset commit that the broker accepted; commands of a
partition are fetched only from where its shard said they go on. Does not: lead; the group only suggests who should try.

How: the thread `ccs-member` carries out requests (proofs, seeks, assignments) that shards and callbacks put into a
deque, and polls the consumer for commands, which it hands to the shard. It is a thread of its own, not a
`PeriodicTask`, because it owns the consumer. It blocks on the poll, on brokers for the log's time-out, and on a shard's
lock. The consumer is polled only while the process makes progress (`alive`), so that a stuck process loses its
partitions.
"""

import collections
import functools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from ccs_stream.background import WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.log.commands import decode_command
from ccs_stream.log.kafka.errors import moved, transient, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.errors import CcsError, CorruptRecord, LogDiverged, LogError, NotAuthorised
from ccs_stream.protocol.leadership import QueuedCommand

LOG = logging.getLogger(__name__)

POLL_S: Final = 0.02
"""How long one poll for commands waits, and so how soon a requested seek or proof is carried out."""
COMMANDS_PER_POLL: Final = 500
"""Commands taken between two looks at the requests."""
_WORKSPACES_MAX: Final = 10_000
"""Workspaces whose partition is remembered: computing it costs as much as decoding a command."""
COMMIT_EVERY_S: Final = 5.0
"""How often progress is committed, for dashboards of lag; nothing reads it back."""
DEDICATED_CLIENT: Final = "ccs-coordinator"
EMBEDDED_CLIENT: Final = "ccs-embedded"


class MemberHost(Protocol):
    """The process that a member is in: it has the shards that the group assigns."""

    def follow(self, partition: int, ready: Callable[[ShardCoordinator], None]) -> None:
        """Follow a partition unless that is done already; call `ready` once its shard is there. Must not block."""

    def alive(self) -> bool:
        """True if this process has made progress lately."""

    def fail(self, error: CcsError) -> None:
        """End following and leading with `error`, which the process cannot go on with."""


class GroupMember:
    """One membership, from joining to `leave`."""

    def __init__(self, store: KafkaLog, host: MemberHost, *, client_id: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._host = host
        self._clock = clock
        self._client_id = client_id
        self._topic = store.names.commands
        self._partition_of = functools.lru_cache(_WORKSPACES_MAX)(store.partition)
        self._requests: collections.deque[Callable[[Consumer], None]] = collections.deque()
        self._assigned_shards: dict[int, ShardCoordinator | None] = {}
        """Partitions the group assigns to this process; None until their shard is there."""
        self._next: dict[int, int] = {}
        """Offset of the next command to take, of the partitions whose shard has said where they go on."""
        self._fetching: set[int] = set()
        """The partitions that the consumer fetches; the others wait until their shard has room again."""
        self._last_seek: dict[int, int] = {}
        """The term of the last seek requested for each partition: an earlier one that had to wait is dropped."""
        self._committed_at = 0.0
        self._stop = threading.Event()
        self._taken = 0
        """Commands handed to shards."""
        self.garbage = 0
        """Messages in the commands topic that were no commands."""
        self._thread = threading.Thread(target=self._run, name="ccs-member", daemon=True)
        self._thread.start()

    # Requested by shards, from any thread.

    def prove_membership(self, partition: int) -> None:
        """See `ShardHost`."""
        self._requests.append(functools.partial(self._prove, partition))

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        """See `ShardHost`."""
        self._last_seek[partition] = term
        self._requests.append(functools.partial(self._seek, partition, offset, term))

    def leave(self, wait_s: float) -> None:
        """Leave the group, and wait until that is done, for at most so long. From any thread."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(wait_s)

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that the group assigns to this process now."""
        return tuple(sorted(self._assigned_shards))

    def health(self) -> WorkerHealth:
        """The state of its thread."""
        return WorkerHealth("member", self._thread.is_alive(), len(self._requests), self._taken, self.garbage, 0, None)

    # The thread.

    def _run(self) -> None:
        try:
            consumer = self._store.clients.member(client_id=self._client_id)
            consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        except (CcsError, KafkaException) as error:
            self._host.fail(error if isinstance(error, CcsError) else translated(error, "joining the coordinators"))
            return
        try:
            while not self._stop.is_set():
                self._round(consumer)
        except CcsError as error:
            self._host.fail(error)
        except KafkaException as error:
            self._host.fail(translated(error, "leading", self._store.clients.connection))
        except Exception as error:
            LOG.exception("leading partitions of %s failed: this is a bug of ccs-stream", self._store.display_url)
            self._host.fail(LogError(f"leading failed: {error!r}: this is a bug of ccs-stream"))
        finally:
            for shard in self._assigned_shards.values():
                if shard is not None:
                    shard.on_assignment_lost()
            consumer.close()

    def _round(self, consumer: Consumer) -> None:
        for _ in range(len(self._requests)):  # a request that has to be tried again comes in the next round
            self._requests.popleft()(consumer)
        if not self._host.alive():
            self._clock.sleep(POLL_S)
            return
        self._make_room(consumer)
        first = consumer.poll(POLL_S)
        if first is not None:
            self._take(consumer, [first, *consumer.consume(COMMANDS_PER_POLL, 0)])
        now = self._clock.monotonic()
        if now - self._committed_at > COMMIT_EVERY_S:
            self._committed_at = now
            self._commit(consumer)

    def _take(self, consumer: Consumer, messages: Iterable[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is not None:
                if moved(error):
                    raise LogDiverged(
                        f"{self._topic} was made anew or cut while its commands were taken: stop all coordinators, see "
                        "that it has as many partitions as the log with `ccs-stream topics check URL`, and start them "
                        "again; they take a new topic from its beginning"
                    )
                if not transient(error):
                    said = translated(
                        error,
                        f"taking commands from {self._topic} in the group {self._store.names.coordinators}",
                        self._store.clients.connection,
                    )
                    if isinstance(said, NotAuthorised):
                        raise said
                    LOG.warning("%s", said)
                continue
            partition, offset = message.partition(), message.offset()
            shard = None if partition is None else self._assigned_shards.get(partition)
            if shard is None or partition is None or offset is None or not self._is_next(partition, offset):
                continue
            self._next[partition] = offset + 1
            value: Any = message.value()
            try:
                workspace, command = decode_command(value if isinstance(value, bytes) else b"")
                self._refuse_misplaced(partition, workspace, command)
            except CorruptRecord as wrong:
                self.garbage += 1
                LOG.warning("offset %d of %s [%d] is no command: %s", offset, self._topic, partition, wrong)
                continue
            shard.submit(QueuedCommand(workspace=workspace, command=command, offset=offset))
            self._taken += 1
            if shard.full:
                self._stop_fetching(consumer, partition)

    def _refuse_misplaced(self, partition: int, workspace: str, command: Command) -> None:
        """Raise `CorruptRecord` for a command that no client of ours sends, and that cannot be decided soundly."""
        if command.number < 1:
            raise CorruptRecord(f"a {command.KIND} numbered {command.number}: without a number it has no one outcome")
        if self._partition_of(workspace) != partition:
            raise CorruptRecord(f"a {command.KIND} for {workspace!r}, whose partition is another one")

    def _is_next(self, partition: int, offset: int) -> bool:
        """True if a command is to be taken. One that was fetched before a seek, or before fetching stopped, is not."""
        return partition in self._fetching and offset >= self._next[partition]

    # A partition that is paused is fetched again only after a second; one that is assigned anew, at once.

    def _stop_fetching(self, consumer: Consumer, partition: int) -> None:
        if partition in self._fetching:
            self._fetching.discard(partition)
            consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _start_fetching(self, consumer: Consumer, partition: int, offset: int) -> None:
        self._stop_fetching(consumer, partition)
        self._next[partition] = offset
        self._fetching.add(partition)
        consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])

    def _make_room(self, consumer: Consumer) -> None:
        for partition, offset in tuple(self._next.items()):
            shard = self._assigned_shards.get(partition)
            if partition not in self._fetching and shard is not None and not shard.full:
                self._start_fetching(consumer, partition, offset)

    # The group.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is fetched until the shard says from where. Without a call here, the client would assign them itself.
        consumer.incremental_assign([])
        for each in partitions:
            self._assigned_shards[each.partition] = None
            self._requests.append(functools.partial(self._follow, each.partition))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        flowing = [each.partition for each in partitions if each.partition in self._fetching]
        consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in flowing])
        for each in partitions:
            shard = self._assigned_shards.pop(each.partition, None)
            self._fetching.discard(each.partition)
            self._next.pop(each.partition, None)
            if shard is not None:
                self._requests.append(functools.partial(self._lost, shard))

    def _lost(self, shard: ShardCoordinator, _: Consumer) -> None:
        if shard.partition not in self._assigned_shards:
            shard.on_assignment_lost()

    def _follow(self, partition: int, _: Consumer) -> None:
        if partition in self._assigned_shards:
            self._host.follow(partition, self._ready)

    def _ready(self, shard: ShardCoordinator) -> None:
        """A shard is followed now. Called from any thread."""
        self._requests.append(functools.partial(self._lead, shard))

    def _lead(self, shard: ShardCoordinator, _: Consumer) -> None:
        if shard.partition in self._assigned_shards:
            self._assigned_shards[shard.partition] = shard
            shard.on_assigned()

    def _prove(self, partition: int, consumer: Consumer) -> None:
        shard = self._assigned_shards.get(partition)
        if shard is None:
            return
        place = TopicPartition(self._topic, partition, max(shard.next_command_offset(), 0))
        try:
            (committed,) = consumer.commit(offsets=[place], asynchronous=False) or [place]
        except KafkaException as error:
            LOG.info("no proof of membership for %s [%d]: %s", self._topic, partition, error)
            return
        if committed.error is None:
            shard.on_membership_proved()

    def _seek(self, partition: int, offset: int, term: int, consumer: Consumer) -> None:
        shard = self._assigned_shards.get(partition)
        if shard is None or self._last_seek.get(partition) != term:
            return
        try:
            low, high = self._store.bounds(self._topic, partition)
        except CcsError as error:
            if not error.retryable:
                raise
            LOG.warning("the commands of partition %d cannot be taken yet: %s", partition, error)
            self._requests.append(functools.partial(self._seek, partition, offset, term))
            return
        if offset > high:
            raise LogDiverged(
                f"the log was decided to offset {offset - 1} of {self._topic} [{partition}], which ends at {high - 1}: "
                "the commands topic was made anew or cut. Stop all coordinators; start them again where it was made "
                "anew; where its end was lost, delete it and make it anew first, with `ccs-stream topics create URL`"
            )
        if offset < low:
            LOG.warning("commands %d to %d of %s [%d] were deleted", offset, low - 1, self._topic, partition)
        self._start_fetching(consumer, partition, max(offset, low))
        shard.on_seek_done(term)

    def _commit(self, consumer: Consumer) -> None:
        places = [
            TopicPartition(self._topic, partition, shard.next_command_offset())
            for partition, shard in self._assigned_shards.items()
            if shard is not None and partition in self._fetching
        ]
        if places:
            try:
                consumer.commit(offsets=places, asynchronous=True)
            except KafkaException as error:
                LOG.debug("progress was not committed: %s", error)
