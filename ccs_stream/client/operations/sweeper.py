"""The sweeper of a workspace: ends what has run out, at an interval, where an application asks for it.

`Workspace.start_sweeping` and the TTL sweeper of stores use it. Nobody needs it for correctness: a read never sees what
has expired, and a command that meets it ends it.

How: a periodic task `ccs-sweep`, which may block on the log.
"""

from typing import Final

from ccs_stream.background import PeriodicTask
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.errors import UsageError

STOP_TIMEOUT_S: Final = 5.0
"""How long stopping waits for a sweep that is under way."""


class Sweeper:
    """Sweeps one workspace while it is started."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.task: PeriodicTask | None = None
        """The task, once it was started."""
        self._coordinator = coordinator

    def start(self, interval_s: float) -> None:
        """Sweep every so many seconds. Raises `UsageError` for an interval that is not positive."""
        if not interval_s > 0:
            raise UsageError(f"the interval of sweeps must be more than 0 seconds, got {interval_s!r}")
        if self.task is None:
            self.task = PeriodicTask("sweep", self._round, interval_s=interval_s)
        self.task.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop sweeping, and wait for a sweep that is under way, for at most so long."""
        task, self.task = self.task, None
        if task is not None:
            task.close(min(timeout_s, STOP_TIMEOUT_S))

    def _round(self) -> None:
        self._coordinator.sweep()
