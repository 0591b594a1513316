"""The coordinator in the caller's process: its health as data, and its time from one clock."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_stream.coordinator.local import SWEEP_INTERVAL_US, LocalCoordinator
from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.commands import Acquire, Command, Join
from ccs_stream.protocol.ids import CommandNumber, Micros, SessionId, artifact_id
from ccs_stream.protocol.settings import SECOND_US
from ccs_stream.testing.clock import ManualClock
from tests.waiting import until

SESSION = SessionId(b"s" * 16)
NEW = CommandNumber(0)


def join(agent: str) -> Command:
    return Join(session_id=SESSION, number=NEW, agent=agent)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def coordinator(clock: ManualClock) -> Iterator[LocalCoordinator]:
    coordinator = LocalCoordinator(MemoryLog(), "w", clock=clock)
    yield coordinator
    coordinator.close()


def test_its_health_says_that_it_decides_and_how_far_it_has_folded(tmp_path: Path) -> None:
    here, there = (LocalCoordinator(SqliteLog(tmp_path / "log.db"), "w") for _ in range(2))
    here.execute(join("a"), CommandCounter())
    health = there.health()
    assert health.lag_records is None  # another process has written
    there.catch_up()
    health = there.health()
    assert (health.leads, health.offers_to_lead, health.connected, health.closed) == (True, True, True, False)
    assert (health.epoch, health.lag_records, health.commands_waiting, health.commands_in_flight) == (0, 0, 0, 0)
    assert health.folded_offset == here.health().folded_offset
    names = ["commit-w", "reads-w", "look-back-w"]
    assert [(worker.name, worker.alive) for worker in health.workers] == [(name, False) for name in names]
    for each in (here, there):
        each.close()
        assert each.health().closed
        assert not each.health().connected
        each.store.close()
        assert each.health().closed


def test_coroutines_are_served_by_one_worker_that_closing_ends(tmp_path: Path) -> None:
    coordinator = LocalCoordinator(SqliteLog(tmp_path / "log.db"), "w")
    counter = CommandCounter()

    async def join_many() -> None:
        await asyncio.gather(*(coordinator.execute_async(join(f"a{number}"), counter) for number in range(50)))

    asyncio.run(join_many())
    until("the worker has counted its batch", lambda: not coordinator.health().workers[0].waiting)
    worker, *readers = coordinator.health().workers
    assert (worker.alive, worker.failures, worker.dropped) == (True, 0, 0)
    assert not any(reader.alive for reader in readers)  # nobody has read
    assert coordinator.state.participants_ever == 50
    coordinator.close()
    assert not any(worker.alive for worker in coordinator.health().workers)
    coordinator.store.close()


def test_commands_that_wait_for_their_turn_are_counted(tmp_path: Path) -> None:
    coordinator = LocalCoordinator(SqliteLog(tmp_path / "log.db"), "w")
    threads = [threading.Thread(target=coordinator.execute, args=(join(name), CommandCounter())) for name in "ab"]
    with coordinator.lock:
        for thread in threads:
            thread.start()
        until("both wait", lambda: coordinator.health().commands_waiting == 2)
    for thread in threads:
        thread.join()
    assert coordinator.health().commands_waiting == 0
    coordinator.close()
    coordinator.store.close()


def test_time_in_the_log_is_the_clocks(coordinator: LocalCoordinator, clock: ManualClock) -> None:
    before = clock.now()
    assert coordinator.execute(join("a"), CommandCounter()).recorded_at == before
    clock.advance(7)
    assert coordinator.execute(join("b"), CommandCounter()).recorded_at == before + 7 * SECOND_US


def test_a_batch_is_followed_by_a_sweep_once_the_interval_is_over(
    coordinator: LocalCoordinator, clock: ManualClock
) -> None:
    counter = CommandCounter()
    coordinator.execute(join("a"), counter)  # and the first sweep, which finds nothing
    artifact = artifact_id("w", (), "k")
    acquire = Acquire(
        session_id=SESSION,
        number=NEW,
        agent="a",
        artifact=artifact,
        scope=(),
        key="k",
        duration_us=Micros(SECOND_US),
    )
    coordinator.execute(acquire, counter)
    clock.advance(2)
    coordinator.execute(join("b"), counter)
    assert coordinator.state.artifacts[artifact].reserved_by  # run out, and not swept yet
    clock.advance(SWEEP_INTERVAL_US / SECOND_US)
    coordinator.execute(join("c"), counter)
    assert not coordinator.state.artifacts[artifact].reserved_by


def test_waiting_ends_when_the_clock_says_so(coordinator: LocalCoordinator, clock: ManualClock) -> None:
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(coordinator.wait(lambda: False, 3_600.0)))
    waiting.start()
    assert not found
    while waiting.is_alive():
        clock.advance(3_600.0)
        waiting.join(0.01)
    assert found == [False]


def test_waiting_ends_when_the_state_has_moved(coordinator: LocalCoordinator) -> None:
    found: list[bool] = []
    waiting = threading.Thread(
        target=lambda: found.append(coordinator.wait(lambda: coordinator.state.participants_ever == 1, 3_600.0))
    )
    waiting.start()
    coordinator.execute(join("a"), CommandCounter())
    waiting.join(10)
    assert found == [True]
