"""A task that is repeated: its rounds, its pauses, its end."""

import itertools
import os
import threading
import time
from collections.abc import Callable

import pytest

from ccs_stream.background import UNTIL_WOKEN, ForkGuard, PeriodicTask, run_in_background, when_forked
from ccs_stream.protocol.errors import ForkedProcess
from ccs_stream.testing.clock import ManualClock


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_first_round_comes_after_the_interval_and_then_one_in_each() -> None:
    clock, rounds = ManualClock(), list[int]()
    task = PeriodicTask("test", lambda: rounds.append(1), interval_s=10.0, clock=clock)
    assert not task.alive
    task.start()
    task.start()
    assert task.health().alive
    time.sleep(0.02)
    assert not rounds
    for _ in range(3):
        before = len(rounds)
        clock.advance(10.0)
        until(lambda before=before: len(rounds) > before)  # type: ignore[misc]
        time.sleep(0.005)
    assert len(rounds) == 3
    assert task.close(10)
    assert not task.health().alive


def test_it_can_be_woken_for_a_round_at_once() -> None:
    rounds: list[str] = []
    task = PeriodicTask("of-a-test", lambda: rounds.append(threading.current_thread().name), interval_s=3_600.0)
    task.wake()
    until(lambda: len(rounds) == 1)
    task.wake()
    until(lambda: len(rounds) == 2)
    assert task.close(10)
    assert set(rounds) == {"ccs-of-a-test"}


def test_a_round_says_how_long_the_pause_after_it_is() -> None:
    clock, rounds = ManualClock(), list[int]()

    def work() -> float:
        rounds.append(1)
        return 1.0

    task = PeriodicTask("test", work, interval_s=3_600.0, clock=clock)
    task.wake()
    until(lambda: task.health().handled == 1)
    time.sleep(0.005)
    clock.advance(1.0)
    until(lambda: task.health().handled == 2)
    assert task.close(10)


def test_a_task_without_anything_to_do_has_no_thread_until_it_is_woken() -> None:
    rounds: list[int] = []

    def work() -> float:
        rounds.append(1)
        return UNTIL_WOKEN

    task = PeriodicTask("test", work, interval_s=0.001)
    for _ in range(3):
        before = len(rounds)
        task.wake()
        until(lambda before=before: len(rounds) > before and not task.alive)  # type: ignore[misc]
    task.start()
    until(lambda: len(rounds) == 4 and not task.alive)
    assert task.close(10)


def test_after_an_error_the_pause_grows_and_the_first_of_a_row_is_told() -> None:
    clock, rounds, told = ManualClock(), list[float](), list[str]()

    def work() -> None:
        rounds.append(clock.monotonic())
        if len(rounds) != 4:
            raise OSError(len(rounds))

    task = PeriodicTask(
        "test",
        work,
        interval_s=100.0,
        retry_s=1.0,
        retry_max_s=3.0,
        on_failure=lambda error: told.append(str(error)),
        clock=clock,
    )
    task.wake()
    while len(rounds) < 6:
        clock.advance(0.5)
        time.sleep(0.01)
    assert task.close(10)
    pauses = [later - earlier for earlier, later in itertools.pairwise(rounds)]
    assert pauses == pytest.approx([1.0, 2.0, 3.0, 100.0, 1.0], abs=1.0)
    assert told == ["1", "5"]
    assert task.health().failures == 5
    assert task.health().handled == 1


def test_not_even_an_exit_raised_in_a_round_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[int] = []

    def work() -> None:
        rounds.append(1)
        raise SystemExit(3)

    task = PeriodicTask("test", work, interval_s=0.001)
    task.start()
    until(lambda: len(rounds) >= 3)
    assert task.close(10)
    assert [record.message for record in caplog.records] == ["test failed, and goes on; later failures are counted"]
    assert task.health().last_failure == "SystemExit: 3"


def test_closing_is_bounded_may_be_done_twice_and_by_the_round_itself() -> None:
    go, begun, closed = threading.Event(), threading.Event(), list[bool]()

    def work() -> None:
        begun.set()
        go.wait()
        closed.append(task.close(10))

    task = PeriodicTask("test", work, interval_s=0.001)
    task.start()
    assert begun.wait(10)
    assert not task.close(0.05)
    go.set()
    assert task.close(10)
    assert closed == [True]
    task.wake()
    task.start()
    assert not task.alive


def test_a_task_that_was_never_started_can_be_closed_and_is_not_started_then() -> None:
    task = PeriodicTask("test", lambda: None, interval_s=0.001)
    assert task.close(10)
    task.start()
    assert not task.alive


def test_a_forked_child_leaves_it_to_its_parent() -> None:
    rounds: list[int] = []
    task = PeriodicTask("test", lambda: rounds.append(1), interval_s=0.001)
    task.start()
    until(lambda: len(rounds) > 0)
    child = os.fork()
    if child == 0:
        before = len(rounds)
        task.wake()
        time.sleep(0.02)
        os._exit(0 if task.closed and not task.alive and len(rounds) == before and task.close(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    seen = len(rounds)
    until(lambda: len(rounds) > seen)
    assert task.close(10)


def test_a_guard_raises_in_a_forked_child_and_callbacks_are_called_there() -> None:
    guard, called = ForkGuard("the thing"), list[int]()
    when_forked(lambda: called.append(1))
    guard.check()
    child = os.fork()
    if child == 0:
        try:
            guard.check()
        except ForkedProcess as error:
            os._exit(0 if guard.forked and called == [1] and "the thing was opened before" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not guard.forked
    assert not called


def test_a_job_is_done_once_and_an_error_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    run_in_background("job", lambda: done.append(threading.current_thread().name))
    until(lambda: len(done) == 1)
    assert done == ["ccs-job"]

    def fail() -> None:
        raise ZeroDivisionError("planted")

    run_in_background("another job", fail)
    until(lambda: "another job failed" in caplog.text)


def test_a_pause_longer_than_the_system_can_wait_is_none_the_less_a_pause() -> None:
    rounds: list[int] = []
    task = PeriodicTask("test", lambda: rounds.append(1), interval_s=1e300)
    task.start()
    time.sleep(0.02)
    assert task.alive
    assert task.failures == 0
    assert not rounds
    assert task.close(10)


def test_a_task_that_is_started_during_its_last_round_makes_another_one() -> None:
    begun, go, rounds = threading.Event(), threading.Event(), list[int]()

    def work() -> float:
        rounds.append(1)
        begun.set()
        go.wait(10)
        return UNTIL_WOKEN

    task = PeriodicTask("test", work, interval_s=0.001)
    task.wake()
    assert begun.wait(10)
    task.start()
    go.set()
    until(lambda: len(rounds) == 2 and not task.alive)
    assert task.close(10)
