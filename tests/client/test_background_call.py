"""Telling somebody aside: whoever gives never waits, and never hears of an error."""

import os
import threading

import pytest

from ccs_stream.client.observers.background_call import BackgroundCall


def test_all_that_is_given_is_told_in_order() -> None:
    told: list[int] = []
    aside = BackgroundCall("a listener", told.append)
    for number in range(1_000):
        aside.give(number)
    assert aside.settle(10)
    assert told == list(range(1_000))
    assert aside.close(10)


def test_a_listener_that_raises_is_counted_and_told_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def listener(number: int) -> None:
        if number % 2:
            raise ZeroDivisionError("planted")
        told.append(number)

    aside = BackgroundCall("a listener", listener)
    for number in range(10):
        aside.give(number)
    assert aside.close(10)
    assert told == [0, 2, 4, 6, 8]
    assert aside.failed == 5
    assert [record.message for record in caplog.records if "a listener raised" in record.message] == [
        "a listener raised; what it is told of is not affected. Later ones are counted"
    ]


def test_a_listener_that_hangs_holds_nobody_up_and_what_is_too_much_is_dropped_and_counted() -> None:
    go, told = threading.Event(), list[int]()

    def listener(number: int) -> None:
        go.wait()
        told.append(number)

    aside = BackgroundCall("a listener", listener, waiting_max=10)
    aside.give(0)
    while aside._queue.qsize():  # until the listener has it
        pass
    for number in range(1, 26):
        aside.give(number)
    assert aside.dropped == 15
    assert not aside.settle(0.05)
    go.set()
    assert aside.settle(10)
    assert told == list(range(11))


def test_a_listener_may_give_and_settle_itself() -> None:
    told: list[int] = []

    def listener(number: int) -> None:
        told.append(number)
        if number < 5:
            aside.give(number + 1)
            assert aside.settle(10)

    aside: BackgroundCall[int] = BackgroundCall("a listener", listener)
    aside.give(0)
    for _ in range(6):
        assert aside.settle(10)
    assert told == [0, 1, 2, 3, 4, 5]


def test_once_closed_it_is_settled_when_all_was_told() -> None:
    go, told = threading.Event(), list[int]()

    def listener(number: int) -> None:
        go.wait()
        told.append(number)

    aside: BackgroundCall[int] = BackgroundCall("a listener", listener)
    aside.give(1)
    aside.give(2)
    assert not aside.close(0.05)
    assert not aside.settle(0.05)
    go.set()
    assert aside.settle(10)
    assert told == [1, 2]


def test_a_forked_child_tells_what_it_is_given_itself() -> None:
    told: list[int] = []
    aside = BackgroundCall("a listener", told.append)
    aside.give(1)
    assert aside.settle(10)
    child = os.fork()
    if child == 0:
        aside.give(2)
        os._exit(0 if aside.settle(10) and told == [1, 2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert told == [1]
