"""Jobs that coroutines wait for: done one after another by a background queue."""

import asyncio
import threading

import pytest

from ccs_stream.background import job_queue, run_job
from ccs_stream.protocol.errors import Closed


async def test_a_job_is_done_by_the_queue_and_its_result_comes_back() -> None:
    queue = job_queue("jobs")
    assert await run_job(queue, lambda: threading.current_thread().name) == "ccs-jobs"
    assert queue.close(10)


async def test_an_error_of_a_job_is_the_coroutines_and_no_failure_of_the_queue() -> None:
    queue = job_queue("jobs")

    def fail() -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(ZeroDivisionError, match="planted"):
        await run_job(queue, fail)
    assert await run_job(queue, lambda: 1) == 1
    assert queue.failures == 0
    assert queue.close(10)


async def test_the_loop_goes_on_while_a_job_waits() -> None:
    queue, go = job_queue("jobs"), threading.Event()
    waiting = asyncio.ensure_future(run_job(queue, lambda: go.wait(10)))
    await asyncio.sleep(0)
    go.set()
    assert await waiting
    assert queue.close(10)


async def test_a_job_whose_coroutine_was_cancelled_before_its_turn_is_not_done() -> None:
    queue, go, done = job_queue("jobs"), threading.Event(), list[int]()
    first = asyncio.ensure_future(run_job(queue, lambda: go.wait(10)))
    second = asyncio.ensure_future(run_job(queue, lambda: done.append(2)))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    assert await first
    assert queue.close(10)
    assert not done


async def test_a_closed_queue_takes_no_job() -> None:
    queue = job_queue("jobs")
    queue.close(10)
    with pytest.raises(Closed, match="jobs was closed"):
        await run_job(queue, lambda: 1)


def test_a_loop_that_was_closed_meanwhile_is_not_missed() -> None:
    queue, go = job_queue("jobs"), threading.Event()

    async def begin() -> None:
        task = asyncio.ensure_future(run_job(queue, lambda: go.wait(10)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(begin())
    go.set()
    assert queue.close(10)
    assert queue.failures == 0
