"""A wrong clock harms only itself: time on the log goes on at the pace of a clock that nobody sets."""

import logging
import random
import time
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.coordinator.log_time import AHEAD_MAX_S, LogTime
from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.commands import Acquire, Join
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandRefused
from ccs_stream.protocol.ids import CommandNumber, Micros, SessionId, artifact_id
from ccs_stream.protocol.settings import SECOND_US
from ccs_stream.testing.clock import ManualClock

YEARS_US = 10 * 365 * 86_400 * SECOND_US
NEW = CommandNumber(0)


class SettableClock(ManualClock):
    """A clock whose wall time may be set, as an administrator sets it."""

    offset_us = 0

    def now(self) -> Micros:
        return Micros(super().now() + self.offset_us)


def join(coordinator: LocalCoordinator, session: bytes, agent: str) -> Micros:
    """When the coordinator has recorded it."""
    command = Join(session_id=SessionId(session * 16), number=NEW, agent=agent)
    return coordinator.execute(command, CommandCounter()).recorded_at


def acquire(coordinator: LocalCoordinator, session: bytes, agent: str, duration_s: float, number: int) -> bool:
    """Whether the reservation was got."""
    command = Acquire(
        session_id=SessionId(session * 16),
        number=CommandNumber(number),
        agent=agent,
        artifact=artifact_id("w", (), "k"),
        scope=(),
        key="k",
        duration_us=Micros(round(duration_s * SECOND_US)),
    )
    return coordinator.execute(command).refusal is None


def test_a_wall_clock_that_jumps_ahead_is_not_followed_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = SettableClock()
    coordinator = LocalCoordinator(MemoryLog(), "w", clock=clock)
    before = join(coordinator, b"1", "a")
    clock.offset_us = YEARS_US
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            clock.advance(1)
            assert join(coordinator, b"1", f"b{number}") == before + (number + 1) * SECOND_US
    assert [record.message.count("3650 days ahead") for record in caplog.records] == [1]
    assert coordinator.health().clock_ahead_s == pytest.approx(YEARS_US / SECOND_US)
    clock.offset_us = 0
    clock.advance(1)
    assert join(coordinator, b"1", "c") == clock.now()
    assert coordinator.health().clock_ahead_s == 0
    coordinator.close()


def test_a_small_correction_is_followed_and_so_is_idle_time() -> None:
    clock = SettableClock()
    coordinator = LocalCoordinator(MemoryLog(), "w", clock=clock)
    for offset_s in (30, 80, 60, 100):
        clock.offset_us = offset_s * SECOND_US
        clock.advance(3)
        assert join(coordinator, b"1", f"a{offset_s}") == max(clock.now(), coordinator.state.recorded_at)
    clock.advance(86_400)
    assert join(coordinator, b"1", "z") == clock.now()
    coordinator.close()


def test_time_goes_on_for_all_when_the_log_is_far_ahead_or_a_clock_is_set_back() -> None:
    log, clock = MemoryLog(), SettableClock()
    ahead = LocalCoordinator(log, "w", clock=ManualClock(clock.now() + YEARS_US))
    at = join(ahead, b"1", "ahead")
    ahead.close()
    here = LocalCoordinator(log, "w", clock=clock)
    there = LocalCoordinator(log, "w", clock=clock)
    for coordinator, session in ((here, b"2"), (there, b"3")):
        join(coordinator, session, "x")
    assert acquire(here, b"2", "x", 0.5, 100)
    assert not acquire(there, b"3", "x", 0.5, 100)
    clock.offset_us = -3_600 * SECOND_US
    clock.advance(0.6)
    assert there.now() - at == pytest.approx(0.6 * SECOND_US, abs=1_000)
    assert acquire(there, b"3", "x", 0.5, 101)


def test_a_process_whose_clock_is_ahead_from_its_start_is_told_by_the_file(tmp_path: Path) -> None:
    first = SqliteLog(tmp_path / "log.db")
    second = SqliteLog(tmp_path / "log.db")
    right = LocalCoordinator(first, "w")
    wrong = LocalCoordinator(second, "w", clock=ManualClock(time.time_ns() // 1_000 + YEARS_US))
    for coordinator in (right, wrong):
        assert abs(join(coordinator, bytes([coordinator is right]), "a") - time.time_ns() // 1_000) < 10 * SECOND_US
    for coordinator in (right, wrong):
        coordinator.close()
        coordinator.store.close()


def test_the_time_of_a_log_never_goes_back_and_never_runs_away() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(200):
        clock = SettableClock()
        state = Directory()
        log_time = LogTime(clock, "the log", state, expected=None)
        began, passed = clock.now(), 0.0
        state.recorded_at = last = log_time.now()
        for _ in range(50):
            jump_s = chance.choice((0, 0, 1, -1, 59, -59, 61, 3_600, -3_600, YEARS_US // SECOND_US))
            clock.offset_us += jump_s * SECOND_US
            duration_s = chance.choice((0, 0.001, 1, 100))
            clock.advance(duration_s)
            passed += duration_s
            now = log_time.now()
            state.recorded_at = now
            assert now >= last, f"seed {seed}"
            assert now <= began + (passed + 50 * AHEAD_MAX_S) * SECOND_US, f"seed {seed}"
            last = now


def test_waiting_for_a_reservation_writes_few_refusals() -> None:
    with ccs_stream.connect(workspace="w") as workspace:
        holder, waiter = workspace.agent("holder"), workspace.agent("waiter")
        holder.acquire("k", limit_s=0.5).__enter__()
        with waiter.acquire("k", limit_s=5, wait_s=10):
            pass
        entries = list(ShardReader(workspace.coordinator.store, "w").read())
    assert sum(type(event) is CommandRefused for entry in entries for event in entry.events) <= 2
