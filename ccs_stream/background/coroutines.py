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


def job_queue(name: str) -> BackgroundQueue[Job]:
    """A queue that does one job after another."""
    return BackgroundQueue.for_each(name, _do)


async def run_job(queue: BackgroundQueue[Job], job: Callable[[], T]) -> T:
    """Have `queue` do `job`, and wait for it. Raises what the job raises, and `Closed` where the queue was closed."""
    if queue.closed:
        raise Closed(f"{queue.name} was closed: connect again")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def supervised() -> None:
        if future.cancelled():
            return
        result: Any = None
        error: BaseException | None = None
        try:
            result = job()
        except BaseException as raised:  # noqa: BLE001  # the coroutine gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and with it the coroutine
            loop.call_soon_threadsafe(_resolve, future, result, error)

    queue.submit(supervised)
    return await future


def _do(job: Job) -> None:
    job()


def _resolve(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
