"""A dedicated coordinator: follows every partition of a log, leads those that the group suggests and the log grants.

Guarantees: a partition it takes over is one it has followed, so that leading begins with one round trip; stopped, it
answers what is being decided, resigns on the log and leaves the group. Does not: serve clients; they read the log.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from ccs_stream.coordinator.kafka.follower.log_follower import LogFollower
from ccs_stream.coordinator.kafka.group.member import DEDICATED_CLIENT
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.coordinator.port import wall_clock
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.ids import Micros

LOG = logging.getLogger(__name__)

_CAUGHT_UP_POLL_S: Final = 0.05


class CoordinatorService:
    """See the module's docstring."""

    def __init__(self, store: KafkaLog, *, clock: Callable[[], Micros] = wall_clock) -> None:
        self.store = store
        self.node = LogFollower(store, clock=clock, client_id=DEDICATED_CLIENT)
        self.started_at = time.monotonic()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Follow every partition to where it ends now, then offer to lead. Raises what following raises."""
        ends = {partition: self.store.bounds(self.store.names.log, partition)[1] for partition in self._partitions}
        for partition in self._partitions:
            shard = self.node.new_shard(partition)
            restore(shard)
            self.node.start(shard)
        while not self._stopping.is_set() and any(
            self.node.shards[partition].reader.offset + 1 < end for partition, end in ends.items()
        ):
            self._check()
            time.sleep(_CAUGHT_UP_POLL_S)
        LOG.info("following %s: %d partitions", self.store.display_url, self.store.partitions)
        self.node.join_group()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until `stop` is called or something failed, which is raised. Whether it was stopped."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stopping.wait(0.1):
            self._check()
            if deadline is not None and time.monotonic() > deadline:
                return False
        return True

    def stop(self) -> None:
        """Ask `wait` to return; safe in a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Answer what is being decided, resign, leave the group, let go of the log."""
        self._stopping.set()
        self.node.close()
        self.store.close()

    @property
    def ready(self) -> bool:
        """Whether every partition is followed, and nothing has failed."""
        return (
            self.node.error is None
            and len(self.node.shards) == self.store.partitions
            and self.node.member is not None
            and self.node.alive()
            and self.store.clients.trouble.last is None
        )

    @property
    def _partitions(self) -> range:
        return range(self.store.partitions)

    def _check(self) -> None:
        error: CcsError | None = self.node.error
        if error is not None:
            raise error
