"""Keeping snapshots of what a coordinator follows, so that the next one to start reads little.

Guarantees: taken from admitted state only, of all workspaces of a partition at one place; a failure to keep one is said
and harms nobody. Does not: spare a leader the time it takes, some five microseconds an artifact; where other
coordinators follow, they are due first.
"""

import logging
import threading
from typing import Final

from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.leadership import Role

LOG = logging.getLogger(__name__)

SNAPSHOT_EVERY: Final = 50_000
"""Decisions between snapshots: about a second of reading for whoever starts next."""
LEADER_WAITS: Final = 2
"""A leader, whom it keeps from answering, lets this many times as many pass: a follower is due before it."""


class SnapshotKeeper:
    """One process's; keeps one partition's at a time."""

    def __init__(self, store: KafkaLog, *, every: int = SNAPSHOT_EVERY) -> None:
        self._store = store
        self._every = every
        self._thread: threading.Thread | None = None

    def consider(self, shard: ShardCoordinator) -> None:
        """Keep snapshots of a shard in a thread of their own, if that is due. Returns at once."""
        if shard.unsaved < self._every or (self._thread is not None and self._thread.is_alive()):
            return
        leading = shard.loop.role is Role.LEADING
        artifacts = sum(len(state.artifacts) for state in shard.states.values())
        # What costs as much as folding four times as many decisions as there are artifacts is not done more often.
        due = max(self._every, 4 * artifacts) * (LEADER_WAITS if leading else 1)
        if shard.unsaved >= due:
            self._thread = threading.Thread(target=self._keep, args=(shard,), name="ccs-snapshot", daemon=True)
            self._thread.start()

    def keep(self, shard: ShardCoordinator) -> int:
        """Keep snapshots of a shard now; returns of how many workspaces. Raises `LogError`s."""
        blobs = shard.take_snapshots()
        for workspace, blob in blobs:
            self._store.save_snapshot(workspace, blob)
        return len(blobs)

    def _keep(self, shard: ShardCoordinator) -> None:
        try:
            self.keep(shard)
        except CcsError as error:
            LOG.warning("no snapshot of partition %d was kept: %s", shard.partition, error)
