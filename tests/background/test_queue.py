"""A queue with a worker: whoever submits never waits, and never hears of an error."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from ccs_stream.background import BackgroundQueue
from ccs_stream.testing.clock import ManualClock
from tests.coordinator import interrupts
from tests.waiting import until


def test_everything_that_is_submitted_is_handled_in_order() -> None:
    handled: list[int] = []
    queue = BackgroundQueue("test", handled.extend)
    for number in range(10_000):
        queue.submit(number)
    assert queue.flush(10)
    assert handled == list(range(10_000))
    assert queue.close(10)


def test_several_threads_submit_and_each_keeps_its_order() -> None:
    handled: list[tuple[int, int]] = []
    queue = BackgroundQueue("test", handled.extend)

    def submit(who: int) -> None:
        for number in range(5_000):
            queue.submit((who, number))

    threads = [threading.Thread(target=submit, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.close(10)
    for who in range(4):
        assert [number for owner, number in handled if owner == who] == list(range(5_000))


def test_no_thread_exists_until_it_is_needed_and_it_has_a_name() -> None:
    names: list[str] = []
    queue: BackgroundQueue[int] = BackgroundQueue("of-a-test", lambda _: names.append(threading.current_thread().name))
    assert not queue.health().alive
    assert queue.flush(10)
    queue.submit(1)
    assert queue.flush(10)
    assert names == ["ccs-of-a-test"]
    assert queue.health().alive
    assert queue.close(10)
    assert not queue.health().alive


def test_an_idle_worker_is_woken_again() -> None:
    handled: list[int] = []
    queue = BackgroundQueue("test", handled.extend)
    for number in range(200):
        queue.submit(number)
        assert queue.flush(10)
    assert handled == list(range(200))
    assert queue.close(10)


def test_a_batch_is_not_larger_than_it_may_be() -> None:
    go, sizes = threading.Event(), list[int]()

    def handle(batch: list[int]) -> None:
        go.wait()
        sizes.append(len(batch))

    queue = BackgroundQueue("test", handle, batch_max=100)
    for number in range(1_000):
        queue.submit(number)
    go.set()
    assert queue.close(10)
    assert sum(sizes) == 1_000
    assert max(sizes) <= 100


def test_an_error_costs_one_item_where_each_is_handled_alone(caplog: pytest.LogCaptureFixture) -> None:
    handled: list[int] = []

    def handle(number: int) -> None:
        if number % 2:
            raise ZeroDivisionError("planted")
        handled.append(number)

    queue = BackgroundQueue.for_each("a listener", handle)
    for number in range(10):
        queue.submit(number)
    assert queue.close(10)
    assert handled == [0, 2, 4, 6, 8]
    health = queue.health()
    assert (health.handled, health.failures, health.dropped, health.waiting) == (5, 5, 0, 0)
    assert health.last_failure == "ZeroDivisionError: planted"
    assert [record.message for record in caplog.records] == [
        "a listener failed, and goes on; later failures are counted"
    ]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_not_even_an_exit_raised_in_it_ends_the_worker(error: BaseException) -> None:
    handled: list[int] = []

    def handle(number: int) -> None:
        if number == 0:
            raise error
        handled.append(number)

    queue = BackgroundQueue.for_each("test", handle)
    queue.submit(0)
    queue.submit(1)
    assert queue.flush(10)
    assert handled == [1]
    assert queue.health().failures == 1
    assert queue.close(10)


def test_the_first_failure_of_each_row_can_be_told_in_ones_own_words(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def handle(number: int) -> None:
        if number < 0:
            raise OSError(number)

    queue = BackgroundQueue.for_each("test", handle, on_failure=lambda error: told.append(str(error)))
    for number in (-1, -2, 3, -4, -5):
        queue.submit(number)
    assert queue.close(10)
    assert told == ["-1", "-4"]
    assert not caplog.records


def test_a_handler_that_hangs_holds_nobody_up_and_what_is_too_much_is_dropped_and_counted() -> None:
    go, taken, handled, dropped = threading.Event(), threading.Event(), list[int](), list[int]()

    def handle(number: int) -> None:
        taken.set()
        go.wait()
        handled.append(number)

    queue = BackgroundQueue.for_each("test", handle, waiting_max=10, on_drop=dropped.append)
    queue.submit(0)
    assert taken.wait(10)
    for number in range(1, 26):
        queue.submit(number)
    assert queue.health().dropped == 15
    assert dropped == list(range(11, 26))
    assert queue.health().waiting == 11
    assert not queue.flush(0.05)
    go.set()
    assert queue.flush(10)
    assert handled == list(range(11))
    assert queue.close(10)


def test_a_handler_may_submit_and_flush_itself() -> None:
    handled: list[int] = []

    def handle(number: int) -> None:
        handled.append(number)
        if number < 5:
            queue.submit(number + 1)
            assert queue.flush(10)

    queue: BackgroundQueue[int] = BackgroundQueue.for_each("test", handle)
    queue.submit(0)
    for _ in range(6):
        assert queue.flush(10)
    assert handled == [0, 1, 2, 3, 4, 5]
    assert queue.failures == 0
    assert queue.close(10)


def test_a_handler_may_close_it() -> None:
    closed: list[bool] = []

    def handle(_: int) -> None:
        closed.append(queue.close(10))

    queue: BackgroundQueue[int] = BackgroundQueue.for_each("test", handle)
    queue.submit(1)
    assert queue.close(10)
    assert closed == [True]


def test_closing_is_bounded_and_what_was_handled_later_shows() -> None:
    go, handled = threading.Event(), list[int]()

    def handle(number: int) -> None:
        go.wait()
        handled.append(number)

    queue: BackgroundQueue[int] = BackgroundQueue.for_each("test", handle)
    queue.submit(1)
    queue.submit(2)
    assert not queue.close(0.05)
    assert not queue.flush(0.05)
    go.set()
    assert queue.flush(10)
    assert queue.close(10)
    assert handled == [1, 2]


def test_what_is_submitted_after_closing_is_dropped_and_counted() -> None:
    handled: list[int] = []
    queue = BackgroundQueue("test", handled.extend)
    queue.submit(1)
    assert queue.close(10)
    queue.submit(2)
    assert queue.close(10)
    assert handled == [1]
    assert queue.health().dropped == 1


def test_closing_a_queue_that_was_never_used_starts_no_thread() -> None:
    queue: BackgroundQueue[int] = BackgroundQueue("test", print)
    assert queue.close(10)
    assert not queue.health().alive


def test_items_gather_until_their_time_has_come() -> None:
    clock, batches = ManualClock(), list[list[int]]()
    queue: BackgroundQueue[int] = BackgroundQueue("test", batches.append, gather_s=1.0, clock=clock)
    queue.submit(1)
    queue.submit(2)
    time.sleep(0.02)
    queue.submit(3)
    assert not batches
    clock.advance(1.0)
    while queue.waiting:
        time.sleep(0.001)
    assert batches == [[1, 2, 3]]
    assert queue.close(10)


def test_a_flush_does_not_wait_for_gathering_nor_does_closing() -> None:
    handled: list[int] = []
    queue = BackgroundQueue("test", handled.extend, gather_s=3_600.0)
    queue.submit(1)
    assert queue.flush(10)
    queue.submit(2)
    assert queue.close(10)
    assert handled == [1, 2]


def test_many_items_do_not_wait_for_gathering() -> None:
    handled: list[int] = []
    queue = BackgroundQueue("test", handled.extend, gather_s=3_600.0, hurry_at=10)
    for number in range(11):
        queue.submit(number)
    deadline = time.monotonic() + 10
    while len(handled) < 11 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert handled == list(range(11))
    assert queue.close(10)


def test_a_batch_that_failed_is_handed_in_again_where_that_is_wanted() -> None:
    seen: list[list[int]] = []

    def handle(batch: list[int]) -> None:
        seen.append(list(batch))
        if len(seen) < 3:
            raise OSError("planted")

    queue = BackgroundQueue("test", handle, retry_s=0.01)
    queue.submit(1)
    deadline = time.monotonic() + 10
    while queue.handled < 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert seen == [[1]] * 3
    assert queue.health().failures == 2
    assert queue.close(10)


def test_what_fails_to_the_end_is_left_undone_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    def handle(_: list[int]) -> None:
        raise OSError("planted")

    queue = BackgroundQueue("test", handle, retry_s=3_600.0, on_failure=lambda _: None)
    queue.submit(1)
    assert not queue.flush(0.05)
    queue.submit(2)
    assert not queue.close(10)
    assert not queue.health().alive
    assert queue.health().dropped == 2
    assert "test was closed with 2 items that could not be handled" in caplog.text


def test_a_forked_child_begins_with_an_empty_queue_that_works() -> None:
    go, handled = threading.Event(), list[int]()

    def handle(number: int) -> None:
        go.wait(10)
        handled.append(number)

    queue = BackgroundQueue.for_each("test", handle)
    queue.submit(1)
    queue.submit(2)
    child = os.fork()
    if child == 0:
        go.set()
        alive = queue.health().alive
        queue.submit(3)
        os._exit(0 if queue.flush(10) and handled == [3] and not alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert queue.close(10)
    assert handled == [1, 2]


def test_a_normal_exit_of_the_interpreter_flushes_queues_that_feed_one_another() -> None:
    code = """
import time
from ccs_stream.background import BackgroundQueue
second = BackgroundQueue("second", lambda batch: print(*batch, flush=True), gather_s=3_600.0)
def feed(batch):
    time.sleep(0.05)
    for each in batch:
        second.submit(each)
first = BackgroundQueue("first", feed, gather_s=3_600.0)
for number in range(5):
    first.submit(number)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.split() == ["0", "1", "2", "3", "4"]
    assert not found.stderr


def test_the_exit_of_the_interpreter_waits_only_so_long_for_a_handler_that_hangs() -> None:
    code = """
import threading
from ccs_stream import background
background.queue.EXIT_FLUSH_S = 0.2
queue = background.BackgroundQueue("test", lambda _: threading.Event().wait())
queue.submit(1)
task = background.PeriodicTask("test", threading.Event().wait, interval_s=0.01)
task.wake()
"""
    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)


def test_submitting_costs_no_more_than_a_few_appends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    queue: BackgroundQueue[int] = BackgroundQueue("test", lambda _: None, gather_s=3_600.0, waiting_max=1_000_000)
    queue.submit(0)
    begun = time.perf_counter()
    for number in range(100_000):
        queue.submit(number)
    assert time.perf_counter() - begun < 1.0
    assert queue.close(10)


def test_an_interrupt_at_any_point_of_submit_leaves_no_item_asleep() -> None:
    for at in range(1, 60):
        seen: list[int] = []
        queue: BackgroundQueue[int] = BackgroundQueue.for_each("seen", seen.append)
        if at % 2:  # the worker sleeps, or there is none yet
            queue.submit(0)
            assert queue.flush(10)
        waiting_before = queue.handled
        interrupts.interrupted(lambda queue=queue, at=at: queue.submit(at), at)  # type: ignore[misc]
        until("the item was handled", lambda queue=queue: not queue.waiting)  # type: ignore[misc]
        queue.submit(-1)
        assert queue.flush(10)
        assert queue.handled in (waiting_before + 1, waiting_before + 2)
        assert queue.close(10)


def test_what_is_submitted_while_the_queue_is_closed_is_told_of() -> None:
    for _ in range(200):
        dropped: list[int] = []
        handled: list[int] = []
        queue = BackgroundQueue.for_each("race", handled.append, on_drop=dropped.append)
        queue.submit(0)
        closer = threading.Thread(target=queue.close, args=(10,))
        closer.start()
        for number in range(1, 200):
            queue.submit(number)
        closer.join()
        assert sorted(handled + dropped) == list(range(200))
