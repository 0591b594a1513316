"""Waiting in a coroutine for a job that a background queue does.

Guarantees: the coroutine is resumed in its event loop, with what the job returned or raised. Does not: interrupt a job
that runs when its coroutine is cancelled; one that has not begun is not done.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from ccs_stream.background.queue import BackgroundQueue
from ccs_stream.protocol.errors import Closed

T = TypeVar("T")
Job = Callable[[], object]


class _AwaitedJob:
    """A job, and the coroutine that waits for it."""

    __slots__ = ("_future", "_loop", "_work")

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()

    def __call__(self) -> None:
        """Do it, unless nobody waits any more."""
        if self._future.cancelled():
            return
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._work()
        except BaseException as raised:  # noqa: BLE001  # the coroutine gets it
            error = raised
        self.resolve(result, error)

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Resume the coroutine."""
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and with it the coroutine
            self._loop.call_soon_threadsafe(_resolve, self._future, result, error)

    async def result(self) -> Any:
        """Wait for it."""
        return await self._future


def job_queue(name: str) -> BackgroundQueue[Job]:
    """A queue that does one job after another. Those that it drops raise `Closed`."""

    def dropped(job: Job) -> None:
        if isinstance(job, _AwaitedJob):
            job.resolve(None, Closed(f"{name} was closed, or has too much to do: connect again"))

    return BackgroundQueue.for_each(name, _do, on_drop=dropped)


async def run_job(queue: BackgroundQueue[Job], job: Callable[[], T]) -> T:
    """Have `queue` do `job`, and wait for it. Raises what the job raises, and `Closed` where the queue was closed."""
    if queue.closed:
        raise Closed(f"{queue.name} was closed: connect again")
    waiting = _AwaitedJob(job)
    queue.submit(waiting)
    return await waiting.result()  # type: ignore[no-any-return]


def _do(job: Job) -> None:
    job()


def _resolve(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
