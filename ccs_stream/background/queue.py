"""A bounded queue whose items one background thread handles, in batches.

Guarantees: see the package; items are handled in the order in which each thread submitted them. Does not: order the
items of different threads.

How: `submit` appends to a deque and wakes the worker only where that one sleeps, so that a busy queue costs its
submitters one append. The worker takes batches from the other end and holds no lock while it calls `handle`, which may
block for as long as it likes: only `flush` and `close` wait for it.
"""

import atexit
import collections
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from ccs_stream.background.forks import FORK_AWARE
from ccs_stream.background.wake import WakeEvent
from ccs_stream.background.worker import Failures, OnFailure, WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK, Clock, Deadline

LOG = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX: Final = 100_000
"""Items that may wait in a queue unless it is given a bound: some 50 MB of small objects."""
EXIT_FLUSH_S: float = 5.0
"""How long the interpreter's exit waits for all queues together."""


class BackgroundQueue(Generic[T]):
    """Hands what is submitted to `handle`, in order and in batches, in a thread of its own.

    ```
    lines = BackgroundQueue("audit", write_lines, batch_max=500, gather_s=1.0)
    lines.submit(line)      # never waits, never raises
    lines.flush(5.0)        # True: everything submitted so far was handled
    lines.close(5.0)
    ```
    """

    def __init__(  # noqa: PLR0913  # one name for each thing an owner may bound or observe
        self,
        name: str,
        handle: Callable[[list[T]], object],
        *,
        batch_max: int = 1_000,
        waiting_max: int = WAITING_MAX,
        gather_s: float = 0.0,
        hurry_at: int | None = None,
        retry_s: float | None = None,
        on_failure: OnFailure | None = None,
        on_drop: Callable[[T], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """The thread, named `ccs-{name}`, is started by the first `submit`.

        The worker lets items gather for `gather_s` before it takes a batch, but no longer than until `hurry_at` items
        wait. A batch on which `handle` raises is given up; with `retry_s` the same list is handed in again after that
        many seconds, until it succeeds or the queue is closed. `on_drop` is called, in the submitting thread, with each
        item that the full or closed queue does not take, and by the closing with each that it gives up.
        """
        self.name = name
        self._handle = handle
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._gather_s = gather_s
        self._hurry_at = waiting_max if hurry_at is None else min(hurry_at, waiting_max)
        self._retry_s = retry_s
        self._on_drop = on_drop
        self._clock = clock
        self._dropped = 0
        self._failures = Failures(name, on_failure)
        self._begin()
        FORK_AWARE.add(self)
        _QUEUES.add(self)

    @classmethod
    def for_each(
        cls,
        name: str,
        handle: Callable[[T], object],
        *,
        waiting_max: int = WAITING_MAX,
        on_failure: OnFailure | None = None,
        on_drop: Callable[[T], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "BackgroundQueue[T]":
        """A queue that hands over one item at a time, so that an error costs that item only."""
        return cls(
            name,
            lambda batch: handle(batch[0]),
            batch_max=1,
            waiting_max=waiting_max,
            on_failure=on_failure,
            on_drop=on_drop,
            clock=clock,
        )

    def submit(self, item: T) -> None:
        """Have `item` handled. Never waits and never raises; what a full or closed queue does not take is counted."""
        waiting = self._waiting
        if len(waiting) >= self._submit_plainly_to and not self._has_room(item):
            return
        try:
            waiting.append(item)
            if not self._awake:
                self._wake()
        except BaseException:  # interrupted, perhaps between the two: nobody else may come and wake it
            self._wake()
            raise

    @property
    def waiting(self) -> int:
        """How many items wait or are being handled, roughly."""
        return len(self._waiting) + len(self._batch)

    @property
    def closed(self) -> bool:
        """True if `close` was called."""
        return self._closed

    @property
    def dropped(self) -> int:
        """How many items will never be handled."""
        return self._dropped

    @property
    def failures(self) -> int:
        """How many batches raised."""
        return self._failures.count

    @property
    def handled(self) -> int:
        """How many items were handled without an error."""
        return self._handled

    def health(self) -> WorkerHealth:
        """The state of the queue."""
        return WorkerHealth(
            self.name,
            self._is_alive(),
            self.waiting,
            self._handled,
            self._dropped,
            self._failures.count,
            self._failures.last,
        )

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was submitted is handled, for at most so long; whether it is. From the worker: at once.

        Does not wait for gathering.
        """
        if self._thread is threading.current_thread():
            return True
        with self._moved_lock:
            target = self._taken + len(self._waiting)
            if self._finished >= target:
                return True
            self._flushing += 1
        try:
            self._hurry.set()
            self._wake()
            with self._moved_lock:
                self._clock.wait_for(
                    self._moved, lambda: self._finished >= target or self._ended or not self._is_alive(), timeout_s
                )
        finally:
            with self._moved_lock:
                self._flushing -= 1
        return self._finished >= target

    def close(self, timeout_s: float) -> bool:
        """Handle what is left, for at most so long, and end; whether all was handled. What comes later is dropped."""
        self._closed = True
        self._submit_plainly_to = -1
        self._hurry.set()
        self._called.set()
        thread = self._thread
        if thread is threading.current_thread():
            return not self._waiting
        if thread is not None and thread.ident is not None:
            thread.join(timeout_s)
        if not self._is_alive():
            if self._waiting:
                self._handle_all()  # no thread could be started, as at the end of the interpreter, or it died
            self._give_up()
        return not self._waiting and not self._batch and not self._left_undone

    def _begin(self) -> None:
        """Begin empty, without a thread: when made, and in a forked child, where what waited is the parent's."""
        self._waiting: collections.deque[T] = collections.deque()
        self._batch: list[T] = []
        """The items that are being handled."""
        self._taken = 0
        """Items taken from `_waiting`."""
        self._finished = 0
        """Those of them that were handled, or given up."""
        self._handled = 0
        self._flushing = 0
        """How many threads wait in `flush`."""
        self._awake = False
        """True if the worker will look at `_waiting` by itself."""
        self._closed = False
        self._ended = False
        """True if the worker will handle nothing any more."""
        self._submit_plainly_to = self._hurry_at
        """With so many items waiting, `submit` has more to do than to append."""
        self._lock = threading.Lock()
        self._at_work = threading.Lock()
        """Held by the worker."""
        self._moved_lock = threading.Lock()
        self._moved = threading.Condition(self._moved_lock)
        self._called = WakeEvent()
        self._hurry = WakeEvent()
        self._left_undone = False
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child. Called by the fork hook."""
        self._begin()

    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _has_room(self, item: T) -> bool:
        """True if `item` may be appended to a long or closed queue."""
        if not self._closed and len(self._waiting) < self._waiting_max:
            if not self._hurry.is_set():
                self._hurry.set()
            return True
        self._dropped += 1
        if self._dropped == 1 and not self._closed:
            LOG.warning("%s is %d items behind: what comes now is dropped and counted", self.name, self._waiting_max)
        self._tell_of_drop(item)
        return False

    def _tell_of_drop(self, item: T) -> None:
        if self._on_drop is not None:
            try:
                self._on_drop(item)
            except Exception as error:  # noqa: BLE001  # submitters never get an error
                self._failures.add(error)

    def _wake(self) -> None:
        if self._ended:
            self._give_up()  # it was closed after `submit` had looked
            return
        with self._lock:
            if not self._is_alive() and not self._closed:
                for attempt in (1, 2):  # an interrupt inside `start` can show as a RuntimeError, too
                    # The thread is noted before it starts: after an interrupt in between, the next one replaces it.
                    self._thread = thread = threading.Thread(target=self._run, name=f"ccs-{self.name}", daemon=True)
                    try:
                        thread.start()
                        break
                    except RuntimeError as error:
                        self._thread = None
                        if attempt == 2:  # at the interpreter's exit, whose flush then handles what waits
                            self._failures.add(error)
                            return
            try:
                self._awake = True
                self._called.set()
            except BaseException:  # interrupted: the next one to submit wakes it
                self._awake = False
                raise

    def _run(self) -> None:
        with self._at_work:  # where an interrupt has led to a second thread, the first one ends at its next round
            while self._thread is threading.current_thread():
                try:
                    self._work()
                except BaseException as error:  # noqa: BLE001  # not from `handle`: it goes on
                    self._failures.add(error)
                else:
                    return

    def _work(self) -> None:
        while not self._closed:
            if self._thread is not threading.current_thread():
                return
            self._called.wait()
            self._called.clear()
            while True:
                if self._gather_s:
                    self._clock.wait(self._hurry, self._gather_s)
                self._hurry.clear()
                self._handle_all()
                if self._batch and not self._closed:  # it is to be tried again
                    self._clock.wait(self._hurry, self._retry_s)
                    continue
                self._awake = False  # before looking: a later `submit` wakes this thread
                if not self._waiting or self._closed:
                    break
                self._awake = True
        self._handle_all()
        self._give_up()

    def _handle_all(self) -> None:
        """Handle what waits; returns early, with `_batch` left, where handling failed and is to be tried again."""
        while self._batch or self._waiting:
            self._take()
            try:
                self._handle(self._batch)
            except BaseException as error:  # noqa: BLE001  # a worker outlives SystemExit and cancellations, too
                self._failures.add(error)
                if self._retry_s is not None:
                    return
            else:
                self._handled += len(self._batch)
                self._failures.row = 0
            self._finish()

    def _take(self) -> None:
        waiting, batch = self._waiting, self._batch
        if batch:
            return
        with self._moved_lock:
            count = min(len(waiting), self._batch_max)
            self._taken += count
            self._batch = [waiting.popleft() for _ in range(count)]

    def _finish(self) -> None:
        with self._moved_lock:
            self._finished += len(self._batch)
            self._batch = []
            if self._flushing:
                self._moved.notify_all()

    def _give_up(self) -> None:
        """The queue was closed: count the items that are left, and release those who wait for them."""
        self._ended = True
        self._awake = False  # from now on `submit` looks at `_ended`
        with self._moved_lock:
            left, self._batch = self._batch, []
            while self._waiting:
                left.append(self._waiting.popleft())
            self._moved.notify_all()
        if left:
            self._left_undone = True
            self._dropped += len(left)
            LOG.warning("%s was closed with %d items that could not be handled", self.name, len(left))
        for item in left:
            self._tell_of_drop(item)


_QUEUES: Final[weakref.WeakSet[BackgroundQueue[Any]]] = weakref.WeakSet()


def _busy_queues() -> list[BackgroundQueue[Any]]:
    while True:
        try:
            return [queue for queue in _QUEUES if queue.waiting and not queue.closed]
        except RuntimeError:  # a thread made another one at this moment
            continue


def _flush_all() -> None:
    """At the interpreter's exit: handle what waits, where one queue may feed another."""
    deadline = Deadline(EXIT_FLUSH_S)
    while deadline.left_s and (busy := _busy_queues()):
        for queue in busy:
            if queue.health().alive:
                queue.flush(deadline.left_s)
            else:
                queue.close(0.0)  # handles what waits in this thread


atexit.register(_flush_all)
