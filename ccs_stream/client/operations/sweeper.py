"""The sweeper of a workspace: ends what has run out, at an interval, where an application asks for it.

`Workspace.start_sweeping` and the TTL sweeper of stores use it. Nobody needs it for correctness: a read never sees what
has expired, and a command that meets it ends it.

Guarantees: a sweep goes on until nothing is left, in decisions of a bounded size; between two of them, whoever waits
for the log has it. Then uploads that no decision names are freed, where their grace time is over. Does not: stop at
what cannot be ended.

How: a periodic task `ccs-sweep`, which may block on the log.
"""

import threading
import time
from concurrent.futures import Future
from typing import Final

from ccs_stream.background import PeriodicTask
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.errors import UsageError

STOP_TIMEOUT_S: Final = 5.0
"""How long stopping waits for a sweep that is under way."""
PAUSE_S: Final = 0.001
"""Pause between two decisions: time for others to take the lock, which is given to nobody in particular."""
ROUND_MAX_S: Final = 60.0
"""Longest round, so that stopping and failures are noticed, whatever comes in meanwhile."""


class Sweeper:
    """Sweeps one workspace while it is started."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.task: PeriodicTask | None = None
        """The task, once it was started."""
        self.ended: Future[None] = Future()
        """Done once sweeping has stopped."""
        self.ended.set_result(None)
        self._coordinator = coordinator

    def start(self, interval_s: float) -> "Future[None]":
        """Sweep every so many seconds. Returns `ended`. Raises `UsageError` for an interval that is not positive."""
        if not interval_s > 0:
            raise UsageError(f"the interval of sweeps must be more than 0 seconds, got {interval_s!r}")
        if self.task is None:
            self.ended = Future()
            self.ended.set_running_or_notify_cancel()
            self.task = PeriodicTask("sweep", self._round, interval_s=interval_s)
        self.task.start()
        return self.ended

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop sweeping; wait for a sweep that is under way, for at most so long. True if it has ended."""
        task = self.task
        if task is None:
            return True
        task.close(timeout_s if timeout_s < threading.TIMEOUT_MAX else STOP_TIMEOUT_S)
        if task.alive:
            return False
        self.task = None
        if not self.ended.done():
            self.ended.set_result(None)
        return True

    def sweep(self) -> int:
        """End everything that has run out; returns how many events that took."""
        ended, until = 0, time.monotonic() + ROUND_MAX_S
        while (some := self._coordinator.sweep()) > 0:
            ended += some
            task = self.task
            if (task is not None and task.closed) or time.monotonic() > until:
                break
            time.sleep(PAUSE_S)
        self._coordinator.store.collect_uploads(self._coordinator.now())
        return ended

    def _round(self) -> None:
        self.sweep()
