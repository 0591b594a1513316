"""Keeps snapshots of what a coordinator follows, so that the next one to start reads little.

`LogFollower` owns one. Guarantees: snapshots are taken from admitted state only, of all workspaces of a partition at
one place; a failure to keep one is only logged. Does not: spare a leader the time it takes, some five
microseconds an artifact; where other coordinators follow, they are due first.

How: the queue `ccs-snapshot` takes the snapshot under the shard's lock and saves it without; saving may block for the
log's time-out.
"""

import logging
from typing import Final

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.snapshot_pace import SNAPSHOT_EVERY, decisions_between_snapshots
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.leadership import Role

LOG = logging.getLogger(__name__)

LEADER_PATIENCE: Final = 2
"""A leader cannot answer while it takes a snapshot: it lets this many times as many decisions pass as a follower."""


class SnapshotKeeper:
    """Keeps the snapshots of one process, one partition at a time."""

    def __init__(self, store: KafkaLog, *, every: int = SNAPSHOT_EVERY) -> None:
        self._store = store
        self._every = every
        self._queue: BackgroundQueue[ShardCoordinator] = BackgroundQueue.for_each("snapshot", self._keep, waiting_max=1)

    def consider(self, shard: ShardCoordinator) -> None:
        """Have snapshots of a shard kept, where that is due and none is being kept. Returns at once."""
        if shard.unsaved < self._every or self._queue.waiting:
            return
        artifacts = sum(len(state.artifacts) for state in shard.states.values())
        due = decisions_between_snapshots(artifacts, self._every)
        if shard.unsaved >= due * (LEADER_PATIENCE if shard.loop.role is Role.LEADING else 1):
            self._queue.submit(shard)

    def keep(self, shard: ShardCoordinator) -> int:
        """Keep snapshots of a shard now; returns of how many workspaces. Raises `LogError`s."""
        blobs = shard.take_snapshots()
        for workspace, blob in blobs:
            self._store.save_snapshot(workspace, blob)
        return len(blobs)

    def close(self) -> None:
        """Keep no more. Does not wait for one that is being kept."""
        self._queue.close(0.0)

    def health(self) -> WorkerHealth:
        """The state of its thread."""
        return self._queue.health()

    def _keep(self, shard: ShardCoordinator) -> None:
        try:
            self.keep(shard)
        except CcsError as error:
            LOG.warning("no snapshot of partition %d was kept: %s", shard.partition, error)
