"""Degraded mode: whether the log can be used now, who is told when that changes, and the way back.

Guarantees: the first trouble of a workspace is warned of once (`CoherenceDegradedWarning`), each is logged and counted;
whoever asks `is_degraded` never waits; while something waits in the outbox the mode is degraded too, so that what is
live queues behind it. A thread, which lives only as long as that, tries the log again and replays the outbox, and the
mode ends by itself. Listeners are told aside: none can delay, break or block a caller. A forked child is not degraded;
whatever it asks of its parent's workspace is refused anyway. Does not: serve reads or queue writes; its owner does.

A write whose outcome is unknown (`OutcomeUnknown`) begins degraded mode, and must not be queued as well: it may still
come to be in the log. Its author is told so.
"""

import logging
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable
from typing import Final

from ccs_stream.background import ForkGuard
from ccs_stream.client.degraded.outbox_drainer import DrainResult, OutboxDrainer
from ccs_stream.client.observers.background_call import BackgroundCall
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
"""Before the log is tried again for the first time, and after any progress."""
PAUSE_MAX_S: Final = 2.0
"""What that grows to, doubling: how long a log that is back may go unnoticed."""
_OURS: Final = (LogBusy, LogFull, LogReadOnly, LogUnavailable, OutcomeUnknown, OSError, sqlite3.Error)


class CoherenceDegradedWarning(RuntimeWarning):
    """The log cannot be used now: reads may be stale, writes are refused or queued."""


def which(error: BaseException) -> bool:
    """Whether an error means that the log cannot be used now; refusals and wrong calls do not."""
    # A disk that fails, or a damaged file, is a plain LogError.
    return isinstance(error, _OURS) or type(error) is LogError


class DegradedMode:
    """The mode of one workspace. For all threads."""

    def __init__(
        self,
        what: str,
        probe: Callable[[], object],
        replayer: OutboxDrainer | None = None,
        *,
        on_replayed: Callable[[DrainResult], object] | None = None,
    ) -> None:
        """`what` names the workspace in messages, `probe` tries the log and raises (`replaying.require_log` does).

        `on_replayed` is told, by whoever replays, of what became of the outbox. Nothing runs until `failed` or `watch`.
        """
        self.count = 0
        """How often the log failed somebody."""
        self.last_error: BaseException | None = None
        self._what = what
        self._probe = probe
        self._replayer = replayer
        self._on_replayed = on_replayed
        self._guard = ForkGuard(f"degraded mode of {what}")
        self._lock = threading.RLock()
        self._attempting = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._listeners: list[BackgroundCall[bool]] = []
        self._failing = False
        self._told = False
        self._warned = False
        self._logged: type[BaseException] | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether the log is not to be used now: it failed, or older changes wait to go first."""
        if self._guard.forked:
            return False
        return self._failing or (self._replayer is not None and not self._replayer.outbox.is_empty)

    def failed(self, error: BaseException) -> None:
        """The log failed somebody, in a way that `which` knows. The first time, warns."""
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
            warnings.warn(
                f"{self._what} is degraded, reads may be stale and writes are {self._writes()}: {error}",
                CoherenceDegradedWarning,
                stacklevel=2,
            )

    def watch(self) -> None:
        """See that the log is tried as long as that is needed: after a `put`, or with an outbox that was not empty."""
        if self._guard.forked:
            return
        with self._lock:
            self._tell()
            if self.is_degraded and self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="ccs-degraded", daemon=True)
                self._thread.start()

    def attempt(self) -> bool:
        """Try the log now and replay the outbox, in this thread; whether the mode is normal after that."""
        self._guard.check()
        with self._attempting:
            seen = self.count
            try:
                self._probe()
                self._replay()
            except Exception as error:  # noqa: BLE001  # a bug, too, must not end the way back
                self._say(error)
                return False
            with self._lock:
                if self.count == seen:  # nobody was failed meanwhile
                    self._failing = False
                    self._logged = None
                self._tell()
                return not self.is_degraded

    def on_change(self, listener: Callable[[bool], object]) -> None:
        """Have `listener` told, aside and in order, of every change: True when the mode becomes degraded."""
        with self._lock:
            self._listeners.append(BackgroundCall("a listener to degraded mode", listener))

    def close(self, timeout_s: float) -> bool:
        """Stop trying, and tell listeners what is left; whether that was done in time. The outbox stays open."""
        if self._guard.forked:
            return True
        deadline = time.monotonic() + timeout_s
        self._stop.set()
        with self._lock:
            thread, listeners = self._thread, tuple(self._listeners)
        ended = True
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            ended = not thread.is_alive()
        told = [each.close(max(0.0, deadline - time.monotonic())) for each in listeners]
        return ended and all(told)

    def _writes(self) -> str:
        return "refused" if self._replayer is None else f"kept in {self._replayer.outbox.path} until it is back"

    def _run(self) -> None:
        pause = PAUSE_MIN_S
        while not self._stop.wait(pause):
            left = self._left()
            self.attempt()
            with self._lock:
                if not self.is_degraded or isinstance(self.last_error, Closed | ForkedProcess):
                    self._thread = None  # under the lock: whoever needs one from here on starts one
                    return
            pause = PAUSE_MIN_S if self._left() < left else min(2 * pause, PAUSE_MAX_S)

    def _left(self) -> int:
        return 0 if self._replayer is None else self._replayer.outbox.counts.waiting

    def _replay(self) -> None:
        replayer = self._replayer
        if replayer is None or replayer.outbox.is_empty:
            return
        replayed = replayer.replay()
        if replayed.conflicts:
            LOG.warning(
                "%s: %d changes that waited in %s were refused, and are kept there until they are resolved",
                self._what,
                len(replayed.conflicts),
                replayer.outbox.path,
            )
        if self._on_replayed is not None and (replayed.done or replayed.conflicts):
            try:
                self._on_replayed(replayed)
            except Exception:
                LOG.exception("what is told of replayed changes raised; they are not affected")
        if replayed.error is not None:
            raise replayed.error

    def _say(self, error: Exception) -> None:
        self.last_error = error
        if type(error) is not self._logged:  # not every two seconds
            self._logged = type(error)
            LOG.warning("%s is still degraded: %s", self._what, error, exc_info=None if which(error) else error)

    def _tell(self) -> None:
        """The caller holds the lock."""
        degraded = self.is_degraded
        if degraded is self._told:
            return
        self._told = degraded
        if not degraded:
            LOG.info("%s is back to normal", self._what)
        for listener in self._listeners:
            listener.give(degraded)
