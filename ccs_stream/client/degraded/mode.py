"""Degraded mode of a workspace: whether the log can be used now, the listeners to changes, and the way back.

`LocalFallback` asks it before every read and write; the workspace makes one where `on_error="degrade"`.

Guarantees: the first failure of the log is warned of once (`CoherenceDegradedWarning`); each is logged and counted.
`is_degraded` never waits. While something waits in the outbox the mode is degraded too, so that live changes queue
behind it. The mode ends by itself, after refused changes were reported. Listeners run in threads of their own: none can
delay, break or block a caller. A forked child is not degraded; its parent's workspace refuses everything there anyway.
Does not: serve reads or queue writes.

A write whose outcome is unknown (`OutcomeUnknown`) begins degraded mode and must not be queued as well, because it may
still come to be in the log. Its author is told so.

How: a periodic task `ccs-degraded` probes the log and drains the outbox, as long as the mode is degraded. It may wait
for the log as long as the log lets it wait.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

from ccs_stream.background import UNTIL_WOKEN, BackgroundQueue, ForkGuard, PeriodicTask, WorkerHealth
from ccs_stream.client.caller_warning import warn_caller
from ccs_stream.client.degraded.outbox_drainer import DrainResult, OutboxDrainer
from ccs_stream.clock import SYSTEM_CLOCK, Clock, Deadline
from ccs_stream.protocol.errors import (
    Closed,
    ForkedProcess,
    LogBusy,
    LogError,
    LogFull,
    LogReadOnly,
    LogUnavailable,
    OutcomeUnknown,
)

LOG = logging.getLogger(__name__)

PAUSE_MIN_S: Final = 0.25
"""Pause before the log is probed for the first time, and after any progress."""
PAUSE_MAX_S: Final = 2.0
"""The pause doubles up to this: so long may a log that is back go unnoticed."""
_OURS: Final = (LogBusy, LogFull, LogReadOnly, LogUnavailable, OutcomeUnknown, OSError, sqlite3.Error)


class CoherenceDegradedWarning(RuntimeWarning):
    """The log cannot be used now. Reads may be stale, and writes are refused or queued."""


def is_log_unavailable(error: BaseException) -> bool:
    """True if an error means that the log cannot be used now. Refusals and wrong calls do not."""
    # A disk that fails, or a damaged file, is a plain LogError.
    return isinstance(error, _OURS) or type(error) is LogError


class DegradedMode:
    """The mode of one workspace. For all threads."""

    def __init__(
        self,
        what: str,
        probe: Callable[[], object],
        drainer: OutboxDrainer | None = None,
        *,
        on_drained: Callable[[DrainResult], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Start nothing yet: the first call of `failed` or `watch` does.

        `what` names the workspace in messages. `probe` tries the log and raises (`outbox_drainer.require_log` does).
        `on_drained` is called with the result each time the outbox was drained, in the thread that drained it.
        """
        self.count = 0
        """How often the log failed a call."""
        self.last_error: BaseException | None = None
        self._what = what
        self._probe = probe
        self._drainer = drainer
        self._on_drained = on_drained
        self._guard = ForkGuard(f"degraded mode of {what}")
        self._lock = threading.RLock()
        self._attempting = threading.Lock()
        self._prober = PeriodicTask("degraded", self._round, interval_s=PAUSE_MIN_S, clock=clock)
        self._pause_s = PAUSE_MIN_S
        self._listeners: list[BackgroundQueue[bool]] = []
        self._failing = False
        self._draining = False
        """True if the outbox is being drained, or what was refused is yet to be reported."""
        self._reported = False
        self._warned = False
        self._logged: type[BaseException] | None = None

    @property
    def is_degraded(self) -> bool:
        """True if the log cannot be used now: it failed, or older changes must go first."""
        if self._guard.forked:
            return False
        if self._failing or self._draining:
            return True
        return self._drainer is not None and not self._drainer.outbox.is_empty

    def failed(self, error: BaseException) -> None:
        """Note that the log failed a call with an `error` that `is_log_unavailable` knows. The first time, warn."""
        if self._guard.forked:
            return
        with self._lock:
            self.count += 1
            self.last_error = error
            self._failing = True
            first, self._warned = not self._warned, True
        LOG.warning("%s is degraded: %s", self._what, error)
        self.watch()
        if first:
            warn_caller(
                f"{self._what} is degraded, reads may be stale and writes are {self._writes()}: {error}",
                CoherenceDegradedWarning,
            )

    def watch(self) -> None:
        """Have the log probed as long as that is needed: after a change was queued, or found waiting in the outbox."""
        if self._guard.forked:
            return
        with self._lock:
            self._report_change()
            if self.is_degraded:
                self._prober.start()

    def attempt(self) -> bool:
        """Probe the log now and drain the outbox, in this thread; whether the mode is normal after that."""
        self._guard.check()
        with self._attempting:
            count = self.count
            try:
                self._probe()
                self._drain()
            except Exception as error:  # noqa: BLE001  # a bug, too, must not end the way back
                self._log_failure(error)
                return False
            with self._lock:
                if self.count == count:  # the log failed no call meanwhile
                    self._failing = False
                    self._logged = None
                self._report_change()
                return not self.is_degraded

    def on_change(self, listener: Callable[[bool], object]) -> None:
        """Have `listener` called at every change, in order and in a thread of its own: True when the mode begins."""
        with self._lock:
            self._listeners.append(BackgroundQueue.for_each("degraded-listener", listener))

    def workers(self) -> list[WorkerHealth]:
        """The health of the threads that probe and tell."""
        with self._lock:
            listeners = tuple(self._listeners)
        return [self._prober.health(), *(each.health() for each in listeners)]

    def close(self, timeout_s: float) -> bool:
        """Stop probing, and tell listeners what is left; whether that was done in time. The outbox stays open."""
        if self._guard.forked:
            return True
        deadline = Deadline(timeout_s)
        ended = self._prober.close(timeout_s)
        with self._lock:
            listeners = tuple(self._listeners)
        closed = [each.close(deadline.left_s) for each in listeners]
        return ended and all(closed)

    def _writes(self) -> str:
        return "refused" if self._drainer is None else f"kept in {self._drainer.outbox.path} until it is back"

    def _round(self) -> float:
        """Try once; how long to pause before the next try."""
        waiting = self._waiting()
        self.attempt()
        with self._lock:
            if not self.is_degraded or isinstance(self.last_error, Closed | ForkedProcess):
                self._pause_s = PAUSE_MIN_S
                return UNTIL_WOKEN
        self._pause_s = PAUSE_MIN_S if self._waiting() < waiting else min(2 * self._pause_s, PAUSE_MAX_S)
        return self._pause_s

    def _waiting(self) -> int:
        return 0 if self._drainer is None else self._drainer.outbox.counts.waiting

    def _drain(self) -> None:
        drainer = self._drainer
        if drainer is None or drainer.outbox.is_empty:
            return
        self._draining = True
        try:
            drained = drainer.drain()
            if drained.conflicts:
                LOG.warning(
                    "%s: %d changes that waited in %s were refused, and are kept there until they are resolved",
                    self._what,
                    len(drained.conflicts),
                    drainer.outbox.path,
                )
            if self._on_drained is not None and (drained.done or drained.conflicts):
                self._call_on_drained(self._on_drained, drained)
        finally:
            self._draining = False  # only now: the mode is normal after what happened was reported
        if drained.error is not None:
            raise drained.error

    def _call_on_drained(self, on_drained: Callable[[DrainResult], object], drained: DrainResult) -> None:
        try:
            on_drained(drained)
        except Exception:
            LOG.exception("on_drained raised; the drained changes are not affected")

    def _log_failure(self, error: Exception) -> None:
        self.last_error = error
        if type(error) is not self._logged:  # not every two seconds
            self._logged = type(error)
            known = is_log_unavailable(error)
            LOG.warning("%s is still degraded: %s", self._what, error, exc_info=None if known else error)

    def _report_change(self) -> None:
        """Tell the listeners where the mode has changed. The caller holds the lock."""
        degraded = self.is_degraded
        if degraded is self._reported:
            return
        self._reported = degraded
        if not degraded:
            LOG.info("%s is back to normal", self._what)
        for listener in self._listeners:
            listener.submit(degraded)
