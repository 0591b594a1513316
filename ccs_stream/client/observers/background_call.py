"""Telling somebody of what happens without ever waiting for them.

Guarantees: what is given is told in order, one at a time, in a thread of its own; whoever gives neither waits nor hears
of an error; what raises is counted and logged; what nobody takes is bounded, and what is too much is dropped and
counted. Does not: survive the process; a fork begins anew.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

LOG = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX: Final = 100_000
"""Things that may wait to be told; some 50 MB, and a minute of an observer that takes half a millisecond."""


class BackgroundCall(Generic[T]):
    """See the module's docstring. For all threads; a listener may call whatever it likes, this included."""

    def __init__(self, what: str, listener: Callable[[T], object], *, waiting_max: int | None = None) -> None:
        """`what` names the listener in messages; so many things may wait for it: `WAITING_MAX` unless given."""
        self.what = what
        self.dropped = 0
        """Things that were not told, because the listener was too far behind."""
        self.failed = 0
        """Things on which the listener raised."""
        self._listener = listener
        self._waiting_max = waiting_max or WAITING_MAX
        self._lock = threading.Lock()
        self._closed = False
        self._begin()

    def give(self, thing: T) -> None:
        """Have it told, some time."""
        if self._pid != os.getpid():
            self._begin()
        try:
            self._queue.put_nowait(thing)
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                LOG.warning("%s is %d behind: what comes now is dropped, and counted", self.what, self._waiting_max)
        if self._thread is None:
            self._start()

    @property
    def waiting(self) -> int:
        """How many things wait to be told, roughly."""
        return self._queue.qsize()

    def settle(self, timeout_s: float) -> bool:
        """Wait until all that was given is told; False when that takes longer. From the listener itself: at once."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        if self._closed:
            thread.join(timeout_s)
            return not thread.is_alive()
        done = threading.Event()
        try:
            self._queue.put(done, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Tell what is left, for at most so long, and end. Whether all was told."""
        settled = self.settle(timeout_s)
        self._closed = True
        if self._thread is not None:
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                return False  # a listener that hangs: its thread ends with the process
        return settled

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: queue.Queue[T | threading.Event | None] = queue.Queue(self._waiting_max)
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"ccs-{self.what}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (thing := self._queue.get()) is not None:
            if isinstance(thing, threading.Event):
                thing.set()
                continue
            try:
                self._listener(thing)
            except Exception:
                self.failed += 1
                if self.failed == 1:
                    LOG.exception("%s raised; what it is told of is not affected. Later ones are counted", self.what)
