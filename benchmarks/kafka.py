"""A log on a real broker, next to what the broker itself takes: latency of writes, hits, visibility in other processes.

Guarantees: the floor is measured on the same broker, with messages of the same size, in turns; the broker is real,
found or started as the tests do. Does not: include a network; everything is on this machine, and shares its cores with
the broker.
"""

import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import ccs_stream
from benchmarks.kafka_floor import (
    BODY,
    Floor,
    compare,
    coordinator_process,
    in_turns,
    new_log,
    on_broker,
    quantile_of,
    quantiles,
)
from benchmarks.report import Row, at_most, duration
from benchmarks.run import Run
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import ArtifactId

PAUSE_S: Final = 0.002
"""Pause between writes whose visibility is timed, and between those of their floor: idle threads take longer to wake.
"""


@on_broker
def rows(run: Run, servers: str) -> Iterator[Row]:
    """Writes, hits, visibility elsewhere."""
    yield from _latency(run, servers)
    yield _hit(run, servers)
    yield from _visibility(run, servers)


def _latency(run: Run, servers: str) -> Iterator[Row]:
    url = new_log(servers)
    turns, count = run.count(9, 2), run.count(300, 20)
    numbers = itertools.count()
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("a")

        def write() -> None:
            number = next(numbers)
            agent.write(f"k{number % 50}", {"n": number, "body": BODY})

        write()
        floor = Floor(servers)
        run.now("acknowledged writes, coordinator in this process")
        taken = in_turns({"ours": write, "floor": floor.one}, turns, count)
        what = "acknowledged write, coordinator in the same process"
        yield compare(what, taken["ours"], taken["floor"], 0.5, 1.5)
        yield compare(what, taken["ours"], taken["floor"], 0.99, 2)
    with coordinator_process(url), ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace:
        agent = workspace.agent("b")
        write()
        run.now("acknowledged writes, coordinator in another process")
        relayed = Floor(servers, moved_on=True)
        taken = in_turns({"ours": write, "floor": floor.one, "relayed": relayed.one}, turns, count)
        what, against = "acknowledged write through a remote coordinator", "produce, moved on by a process, read back"
        yield compare(what, taken["ours"], taken["floor"], 0.5, 2.5)
        yield compare("the same", taken["ours"], taken["relayed"], 0.5, None, against)
        relayed.close()
    floor.close()


def _hit(run: Run, servers: str) -> Row:
    run.now("cache hits")
    url, turns, count = new_log(servers), run.count(9, 2), run.count(3_000, 50)
    with (
        ccs_stream.connect(url, workspace="w") as here,
        ccs_stream.connect(f"sqlite:///{run.folder}/hit.db", workspace="w") as there,
    ):
        agents = {"kafka": here.agent("a"), "sqlite": there.agent("a")}
        for agent in agents.values():
            agent.write("k", {"n": 1, "body": BODY})
        calls: dict[str, Callable[[], object]] = {
            "kafka": lambda: agents["kafka"].read("k"),
            "sqlite": lambda: agents["sqlite"].read("k"),
        }
        taken = in_turns(calls, turns, count)
    one = statistics.median(map(statistics.median, taken["kafka"]))
    other = statistics.median(map(statistics.median, taken["sqlite"]))
    return Row(
        "cache hit, own_writes",
        duration(one),
        "the same on SQLite (latest)",
        duration(other),
        one / other,
        "x the time",
        at_most(1.05),
    )


def _visibility(run: Run, servers: str) -> Iterator[Row]:
    run.now("visibility")
    url, count = new_log(servers), run.count(1_000, 30)
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("a")
        agent.write("k", 0)
        command = [sys.executable, "-m", "benchmarks.children", "see", f"{url}&coordinator=remote", str(count)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if child.stdout is None or child.stdout.readline().strip() != "ready":
            raise AssertionError("the other host does not follow")
        began: list[int] = []
        for number in range(1, count + 1):
            began.append(time.time_ns())
            agent.write("k", number)
            time.sleep(PAUSE_S)
        seen = json.loads(child.communicate()[0])
    floor = Floor(servers)
    base = quantiles(floor.one, count, pause_s=PAUSE_S)
    floor.close()
    taken = [(at - start) / 1e9 for at, start in zip(seen, began, strict=True)]
    what = "a write becomes visible to another process's cache"
    yield compare(what, [taken], [base], 0.5, 2, "produce and read back, at the same pace")
    late = quantile_of(taken, 0.99)
    yield Row(f"{what}, p99", duration(late), "25 ms", duration(0.025), late / 0.025, "x the time", at_most(1))


def see(url: str, count: int) -> None:
    """Print when each of so many versions was folded here, as another host would."""
    with ccs_stream.connect(url, workspace="w") as workspace:
        artifact = workspace.engine.address((), "k")
        state = workspace.engine.state
        print("ready", flush=True)
        seen: list[int] = []
        for number in range(count):
            version = number + 2
            if not workspace.coordinator.wait(functools.partial(_has, state, artifact, version), 30):
                raise AssertionError("nothing comes")
            seen.append(time.time_ns())
        print(json.dumps(seen))


def _has(state: Directory, artifact: ArtifactId, version: int) -> bool:
    return state.artifacts[artifact].version >= version
