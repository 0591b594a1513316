"""The follower of a log on Kafka: one thread of a process reads all the partitions that it follows.

`SharedFollower` owns one for all clients of a process, `CoordinatorService` one for itself. Guarantees: one thread
follows all partitions, with one consumer; nothing is restored inside a rebalance callback; when following fails,
everybody who waits is woken and finds the error. Does not: answer callers; they listen to a shard.

How: the thread `ccs-follow` polls the consumer, hands each record to its shard (under the shard's lock, which folds it,
resolves commands and may append what a leader decides next), calls `on_round_end`, and lets time pass for the shards.
It is a thread of its own, not a `PeriodicTask`, because it owns a consumer. It blocks on the poll, on a shard's lock
and, while brokers are silent, for a moment on asking one. Restores, snapshots, the check of the topics and the group's
membership have threads of their own, so that none of them can keep it from reading.
"""

import collections
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from ccs_stream.background import WorkerHealth, run_in_background
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.kafka.commands.topic import CommandsTopic
from ccs_stream.coordinator.kafka.follower.followed_shards import FollowedShards
from ccs_stream.coordinator.kafka.follower.snapshot_keeper import SnapshotKeeper
from ccs_stream.coordinator.kafka.follower.topic_monitor import TopicMonitor
from ccs_stream.coordinator.kafka.group.member import DEDICATED_CLIENT, GroupMember
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.leader_log import WarmProducers, largest_batch
from ccs_stream.log.kafka.errors import transient, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Sweep
from ccs_stream.protocol.errors import CcsError, LogError
from ccs_stream.protocol.leadership import QueuedCommand, Role

LOG = logging.getLogger(__name__)

POLL_S: Final = 0.02
"""How long one poll of the log waits, and so how often time passes for shards."""
RECORDS_PER_ROUND: Final = 1_000
"""Records taken between two looks at the time."""
SPARE_PRODUCERS: Final = 3
"""Producers kept ready for partitions to be taken over; each has a few threads that sleep."""
QUIET_S: Final = 2.0
"""With nothing to follow for so long, the brokers are asked whether they are there."""
SILENT_S: Final = 3.0
"""Brokers that answer nothing for so long do not answer, though their connections stand."""
FINISH_S: Final = 1.0
"""How long closing waits for commands that are being decided."""
RESIGN_S: Final = 3.0
"""How long brokers are waited for to take all resignations, and then to let a member leave: a process that is asked to
stop has some ten seconds, and without either the others take over when its session runs out."""
PROBE_EVERY_S: Final = 0.5
"""While the brokers do not answer, how often they are asked whether they do again."""
PROBE_TIMEOUT_S: Final = 0.3
"""How long such a question waits."""
FINISH_POLL_S: Final = 0.005
"""How often closing looks whether everything is decided."""


class LogFollower:
    """Follows a log for one process, and joins the group of the coordinators for it."""

    def __init__(
        self,
        store: KafkaLog,
        *,
        client_id: str | None,
        selective: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Follow nothing yet.

        With `client_id`, `join_group` joins under that name; without, it does nothing. `selective`: of a partition,
        follow only the workspaces that are asked for.
        """
        self.store = store
        self.clock = clock
        self.commands = CommandsTopic(store)
        self.error: CcsError | None = None
        """The error that ended following, if it has ended so."""
        self._snapshots = SnapshotKeeper(store)
        self._monitor = TopicMonitor(store, lambda: tuple(self.shards), self.fail, clock=clock)
        spare = min(store.partitions, SPARE_PRODUCERS) if client_id is not None else 0
        batch_bytes = 0 if client_id is None else largest_batch(store)
        self._producers = WarmProducers(store.clients, batch_bytes=batch_bytes, spare=spare)
        self._selective = selective
        self.on_round_end: Callable[[], None] | None = None
        """Called in the following thread, without a lock, after each round: it wakes those who wait."""
        self._starting: collections.deque[ShardCoordinator] = collections.deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._followed = FollowedShards(
            store,
            new_shard=self.new_shard,
            on_started=self._started,
            on_failure=self.fail,
            error=lambda: self.error,
            stopped=self._stop,
            clock=clock,
        )
        self._rounds = 0
        self._round_ended_at = clock.monotonic()
        self._ticked_at = 0.0
        self._probed_at = 0.0
        self._heard_at = clock.monotonic()
        """When the brokers last answered."""
        self._client_id = client_id
        self.member: GroupMember | None = None
        self._thread = threading.Thread(target=self._run, name="ccs-follow", daemon=True)

    def join_group(self) -> None:
        """Join the group of the coordinators, which offers to lead. Does nothing without a `client_id`."""
        if self.member is None and self._client_id is not None:
            self._producers.warm()
            self.member = GroupMember(self.store, self, client_id=self._client_id, clock=self.clock)

    def leave_group(self) -> None:
        """Lead nothing any more: resign what is led, and let others have it."""
        member, self.member = self.member, None
        if member is None:
            return
        led = [shard for partition in member.partitions if (shard := self.shards.get(partition)) is not None]
        for shard in led:
            shard.resign()
        deadline = self.clock.monotonic() + RESIGN_S
        for shard in led:
            shard.flush(max(deadline - self.clock.monotonic(), 0.0))
        member.leave(RESIGN_S)

    # For the member: `MemberHost`.

    def follow(self, partition: int, ready: Callable[[ShardCoordinator], None]) -> None:
        """See `MemberHost`."""
        self._followed.follow(partition, ready)

    def alive(self) -> bool:
        """True if the following thread has made progress lately."""
        return self.clock.monotonic() - self._round_ended_at < self.store.settings.session_timeout_s / 2

    def fail(self, error: CcsError) -> None:
        """End following with `error`, which everybody who waits then finds."""
        if self.error is None:
            self.error = error
            LOG.error("%s is not followed any more: %s", self.store.display_url, error)
        self._stop.set()

    # For shards: `ShardHost`.

    def prove_membership(self, partition: int) -> None:
        """See `ShardHost`."""
        if self.member is not None:
            self.member.prove_membership(partition)

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        """See `ShardHost`."""
        if self.member is not None:
            self.member.seek_commands(partition, offset, term)

    def forward(self, batch: Iterable[QueuedCommand]) -> None:
        """See `ShardHost`."""
        for queued in batch:
            if type(queued.command) is not Sweep:  # the new leader sweeps by itself
                self.commands.send(queued.workspace, queued.command)

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        """See `ShardHost`."""
        LOG.error("partition %d cannot be led from here: %s", partition, error)
        run_in_background("leave", self.leave_group)

    # Following.

    def follow_now(self, workspace: str) -> ShardCoordinator:
        """Follow a workspace, and so its partition: see `FollowedShards.follow_now`."""
        return self._followed.follow_now(workspace)

    def start(self, shard: ShardCoordinator) -> None:
        """Follow a shard from where it stands."""
        self._followed.start(shard)

    @property
    def shards(self) -> Mapping[int, ShardCoordinator]:
        """The followed shards, by partition."""
        return self._followed.shards

    def new_shard(self, partition: int, workspace: str | None = None) -> ShardCoordinator:
        """A shard of this follower, before its first record; of one workspace, where not all are followed."""
        only = workspace if self._selective else None
        return ShardCoordinator(self.store, partition, self, self._producers, workspace=only, clock=self.clock)

    def _started(self, shard: ShardCoordinator) -> None:
        self._starting.append(shard)
        with self._lock:
            if not self._thread.is_alive() and not self._stop.is_set():
                self._thread.start()
                self._monitor.start()

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            consumer = self.store.clients.reader(client_id="ccs-follower")
            while not self._stop.is_set():
                self._round(consumer)
        except CcsError as error:
            self.fail(error)
        except KafkaException as error:
            self.fail(translated(error, f"following {self.store.display_url}", self.store.clients.connection))
        except Exception as error:
            LOG.exception("following %s failed: this is a bug of ccs-stream", self.store.display_url)
            self.fail(LogError(f"following {self.store.display_url} failed: {error!r}: this is a bug of ccs-stream"))
        finally:
            if consumer is not None:
                consumer.close()
            if self.on_round_end is not None:
                self.on_round_end()

    def _round(self, consumer: Consumer) -> None:
        while self._starting:
            shard = self._starting.popleft()
            place = TopicPartition(self.store.names.log, shard.partition, shard.reader.offset + 1)
            consumer.incremental_assign([place])
        first = consumer.poll(POLL_S)
        taken = 0
        if first is not None:
            messages = [first, *consumer.consume(RECORDS_PER_ROUND, 0)]
            taken = len(messages)
            self._take(messages)
        if self.on_round_end is not None:
            self.on_round_end()
        self._rounds += 1
        self._round_ended_at = now = self.clock.monotonic()
        if now - self._ticked_at < POLL_S:
            # The callers just answered need the interpreter, which this thread lets go of when it polls.
            return
        self._ticked_at = now
        for shard in tuple(self.shards.values()):
            at_end = self._at_end(consumer, shard)
            shard.tick(at_end=taken < RECORDS_PER_ROUND and at_end)
            if at_end and self._keeps_snapshots(shard):
                self._snapshots.consider(shard)
        self.commands.poll()
        self._probe(consumer, now)

    def _keeps_snapshots(self, shard: ShardCoordinator) -> bool:
        """A dedicated coordinator keeps snapshots of all it follows, an embedded one of what it leads."""
        return self._client_id == DEDICATED_CLIENT or shard.loop.role is Role.LEADING

    def _take(self, messages: list[Message]) -> None:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                if not transient(error):
                    raise translated(error, f"following {self.store.names.log}", self.store.clients.connection)
                continue
            by_partition.setdefault(message.partition() or 0, []).append(message)
        for partition, theirs in by_partition.items():
            self.shards[partition].take(theirs)
        if by_partition:
            self._heard()

    def _at_end(self, consumer: Consumer, shard: ShardCoordinator) -> bool:
        """True if the shard has taken everything that was there at the last fetch."""
        place = TopicPartition(self.store.names.log, shard.partition)
        bounds: Any = consumer.get_watermark_offsets(place, cached=True)
        if bounds is None or bounds[1] < 0:
            return False
        shard.log_end = bounds[1]
        return shard.reader.offset + 1 >= shard.log_end

    def _probe(self, consumer: Consumer, now: float) -> None:
        """Ask whether the brokers answer: an idle partition says nothing by itself, nor does a broker that hangs."""
        trouble = self.store.clients.connection
        quiet = now - self._heard_at
        if (trouble.last_error is None and quiet < QUIET_S) or now - self._probed_at < PROBE_EVERY_S or not self.shards:
            return
        self._probed_at = now
        place = TopicPartition(self.store.names.log, next(iter(self.shards)))
        try:
            consumer.get_watermark_offsets(place, timeout=PROBE_TIMEOUT_S)
        except KafkaException as error:
            first: Any = error.args[0]
            if trouble.last_error is None and quiet > SILENT_S:
                trouble.failed(first)
            return
        self._heard()

    def _heard(self) -> None:
        self._heard_at = self.clock.monotonic()
        if self.store.clients.connection.last_error is not None:
            self.store.clients.connection.recovered()

    def workers(self) -> tuple[WorkerHealth, ...]:
        """The state of the follower's threads."""
        failure = None if self.error is None else str(self.error)
        own = WorkerHealth(
            "follow", self._thread.is_alive(), len(self._starting), self._rounds, 0, int(failure is not None), failure
        )
        member = self.member
        joined = () if member is None else (member.health(),)
        return (own, *joined, self._monitor.health(), self._snapshots.health())

    def close(self) -> None:
        """Let commands that are being decided finish, resign, leave the group, stop following."""
        deadline = self.clock.monotonic() + FINISH_S
        while (
            self.error is None
            and self.clock.monotonic() < deadline
            and any(shard.loop.waiting for shard in self.shards.values())
        ):
            self.clock.sleep(FINISH_POLL_S)
        self.leave_group()
        self._monitor.stop()
        self._snapshots.close()
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self.store.settings.timeout_s)
        self.commands.close()
        self._producers.close()
