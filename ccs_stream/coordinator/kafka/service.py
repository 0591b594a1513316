"""A dedicated coordinator: follows every partition of a log, leads those that the group suggests and the log grants.

`ccs-stream coordinator` runs it. Guarantees: a partition it takes over is one it has followed, so that leading begins
with one round trip; when it is stopped, it lets commands that are being decided finish, resigns on the log and leaves
the group. Does not: answer clients directly; they read the log.
"""

import logging
import threading
from typing import Final

from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.kafka.follower.log_follower import LogFollower
from ccs_stream.coordinator.kafka.group.description import count_members
from ccs_stream.coordinator.kafka.group.member import DEDICATED_CLIENT
from ccs_stream.coordinator.kafka.group.trial import Trial
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError

LOG = logging.getLogger(__name__)

CAUGHT_UP_POLL_S: Final = 0.05
"""How often starting looks whether every partition is followed to its end."""
GROUP_POLL_S: Final = 0.5
"""How often a newcomer looks whether others still coordinate."""
FAILED_POLL_S: Final = 0.1
"""How often `wait` looks whether following has failed."""


class CoordinatorService:
    """One dedicated coordinator, from `start` to `close`."""

    def __init__(self, store: KafkaLog, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.store = store
        self._clock = clock
        self.follower = LogFollower(store, client_id=DEDICATED_CLIENT, clock=clock)
        self.started_at = clock.monotonic()
        self._trial = Trial(store, clock)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Follow every partition to its end, pass the trial, then offer to lead. Raises what following raises."""
        ends = {partition: self.store.bounds(self.store.names.log, partition)[1] for partition in self._partitions}
        for partition in self._partitions:
            shard = self.follower.new_shard(partition)
            restore(shard)
            self.follower.start(shard)
        while not self._stopping.is_set() and any(
            self.follower.shards[partition].reader.offset + 1 < end for partition, end in ends.items()
        ):
            self._check()
            self._clock.sleep(CAUGHT_UP_POLL_S)
        LOG.info("following %s: %d partitions", self.store.display_url, self.store.partitions)
        self._pass_trial()
        self.follower.join_group()

    def _pass_trial(self) -> None:
        """Where others coordinate, follow for longer than a session time-out before offering to lead."""
        while not self._stopping.is_set() and not self._trial.is_over() and self._others_coordinate():
            self._check()
            self._clock.wait(self._stopping, GROUP_POLL_S)

    def _others_coordinate(self) -> bool:
        try:
            return count_members(self.store).members > 0
        except CcsError as error:
            if not error.retryable:
                raise
            return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until `stop` is called, for at most so long; whether it was. Raises the error that ended following."""
        deadline = None if timeout_s is None else self._clock.monotonic() + timeout_s
        while not self._clock.wait(self._stopping, FAILED_POLL_S):
            self._check()
            if deadline is not None and self._clock.monotonic() > deadline:
                return False
        return True

    def stop(self) -> None:
        """Let `wait` return; safe in a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Let commands that are being decided finish, resign, leave the group, let go of the log."""
        self._stopping.set()
        self.follower.close()
        self.store.close()

    @property
    def ready(self) -> bool:
        """True if every partition is followed, and nothing has failed."""
        return (
            self.follower.error is None
            and len(self.follower.shards) == self.store.partitions
            and self.follower.member is not None
            and self.follower.alive()
            and self.store.clients.connection.last_error is None
        )

    @property
    def uptime_s(self) -> float:
        """Seconds since it was made."""
        return self._clock.monotonic() - self.started_at

    @property
    def _partitions(self) -> range:
        return range(self.store.partitions)

    def _check(self) -> None:
        error: CcsError | None = self.follower.error
        if error is not None:
            raise error
