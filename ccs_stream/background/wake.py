"""An event that survives interrupts, for whatever the main thread may set.

The queue and the periodic task are woken by it. Guarantees: as `threading.Event`; besides, an exception of a signal
handler, wherever it comes inside `set` or `wait`, keeps nobody else from setting it or waiting for it: no lock is ever
held. (`threading.Event` takes a lock in a function of its own; an interrupt on the way out of that one leaves the lock
taken for ever. For the same reason a `threading.Condition` of ours is entered by `with lock`, its own lock, and not by
`with condition`.) Does not: promise that an interrupted `set` has woken anybody; it is done again.
"""

import threading
from collections import deque


class WakeEvent(threading.Event):
    """See the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self._set = False
        self._sleepers: deque[threading.Lock] = deque()
        """One taken lock for each waiting thread, which waits for its release."""

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for sleeper in tuple(self._sleepers):
            try:  # noqa: SIM105  # an interrupt may come on the way into `suppress`
                sleeper.release()
            except RuntimeError:  # another thread was as fast
                pass

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if self._set:
            return True
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)  # before looking again: whoever sets it later wakes this thread
        try:
            if self.is_set():
                return True
            return sleeper.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))
        finally:
            self._sleepers.remove(sleeper)
