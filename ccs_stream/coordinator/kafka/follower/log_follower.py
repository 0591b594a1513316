"""One process among those that share a log on Kafka: which partitions it follows, and whether it offers to lead.

Guarantees: one thread follows all partitions, with one consumer; nothing is restored inside a rebalance callback; when
following fails, everybody who waits is told why. Does not: answer anybody; whoever waits listens to a shard.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

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
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.leadership import QueuedCommand, Role

LOG = logging.getLogger(__name__)

POLL_S: Final = 0.02
"""How long one look at the log waits, and so how often time passes for shards."""
BATCH_RECORDS: Final = 1_000
SPARE_PRODUCERS: Final = 3
"""Producers kept ready for partitions to be taken over; each has a few threads that sleep."""
QUIET_S: Final = 2.0
"""With nothing to follow for so long, the brokers are asked whether they are there."""
SILENT_S: Final = 3.0
"""Brokers that answer nothing for so long do not answer, though their connections stand."""
SETTLE_S: Final = 1.0
"""How long closing waits for what is being decided."""
FAREWELL_S: Final = 3.0
"""How long brokers are waited for to take all resignations, and then to let a member leave: a process that is told to
stop has some ten seconds, and without either the others take over when its session runs out."""
PROBE_EVERY_S: Final = 0.5
"""While the brokers do not answer, how often they are asked whether they do again."""
_PROBE_S: Final = 0.3


class LogFollower:
    """See the module's docstring."""

    def __init__(
        self,
        store: KafkaLog,
        *,
        clock: Callable[[], Micros],
        client_id: str | None,
        selective: bool = False,
    ) -> None:
        """Follow nothing, until told to.

        With `client_id`, offer to lead under that name; `selective`, follow only workspaces that are asked for.
        """
        self.store = store
        self.clock = clock
        self.commands = CommandsTopic(store)
        self.error: CcsError | None = None
        """Why following ended."""
        self._snapshots = SnapshotKeeper(store)
        self._watch = TopicMonitor(store, lambda: tuple(self.shards), self.fail)
        spare = min(store.partitions, SPARE_PRODUCERS) if client_id is not None else 0
        batch_bytes = 0 if client_id is None else largest_batch(store)
        self._producers = WarmProducers(store.clients, batch_bytes=batch_bytes, spare=spare)
        self._selective = selective
        self.after: Callable[[], None] | None = None
        """Called in the following thread, without a lock, after each round: it wakes those who wait."""
        self._starting: collections.deque[ShardCoordinator] = collections.deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._following = FollowedShards(
            store,
            new_shard=self.new_shard,
            started=self._started,
            failed=self.fail,
            error=lambda: self.error,
            stopped=self._stop,
        )
        self._rounds_at = time.monotonic()
        self._ticked_at = 0.0
        self._probed_at = 0.0
        self._heard_at = time.monotonic()
        """When the brokers last answered."""
        self._client_id = client_id
        self.member: GroupMember | None = None
        self._thread = threading.Thread(target=self._run, name="ccs-follow", daemon=True)

    def join_group(self) -> None:
        """Offer to lead."""
        if self.member is None and self._client_id is not None:
            self._producers.warm()
            self.member = GroupMember(self.store, self, client_id=self._client_id)

    def leave_group(self) -> None:
        """Lead nothing any more: resign what is led, and let others have it."""
        member, self.member = self.member, None
        if member is None:
            return
        led = [shard for partition in member.partitions if (shard := self.shards.get(partition)) is not None]
        for shard in led:
            shard.resign()
        deadline = time.monotonic() + FAREWELL_S
        for shard in led:
            shard.flush(max(deadline - time.monotonic(), 0.0))
        member.leave(FAREWELL_S)

    # For the member: `MemberHost`.

    def follow(self, partition: int, ready: Callable[[ShardCoordinator], None]) -> None:
        """See `MemberHost`."""
        self._following.follow(partition, ready)

    def alive(self) -> bool:
        """Whether the following thread has made progress lately."""
        return time.monotonic() - self._rounds_at < self.store.settings.session_timeout_s / 2

    def fail(self, error: CcsError) -> None:
        """Stop: everybody who waits is told why."""
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
        for pending in batch:
            if type(pending.command) is not Sweep:  # whoever leads now sweeps by itself
                self.commands.send(pending.workspace, pending.command)

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        """See `ShardHost`."""
        LOG.error("partition %d cannot be led from here: %s", partition, error)
        threading.Thread(target=self.leave_group, name="ccs-leave", daemon=True).start()

    # Following.

    def follow_now(self, workspace: str) -> ShardCoordinator:
        """Follow a workspace, and so its partition: see `FollowedShards`."""
        return self._following.follow_now(workspace)

    def start(self, shard: ShardCoordinator) -> None:
        """Follow a shard that stands somewhere."""
        self._following.start(shard)

    @property
    def shards(self) -> Mapping[int, ShardCoordinator]:
        """By partition, those that are followed."""
        return self._following.shards

    def new_shard(self, partition: int, workspace: str | None = None) -> ShardCoordinator:
        """A shard of this node, standing before the first record; of one workspace, where not all are followed."""
        only = workspace if self._selective else None
        return ShardCoordinator(self.store, partition, self, self._producers, clock=self.clock, workspace=only)

    def _started(self, shard: ShardCoordinator) -> None:
        self._starting.append(shard)
        with self._lock:
            if not self._thread.is_alive() and not self._stop.is_set():
                self._thread.start()
                self._watch.start()

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            consumer = self.store.clients.reader(client_id="ccs-follower")
            while not self._stop.is_set():
                self._round(consumer)
        except CcsError as error:
            self.fail(error)
        except KafkaException as error:
            self.fail(translated(error, f"following {self.store.display_url}", self.store.clients.trouble))
        except Exception as error:
            LOG.exception("following %s failed: this is a bug of ccs-stream", self.store.display_url)
            self.fail(LogError(f"following {self.store.display_url} failed: {error!r}: this is a bug of ccs-stream"))
        finally:
            if consumer is not None:
                consumer.close()
            if self.after is not None:
                self.after()

    def _round(self, consumer: Consumer) -> None:
        while self._starting:
            shard = self._starting.popleft()
            place = TopicPartition(self.store.names.log, shard.partition, shard.reader.offset + 1)
            consumer.incremental_assign([place])
        first = consumer.poll(POLL_S)
        taken = 0
        if first is not None:
            messages = [first, *consumer.consume(BATCH_RECORDS, 0)]
            taken = len(messages)
            self._take(messages)
        if self.after is not None:
            self.after()
        self._rounds_at = now = time.monotonic()
        if now - self._ticked_at < POLL_S:
            # Whoever was just answered needs the interpreter, which this thread lets go of when it polls.
            return
        self._ticked_at = now
        for shard in tuple(self.shards.values()):
            at_end = self._at_end(consumer, shard)
            shard.tick(at_end=taken < BATCH_RECORDS and at_end)
            if at_end and self._keeps_snapshots(shard):
                self._snapshots.consider(shard)
        self.commands.poll()
        self._probe(consumer)

    def _keeps_snapshots(self, shard: ShardCoordinator) -> bool:
        """A dedicated coordinator of all it follows, another one of what it leads."""
        return self._client_id == DEDICATED_CLIENT or shard.loop.role is Role.LEADING

    def _take(self, messages: list[Message]) -> None:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                if not transient(error):
                    raise translated(error, f"following {self.store.names.log}", self.store.clients.trouble)
                continue
            by_partition.setdefault(message.partition() or 0, []).append(message)
        for partition, theirs in by_partition.items():
            self.shards[partition].take(theirs)
        if by_partition:
            self._heard()

    def _at_end(self, consumer: Consumer, shard: ShardCoordinator) -> bool:
        """Whether the shard has everything that was there at the last fetch."""
        place = TopicPartition(self.store.names.log, shard.partition)
        bounds: Any = consumer.get_watermark_offsets(place, cached=True)
        if bounds is None or bounds[1] < 0:
            return False
        shard.log_end = bounds[1]
        return shard.reader.offset + 1 >= shard.log_end

    def _probe(self, consumer: Consumer) -> None:
        """Ask whether the brokers answer: an idle partition says nothing by itself, nor does a broker that hangs."""
        trouble = self.store.clients.trouble
        now = time.monotonic()
        quiet = now - self._heard_at
        if (trouble.last is None and quiet < QUIET_S) or now - self._probed_at < PROBE_EVERY_S or not self.shards:
            return
        self._probed_at = now
        place = TopicPartition(self.store.names.log, next(iter(self.shards)))
        try:
            consumer.get_watermark_offsets(place, timeout=_PROBE_S)
        except KafkaException as error:
            first: Any = error.args[0]
            if trouble.last is None and quiet > SILENT_S:
                trouble.heard(first)
            return
        self._heard()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        if self.store.clients.trouble.last is not None:
            self.store.clients.trouble.over()

    def close(self) -> None:
        """Answer what is being decided, resign, leave, stop following."""
        deadline = time.monotonic() + SETTLE_S
        while (
            self.error is None
            and time.monotonic() < deadline
            and any(shard.loop.waiting for shard in self.shards.values())
        ):
            time.sleep(0.005)
        self.leave_group()
        self._watch.stop()
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self.store.settings.timeout_s)
        self.commands.close()
        self._producers.close()
