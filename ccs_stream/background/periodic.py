"""A task that one background thread repeats.

Guarantees: see the package; two rounds never overlap.

How: the thread waits on an event between two rounds, which `wake` and `close` set, and holds no lock during a round,
which may block for as long as it likes: only `close` waits for it.
"""

import atexit
import math
import threading
import weakref
from collections.abc import Callable
from typing import Final

from ccs_stream.background.forks import FORK_AWARE
from ccs_stream.background.wake import WakeEvent
from ccs_stream.background.worker import Failures, OnFailure, WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK, Clock

UNTIL_WOKEN: Final = math.inf
"""Returned by a round of a `PeriodicTask`: no further round until `start` or `wake`."""


class PeriodicTask:
    """Calls `work` again and again, in a thread of its own.

    ```
    task = PeriodicTask("heartbeat", renew_session, interval_s=2.0)
    task.start()
    task.wake()             # a round now
    task.close(1.0)
    ```
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], float | None],
        *,
        interval_s: float,
        retry_s: float | None = None,
        retry_max_s: float | None = None,
        on_failure: OnFailure | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """The thread, named `ccs-{name}`, is started by `start` or `wake`.

        `work` returns how many seconds the next round is away: None for `interval_s`, `UNTIL_WOKEN` to end the thread
        until `start` or `wake`. After a round that raised, the next one follows in `retry_s` (unless given,
        `interval_s`), and twice as long each further time, up to `retry_max_s` (unless given, `retry_s`).
        """
        self.name = name
        self.interval_s = interval_s
        self._work = work
        self._retry_s = interval_s if retry_s is None else retry_s
        self._retry_max_s = self._retry_s if retry_max_s is None else retry_max_s
        self._clock = clock
        self._rounds = 0
        self._failures = Failures(name, on_failure)
        self._lock = threading.Lock()
        self._called = WakeEvent()
        self._running = False
        """True if a thread makes rounds, or is about to."""
        self._started_again = False
        """True if `start` was called since the last round began."""
        self._closed = False
        self._thread: threading.Thread | None = None
        FORK_AWARE.add(self)
        _TASKS.add(self)

    def start(self) -> None:
        """Make rounds from now on, the first one after `interval_s`.

        Where rounds are made already, nothing changes; a round that is under way and ends them is followed by another.
        """
        with self._lock:
            self._started_again = True
            self._start(self.interval_s)

    def wake(self) -> None:
        """Make a round at once, and then go on as usual."""
        with self._lock:
            self._called.set()
            self._start(0.0)

    @property
    def closed(self) -> bool:
        """True if `close` was called, here or in the parent of this forked process. `work` may ask it to end early."""
        return self._closed

    @property
    def alive(self) -> bool:
        """True if rounds are made."""
        thread = self._thread
        return self._running and thread is not None and thread.is_alive()

    @property
    def failures(self) -> int:
        """How many rounds raised."""
        return self._failures.count

    def health(self) -> WorkerHealth:
        """The state of the task."""
        return WorkerHealth(self.name, self.alive, 0, self._rounds, 0, self._failures.count, self._failures.last)

    def close(self, timeout_s: float) -> bool:
        """Make no further round, and wait for one that is under way, for at most so long; whether it is over."""
        self._closed = True
        self._called.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def after_fork(self) -> None:
        """The parent goes on with it; here it is closed. Called by the fork hook."""
        self._closed = True
        self._running = False
        self._thread = None
        self._lock = threading.Lock()
        self._called = WakeEvent()

    def _start(self, first_s: float) -> None:
        """The caller holds the lock."""
        if self._running or self._closed:
            return
        self._thread = threading.Thread(target=self._run, args=(first_s,), name=f"ccs-{self.name}", daemon=True)
        self._running = True
        try:
            self._thread.start()
        except RuntimeError as error:  # at the interpreter's exit, where nothing recurs
            self._running = False
            self._thread = None
            self._failures.add(error)

    def _run(self, pause_s: float) -> None:
        retry_s = self._retry_s
        while True:
            self._clock.wait(self._called, min(pause_s, threading.TIMEOUT_MAX))
            self._called.clear()
            if self._closed:
                return
            self._started_again = False
            try:
                again_s = self._work()
            except BaseException as error:  # noqa: BLE001  # a worker outlives SystemExit and cancellations, too
                self._failures.add(error)
                pause_s, retry_s = retry_s, min(2 * retry_s, self._retry_max_s)
                continue
            self._rounds += 1
            self._failures.row = 0
            retry_s = self._retry_s
            pause_s = self.interval_s if again_s is None else again_s
            if pause_s == UNTIL_WOKEN:
                with self._lock:
                    if not self._called.is_set() and not self._started_again:
                        self._running = False  # under the lock: a later `wake` starts another thread
                        return
                pause_s = self.interval_s


_TASKS: Final[weakref.WeakSet[PeriodicTask]] = weakref.WeakSet()


def _end_all() -> None:
    """At the interpreter's exit: begin no further round. A round that is under way is not waited for."""
    while True:
        try:
            tasks = tuple(_TASKS)
        except RuntimeError:  # a thread made another one at this moment
            continue
        break
    for task in tasks:
        task.close(0.0)


atexit.register(_end_all)
