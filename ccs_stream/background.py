"""Work that runs beside the caller: a queue with a worker, a task that is repeated, and the check for forked processes.

Every thread of the package that is not a log follower or an HTTP server is made here.

Guarantees: a worker is a daemon thread named `ccs-...`, started when it is first needed; whatever its function raises,
`SystemExit` included, the worker goes on: the first failure is logged with its traceback,
later ones are counted (`on_failure` hears of the first of
each row of failures). `health()` tells how a worker stands. `close` may be called twice and from the worker itself,
and never waits longer than it was told to. At a normal exit of the interpreter all queues are flushed together, for at
most `EXIT_FLUSH_S`. In a forked child a queue is empty and works; a periodic task is closed, since the parent goes on
with it; a `ForkGuard` raises.
Does not: survive a kill; end a function that hangs (its thread ends with the process).

How: `BackgroundQueue.submit` appends to a deque and wakes the worker only where that one sleeps, so that a busy queue
costs its submitters one append. The worker takes batches from the other end, calls `handle`, and holds no lock while it
does. `PeriodicTask` waits on an event between two rounds, which `wake` and `close` set. The fork hook of the operating
system marks all live objects in the child, so that none of them has to ask for the process id.
"""

import atexit
import collections
import dataclasses
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.protocol.errors import ForkedProcess

LOG = logging.getLogger(__name__)

T = TypeVar("T")

WAITING_MAX: Final = 100_000
"""Items that may wait in a queue unless it is given a bound: some 50 MB of small objects."""
EXIT_FLUSH_S: Final = 5.0
"""How long the interpreter's exit waits for all queues together."""
UNTIL_WOKEN: Final = math.inf
"""Returned by a round of a `PeriodicTask`: no further round until `start` or `wake`."""

OnFailure = Callable[[BaseException], object]
"""Called in the worker's thread with the first failure of each row, instead of logging the first of all."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How one background worker stands."""

    name: str
    alive: bool
    """Whether its thread runs. A worker that nobody has needed yet has no thread."""
    waiting: int
    """Items that wait or are being handled; 0 for a periodic task."""
    handled: int
    """Items handled, or rounds that ended well."""
    dropped: int
    """Items that will never be handled: the queue was full or closed."""
    failures: int
    """Batches or rounds that raised."""
    last_failure: str | None
    """The last error, as text."""


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
        item that the full queue does not take.
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
        self._failures = _Failures(name, on_failure)
        self._begin()
        _FORK_AWARE.add(self)
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
        waiting.append(item)
        if not self._awake:
            self._wake()

    @property
    def waiting(self) -> int:
        """How many items wait or are being handled, roughly."""
        return len(self._waiting) + len(self._batch)

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
        """How the queue stands."""
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
        with self._moved:
            target = self._taken + len(self._waiting)
            if self._finished >= target:
                return True
            self._flushing += 1
        try:
            self._hurry.set()
            self._wake()
            with self._moved:
                self._clock.wait_for(
                    self._moved, lambda: self._finished >= target or self._ended or not self._is_alive(), timeout_s
                )
        finally:
            with self._moved:
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
        if thread is not None:
            thread.join(timeout_s)
        elif self._waiting:
            self._handle_all()  # no thread could be started, as at the end of the interpreter
        return not self._waiting and not self._batch

    def _begin(self) -> None:
        """Begin empty, without a thread: when made, and in a forked child, where what waited is the parent's."""
        self._waiting: collections.deque[T] = collections.deque()
        self._batch: list[T] = []
        """What is being handled."""
        self._taken = 0
        """Items taken from `_waiting`."""
        self._finished = 0
        """Those of them that were handled, or given up."""
        self._handled = 0
        self._flushing = 0
        """How many threads wait in `flush`."""
        self._awake = False
        """Whether the worker will look at `_waiting` by itself."""
        self._closed = False
        self._ended = False
        """Whether the worker will handle nothing any more."""
        self._submit_plainly_to = self._hurry_at
        """With so many waiting, `submit` has more to do than to append."""
        self._lock = threading.Lock()
        self._moved = threading.Condition(threading.Lock())
        self._called = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child. Called by the fork hook."""
        self._begin()

    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _has_room(self, item: T) -> bool:
        """Whether `item` may be appended, where that is not plain."""
        if not self._closed and len(self._waiting) < self._waiting_max:
            self._hurry.set()
            return True
        self._dropped += 1
        if self._dropped == 1 and not self._closed:
            LOG.warning("%s is %d items behind: what comes now is dropped and counted", self.name, self._waiting_max)
        if self._on_drop is not None:
            try:
                self._on_drop(item)
            except Exception as error:  # noqa: BLE001  # whoever submits never hears of an error
                self._failures.add(error)
        return False

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name=f"ccs-{self.name}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # at the interpreter's exit, whose flush then handles what waits
                    self._failures.add(error)
                    return
                self._thread = thread
            try:
                self._awake = True
                self._called.set()
            except BaseException:  # interrupted: the next one to submit wakes it
                self._awake = False
                raise

    def _run(self) -> None:
        while not self._closed:
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
                self._awake = False  # before looking: whoever submits from here on wakes this thread
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
        with self._moved:
            count = min(len(waiting), self._batch_max)
            self._taken += count
            self._batch = [waiting.popleft() for _ in range(count)]

    def _finish(self) -> None:
        with self._moved:
            self._finished += len(self._batch)
            self._batch = []
            if self._flushing:
                self._moved.notify_all()

    def _give_up(self) -> None:
        """The queue was closed: count what is left, and let nobody wait for it."""
        with self._moved:
            left = len(self._batch) + len(self._waiting)
            self._ended = True
            self._moved.notify_all()
        if left:
            self._dropped += left
            LOG.warning("%s was closed with %d items that could not be handled", self.name, left)


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
        self._failures = _Failures(name, on_failure)
        self._lock = threading.Lock()
        self._called = threading.Event()
        self._running = False
        """Whether a thread makes rounds, or is about to."""
        self._closed = False
        self._thread: threading.Thread | None = None
        _FORK_AWARE.add(self)
        _TASKS.add(self)

    def start(self) -> None:
        """Make rounds from now on, the first one after `interval_s`. Does nothing where rounds are made already."""
        with self._lock:
            self._start(self.interval_s)

    def wake(self) -> None:
        """Make a round at once, and then go on as usual."""
        with self._lock:
            self._called.set()
            self._start(0.0)

    @property
    def closed(self) -> bool:
        """Whether `close` was called, here or in the parent of this forked process. `work` may ask it to end early."""
        return self._closed

    @property
    def alive(self) -> bool:
        """Whether rounds are made."""
        thread = self._thread
        return self._running and thread is not None and thread.is_alive()

    @property
    def failures(self) -> int:
        """How many rounds raised."""
        return self._failures.count

    def health(self) -> WorkerHealth:
        """How the task stands."""
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
        self._called = threading.Event()

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
            self._clock.wait(self._called, pause_s)
            self._called.clear()
            if self._closed:
                return
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
                    if not self._called.is_set():
                        self._running = False  # under the lock: whoever wakes it from here on starts another thread
                        return


def run_in_background(name: str, job: Callable[[], object]) -> None:
    """Do `job` once, in a daemon thread named `ccs-{name}`; an error that it raises is logged."""

    def supervised() -> None:
        try:
            job()
        except BaseException:
            LOG.exception("%s failed", name)

    threading.Thread(target=supervised, name=f"ccs-{name}", daemon=True).start()


class _Failures:
    """Counts the failures of one worker, and tells of the first of each row."""

    def __init__(self, name: str, on_failure: OnFailure | None) -> None:
        self.count = 0
        self.row = 0
        """How many in a row; set to 0 by work that ends well."""
        self.last: str | None = None
        self._name = name
        self._on_failure = on_failure
        self._logged = False

    def add(self, error: BaseException) -> None:
        """Count `error`, and tell of it where it is the first of its row. Never raises."""
        self.count += 1
        self.row += 1
        self.last = f"{type(error).__name__}: {error}"
        if self.row > 1:
            return
        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except BaseException:
                LOG.exception("telling of a failure of %s failed", self._name)
        elif not self._logged:
            self._logged = True
            LOG.error("%s failed, and goes on; later failures are counted", self._name, exc_info=error)


# Forked processes, and the end of the interpreter.


class _ForkAware(Protocol):
    def after_fork(self) -> None: ...


class ForkGuard:
    """Belongs to one object with locks, threads or open files; in a forked child `check` raises.

    `forked` is an attribute, so that a hot path pays one attribute read.
    """

    __slots__ = ("__weakref__", "_what", "forked")

    def __init__(self, what: str) -> None:
        """`what` names the object in the message."""
        self._what = what
        self.forked = False
        """Whether this process is a forked child of the one that made the object."""
        _FORK_AWARE.add(self)

    def check(self) -> None:
        """Raises `ForkedProcess` in a forked child."""
        if self.forked:
            raise ForkedProcess(
                f"{self._what} was opened before this process was forked; locks and file handles do not survive that: "
                "open it in the child (or start processes with the 'spawn' method)"
            )

    def after_fork(self) -> None:
        """Called by the fork hook."""
        self.forked = True


def when_forked(callback: Callable[[], object]) -> None:
    """Call `callback` in every forked child, before anything else runs there. For a module's own tables and locks."""
    _WHEN_FORKED.append(callback)


def _after_fork() -> None:
    for each in tuple(_FORK_AWARE):
        each.after_fork()
    for callback in _WHEN_FORKED:
        callback()


def _flush_all() -> None:
    """At the interpreter's exit: handle what waits, where one queue may feed another, and end all rounds."""
    for task in tuple(_TASKS):
        task.close(0.0)
    deadline = time.monotonic() + EXIT_FLUSH_S
    queues = tuple(_QUEUES)
    while any(queue.waiting for queue in queues) and time.monotonic() < deadline:
        for queue in queues:
            if queue.waiting and not queue.health().alive:
                queue.close(0.0)
            else:
                queue.flush(max(deadline - time.monotonic(), 0.0))


_FORK_AWARE: Final[weakref.WeakSet[_ForkAware]] = weakref.WeakSet()
_QUEUES: Final[weakref.WeakSet[BackgroundQueue[Any]]] = weakref.WeakSet()
_TASKS: Final[weakref.WeakSet[PeriodicTask]] = weakref.WeakSet()
_WHEN_FORKED: Final[list[Callable[[], object]]] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_flush_all)
