"""Which partitions a node follows, and how another comes to be followed: restored, then read on from there.

Guarantees: a partition is restored once, whoever wants it, and never in a rebalance callback; what cannot be restored
yet is tried again for the group, and raised to a client. Does not: read what comes then; the node does.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogUnavailable

LOG = logging.getLogger(__name__)

_AGAIN_S: Final = 0.5
"""Pause before what could not be restored is tried again."""
_CLOSE: Final = 1_000
"""Records that may come while as many are read: they are kept, and then taken with the lock held, in milliseconds."""
_LOOK_S: Final = 0.02
"""How often it is looked whether what somebody else does is done."""


class ShardFactory(Protocol):
    """Makes a shard that stands before the first record; of one workspace, where not all are followed."""

    def __call__(self, partition: int, workspace: str | None = None) -> ShardCoordinator: ...


class FollowedShards:
    """See the module's docstring. For all threads."""

    def __init__(
        self,
        store: KafkaLog,
        *,
        new_shard: ShardFactory,
        started: Callable[[ShardCoordinator], None],
        failed: Callable[[CcsError], None],
        error: Callable[[], CcsError | None],
        stopped: threading.Event,
    ) -> None:
        """`started` reads a shard on, `failed` is told what cannot be mended, `error` says why nothing is read on.

        Once `stopped`, nothing is tried again.
        """
        self._store = store
        self._new_shard = new_shard
        self._started = started
        self._failed = failed
        self._error = error
        self._stopped = stopped
        self._shards: dict[int, ShardCoordinator] = {}
        self._waiting: dict[int, list[Callable[[ShardCoordinator], None]]] = {}
        """Those being restored, and who is to be told."""
        self._turns: dict[int, threading.Lock] = {}
        """By partition: which client's turn it is to have a workspace of it followed."""
        self._lock = threading.Lock()

    @property
    def shards(self) -> Mapping[int, ShardCoordinator]:
        """By partition, those that are followed."""
        return self._shards

    def follow(self, partition: int, ready: Callable[[ShardCoordinator], None]) -> None:
        """Follow a partition, and say when its shard is there. Restoring it is done in a thread of its own."""
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
        """Follow a workspace, and so its partition: its shard, once it is there.

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
                self._adopt(shard, workspace)
            return shard

    def start(self, shard: ShardCoordinator) -> None:
        """Read on a shard that stands somewhere."""
        with self._lock:
            self._shards[shard.partition] = shard
            waiting = self._waiting.pop(shard.partition, [])
        self._started(shard)
        for ready in waiting:
            ready(shard)

    def _restore_now(self, partition: int, workspace: str) -> ShardCoordinator:
        """Restore a partition for a client; where that fails, go on for the group, if that wants it, too."""
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
        """Wait for what another thread does. Raises why nothing is read on, or `LogUnavailable` when it is `late`."""
        deadline = time.monotonic() + self._store.settings.timeout_s
        while not done():
            error = self._error()
            if error is None and time.monotonic() > deadline:
                error = LogUnavailable(late())
            if error is not None:
                raise error
            time.sleep(_LOOK_S)

    def _restore_in_background(self, partition: int) -> None:
        threading.Thread(target=self._restore, args=(partition,), name=f"ccs-restore-{partition}", daemon=True).start()

    def _restore(self, partition: int) -> None:
        while not self._stopped.is_set():
            try:
                shard = self._new_shard(partition)
                restore(shard)
                self.start(shard)
            except CcsError as error:
                if not error.retryable:
                    self._failed(error)
                    return
                LOG.warning("partition %d cannot be followed yet: %s", partition, error)
                self._stopped.wait(_AGAIN_S)
            else:
                return

    def _adopt(self, shard: ShardCoordinator, workspace: str) -> None:
        """Follow another workspace of a partition that is followed: it is read by itself to where the others stand."""
        other = self._new_shard(shard.partition, workspace)
        restore(other)
        while shard.reader.offset - other.reader.offset > _CLOSE:
            other.take(self._store.messages(shard.partition, other.reader.offset, shard.reader.offset))
        with shard.keeping() as kept:
            other.take(self._store.messages(shard.partition, other.reader.offset, kept.after))
            self._wait(  # a snapshot may stand further on than what is followed
                lambda: shard.adopt(other, kept),
                lambda: (
                    f"partition {shard.partition} of {self._store.display_url} is followed to offset "
                    f"{shard.reader.offset}, and a snapshot of {workspace!r} stands at {other.reader.offset}: "
                    "check the brokers"
                ),
            )
