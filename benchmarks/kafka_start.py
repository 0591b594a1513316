"""Taking over a log on Kafka: from a leader that stops, from nothing, from a snapshot; memory of a coordinator.

Guarantees: coordinators are processes as operators run them. Does not: drop anything from the broker's page cache.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import ccs_stream
from benchmarks.history import WORKSPACE, append_history
from benchmarks.kafka_floor import coordinator_process, new_log, on_broker
from benchmarks.memory import resident
from benchmarks.report import Row, at_least, at_most, duration, rate, size
from benchmarks.run import Run
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.records import DecisionRecord


@on_broker
def rows(run: Run, servers: str) -> Iterator[Row]:
    """Handing over, starting, memory."""
    yield _hand_over(run, servers)
    yield from _cold_start(run, servers)
    yield _memory(run, servers)


def _gap(url: str, leader: subprocess.Popen[str], workspace: ccs_stream.Workspace) -> float:
    """The longest write while `leader` is stopped and another coordinator takes over."""
    agent = workspace.agent("a")
    agent.write("k", 0)
    command = [sys.executable, "-m", "ccs_stream.cli", "coordinator", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
        if second.stderr is None:
            raise AssertionError("no stderr")
        while "offering to lead" not in second.stderr.readline():
            pass
        time.sleep(2)
        leader.terminate()
        at, longest = time.perf_counter(), 0.0
        until = at + 4
        while at < until:
            agent.write("k", 1)
            now = time.perf_counter()
            at, longest = now, max(longest, now - at)
        second.terminate()
        second.communicate()
    return longest


def _hand_over(run: Run, servers: str) -> Row:
    run.now("handing over")
    gaps: list[float] = []
    for _ in range(run.count(5, 1)):
        url = new_log(servers)
        remote = f"{url}&coordinator=remote"
        with coordinator_process(url) as first, ccs_stream.connect(remote, workspace="w") as workspace:
            gaps.append(_gap(url, first, workspace))
    gap = statistics.median(gaps)
    return Row(
        "longest write while a leader hands over, p50",
        duration(gap),
        "a second",
        duration(1),
        gap,
        "x the time",
        at_most(1),
    )


def _cold_start(run: Run, servers: str) -> Iterator[Row]:
    events = run.count(1_000_000, 5_000)
    run.now(f"writing a log of {events:,} events")
    url = new_log(servers)
    store = KafkaLog(KafkaSettings.parse(url))
    state, reader = append_history(store, events, artifacts=1_000, batch=2_000)
    run.now("starting from zero")
    bare = _timed(lambda: _bare(store))
    connect = f"{url}&coordinator=remote"
    cold = _timed(lambda: ccs_stream.connect(connect, workspace=WORKSPACE).close())
    what = f"following a log of {events:,} events from zero"
    yield Row(
        what,
        rate(events / cold, "events"),
        "bare consume + decode + fold",
        rate(events / bare, "events"),
        bare / cold,
        "of its rate",
        at_least(0.6),
    )
    run.now("starting at a snapshot")
    position = reader.position(WORKSPACE)
    store.save_snapshot(WORKSPACE, take_snapshot(state, position, cursor=reader.cursor, offset_of=lambda _: None))
    quick = _timed(lambda: ccs_stream.connect(connect, workspace=WORKSPACE).close())
    store.close()
    yield Row(
        "the same at a snapshot", duration(quick), "two seconds", duration(2), quick / 2, "x the time", at_most(1)
    )


def _bare(store: KafkaLog) -> None:
    state = Directory()
    for stored in store.read(WORKSPACE, -1, bodies=False):
        record = stored.record
        if type(record) is DecisionRecord:
            fold(
                state,
                [DEFAULT_CODEC.decode_event(each) for each in record.events],
                recorded_at=record.recorded_at,
                session_id=record.session_id,
                number=record.number,
                kind=record.command_kind,
            )


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _memory(run: Run, servers: str) -> Row:
    run.now("memory of a coordinator")
    url, count = new_log(servers), run.count(100_000, 1_000)
    command = [sys.executable, "-m", "benchmarks.children", "coordinate", url, str(count)]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    meant = count * 1_000
    return Row(
        f"coordinator with {count:,} artifacts of 1 KB",
        size(grown),
        "their bytes",
        size(meant),
        grown / meant,
        "x their bytes",
        at_most(3),
    )


def coordinate(url: str, count: int) -> int:
    """Bytes by which a coordinator's process grows with so many artifacts written by a client elsewhere."""
    service = CoordinatorService(KafkaLog(KafkaSettings.parse(url)))
    service.start()
    writer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.children", "fill", f"{url}&coordinator=remote", str(count)]
    )
    before = resident()
    if writer.wait():
        raise AssertionError("the writer failed")
    grown = resident() - before
    service.close()
    return grown


def fill(url: str, count: int) -> None:
    """Write so many artifacts of 1 KB."""

    async def write_all() -> None:
        with ccs_stream.connect(url, workspace="w") as workspace:
            agent = workspace.agent("a")
            for begin in range(0, count, 200):
                await asyncio.gather(
                    *(
                        agent.awrite(f"k{number}", {"n": number, "body": "x" * 960})
                        for number in range(begin, min(begin + 200, count))
                    )
                )

    asyncio.run(write_all())
