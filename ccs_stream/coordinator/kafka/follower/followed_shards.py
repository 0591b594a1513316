"""The partitions that a process follows: how another one is restored, and from then on read with the rest.

`LogFollower` owns one `FollowedShards`. Guarantees: a partition is restored once, however many ask for it, and never in
a rebalance callback; a restore that fails for now is tried again for the group, and raised to a client. Does not: read
the records that come then; the follower does.

How: a restore for the group runs in a background job `ccs-restore-N`, one for a client in the client's thread; both may
wait for brokers and for their partition's turn, and hold no lock while they read.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ccs_stream.background import run_in_background
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogUnavailable

LOG = logging.getLogger(__name__)

RESTORE_AGAIN_S: Final = 0.5
"""Pause before a restore that failed is tried again."""
CLOSE_ENOUGH_RECORDS: Final = 1_000
"""Records that may come while as many are read: they are buffered, and then taken under the lock in milliseconds."""
LOOK_EVERY_S: Final = 0.02
"""How often a thread looks whether the work of another one is done."""


class ShardFactory(Protocol):
    """Makes a shard that stands before the first record; of one workspace, where not all are followed."""

    def __call__(self, partition: int, workspace: str | None = None) -> ShardCoordinator: ...


class FollowedShards:
    """The followed partitions of one process. For all threads."""

    def __init__(
        self,
        store: KafkaLog,
        *,
        new_shard: ShardFactory,
        on_started: Callable[[ShardCoordinator], None],
        on_failure: Callable[[CcsError], None],
        error: Callable[[], CcsError | None],
        stopped: threading.Event,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`on_started` is called with each shard that is to be read on, `on_failure` with an error that stays.

        `error` returns why nothing is read any more, if so. Once `stopped`, no restore is tried again.
        """
        self._store = store
        self._new_shard = new_shard
        self._on_started = on_started
        self._on_failure = on_failure
        self._error = error
        self._clock = clock
        self._stopped = stopped
        self._shards: dict[int, ShardCoordinator] = {}
        self._waiting: dict[int, list[Callable[[ShardCoordinator], None]]] = {}
        """By partition that is being restored, the callbacks for when it is there."""
        self._turns: dict[int, threading.Lock] = {}
        """By partition, the lock of the one client that may have a workspace of it followed now."""
        self._lock = threading.Lock()

    @property
    def shards(self) -> Mapping[int, ShardCoordinator]:
        """By partition, those that are followed."""
        return self._shards

    def follow(self, partition: int, ready: Callable[[ShardCoordinator], None]) -> None:
        """Follow a partition; `ready` is called with its shard once that is there, perhaps in another thread."""
        with self._lock:
            shard = self._shards.get(partition)
            if shard is None:
                waiting = self._waiting.get(partition)
                if waiting is not None:
                    waiting.append(ready)
                    return
                self._waiting[partition] = [ready]
        if shard is None:
            self._restore_in_background(partition)
        else:
            ready(shard)

    def follow_now(self, workspace: str) -> ShardCoordinator:
        """Follow a workspace, and so its partition; returns the shard once that is there.

        Raises `LogUnavailable`, `LogMissing`, `LogDiverged`, and others of reading the log.
        """
        partition = self._store.partition(workspace)
        with self._lock:
            turn = self._turns.setdefault(partition, threading.Lock())
        with turn:
            with self._lock:
                shard = self._shards.get(partition)
                is_being_restored = partition in self._waiting
                if shard is None and not is_being_restored:
                    self._waiting[partition] = []
            if is_being_restored:
                shard = self._restored_for_group(partition)
            elif shard is None:
                shard = self._restore_now(partition, workspace)
            if not shard.follows(workspace):
                self._follow_another(shard, workspace)
            return shard

    def start(self, shard: ShardCoordinator) -> None:
        """Read on a shard from where it stands."""
        with self._lock:
            self._shards[shard.partition] = shard
            waiting = self._waiting.pop(shard.partition, [])
        self._on_started(shard)
        for ready in waiting:
            ready(shard)

    def _restore_now(self, partition: int, workspace: str) -> ShardCoordinator:
        """Restore a partition for a client; where that fails, go on for the group, if that asked for it meanwhile."""
        try:
            shard = self._new_shard(partition, workspace)
            restore(shard)
        except BaseException:
            with self._lock:
                others = self._waiting[partition]
                if not others:
                    del self._waiting[partition]
            if others:
                self._restore_in_background(partition)
            raise
        self.start(shard)
        return shard

    def _restored_for_group(self, partition: int) -> ShardCoordinator:
        self._wait(
            lambda: partition in self._shards,
            lambda: f"{self._store.display_url} cannot be read yet: try again, or check the brokers",
        )
        return self._shards[partition]

    def _wait(self, done: Callable[[], bool], late: Callable[[], str]) -> None:
        """Wait for another thread's work. Raises the error that ended following, or `LogUnavailable` with `late()`."""
        deadline = self._clock.monotonic() + self._store.settings.timeout_s
        while not done():
            error = self._error()
            if error is None and self._clock.monotonic() > deadline:
                error = LogUnavailable(late())
            if error is not None:
                raise error
            self._clock.sleep(LOOK_EVERY_S)

    def _restore_in_background(self, partition: int) -> None:
        run_in_background(f"restore-{partition}", lambda: self._restore(partition))

    def _restore(self, partition: int) -> None:
        while not self._stopped.is_set():
            try:
                shard = self._new_shard(partition)
                restore(shard)
                self.start(shard)
            except CcsError as error:
                if not error.retryable:
                    self._on_failure(error)
                    return
                LOG.warning("partition %d cannot be followed yet: %s", partition, error)
                self._clock.wait(self._stopped, RESTORE_AGAIN_S)
            else:
                return

    def _follow_another(self, shard: ShardCoordinator, workspace: str) -> None:
        """Follow another workspace of a followed partition: it is read by itself up to where the others stand."""
        other = self._new_shard(shard.partition, workspace)
        restore(other)
        while shard.reader.offset - other.reader.offset > CLOSE_ENOUGH_RECORDS:
            other.take(self._store.messages(shard.partition, other.reader.offset, shard.reader.offset))
        with shard.buffering() as buffer:
            other.take(self._store.messages(shard.partition, other.reader.offset, buffer.after))
            self._wait(  # a snapshot may stand further on than the shard
                lambda: shard.merge_from(other, buffer),
                lambda: (
                    f"partition {shard.partition} of {self._store.display_url} is followed to offset "
                    f"{shard.reader.offset}, and a snapshot of {workspace!r} stands at {other.reader.offset}: "
                    "check the brokers"
                ),
            )
