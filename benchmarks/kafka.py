"""A log on a real broker, next to what the broker itself takes: produce, and read back by another client.

Guarantees: the floor is confluent-kafka alone, on the same broker, with messages of the same size, in turns with ours;
the broker is a real one, found or started as the tests do. Does not: say what a network adds; everything is on this
machine, and shares its cores with the broker.
"""

import asyncio
import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

import ccs_stream
from benchmarks.history import WORKSPACE, append_history
from benchmarks.report import Row, at_least, at_most, duration, rate, size
from benchmarks.run import Run
from ccs_stream.coordinator.batch import plan
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head, write_parts
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog, stored_of
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import ArtifactId, CommandNumber, Hash, Micros, SessionId, artifact_id
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS
from ccs_stream.testing.broker import NoBroker, start_broker

AGENTS: Final = 64
BODY: Final = "x" * 280
"""With its key and quotes a value of 300 bytes."""
RECORD_BYTES: Final = 640
"""What a decision with one such write takes as a message."""


def rows(run: Run) -> Iterator[Row]:
    """Latency, throughput, visibility, taking over, starting, memory."""
    try:
        broker = start_broker()
    except NoBroker as error:
        sys.stderr.write(f"THE KAFKA BENCHMARKS DID NOT RUN: {error}\n")
        return
    with broker:
        servers = broker.bootstrap_servers
        yield from _latency(run, servers)
        yield from _throughput(run, servers)
        yield _hit(run, servers)
        yield from _visibility(run, servers)
        yield _hand_over(run, servers)
        yield from _cold_start(run, servers)
        yield _memory(run, servers)


def _log(servers: str, partitions: int = 1) -> str:
    """The URL of a new log."""
    url = f"kafka://{servers}?prefix=bench-{uuid.uuid4().hex[:12]}"
    topics.create(Clients(KafkaSettings.parse(url)), partitions=partitions)
    return url


class Floor:
    """A message produced, acknowledged by all in-sync replicas, and read back by another client."""

    def __init__(self, servers: str, url: str) -> None:
        self._topic = KafkaSettings.parse(url).prefix + ".deliveries.v1"
        self._producer = Producer(
            {"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0}
        )
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "floor", "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(self._topic, 0, 0)])
        self._number = 0
        self.round_trip([b"warm"])

    def round_trip(self, messages: list[bytes]) -> list[Any]:
        """Produce, wait until all were read back; the messages read."""
        for each in messages:
            self._producer.produce(self._topic, each, partition=0)
        self._producer.poll(0)
        read: list[Any] = []
        while len(read) < len(messages):
            first = self._consumer.poll(5.0)
            if first is None:
                raise AssertionError("the broker does not answer")
            read.append(first)
            if len(read) < len(messages):
                read.extend(self._consumer.consume(len(messages) - len(read), 0))
        return read

    def one(self) -> None:
        """One message of the size of a decision."""
        self._number += 1
        self.round_trip([b"%08d" % self._number + b"x" * (RECORD_BYTES - 8)])

    def close(self) -> None:
        """Let go."""
        self._consumer.close()


def _quantiles(call: Callable[[], object], count: int) -> list[float]:
    taken: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def _p(taken: list[float], quantile: float) -> float:
    ordered = sorted(taken)
    return ordered[min(int(len(ordered) * quantile), len(ordered) - 1)]


def _in_turns(calls: dict[str, Callable[[], object]], turns: int, count: int) -> dict[str, list[list[float]]]:
    taken: dict[str, list[list[float]]] = {name: [] for name in calls}
    for call in calls.values():
        _quantiles(call, max(count // 10, 5))
    for _ in range(turns):
        for name, call in calls.items():
            taken[name].append(_quantiles(call, count))
    return taken


def _compare(what: str, ours: list[list[float]], floor: list[list[float]], quantile: float, bound: float | None) -> Row:
    """The median, over the turns, of a quantile's ratio."""
    ratio = statistics.median(_p(one, quantile) / _p(other, quantile) for one, other in zip(ours, floor, strict=True))
    mine = statistics.median(_p(each, quantile) for each in ours)
    theirs = statistics.median(_p(each, quantile) for each in floor)
    label = f"{what}, p{round(quantile * 100)}"
    target = None if bound is None else at_most(bound)
    return Row(label, duration(mine), "produce and read back", duration(theirs), ratio, "x the time", target)


def _latency(run: Run, servers: str) -> Iterator[Row]:
    url = _log(servers)
    turns, count = run.count(9, 2), run.count(300, 20)
    numbers = itertools.count()
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("a")

        def write() -> None:
            number = next(numbers)
            agent.write(f"k{number % 50}", {"n": number, "body": BODY})

        write()
        floor = Floor(servers, url)
        run.now("acknowledged writes, coordinator in this process")
        taken = _in_turns({"ours": write, "floor": floor.one}, turns, count)
        what = "acknowledged write, coordinator in the same process"
        yield _compare(what, taken["ours"], taken["floor"], 0.5, 1.5)
        yield _compare(what, taken["ours"], taken["floor"], 0.99, 2)
    with _coordinator(url), ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace:
        agent = workspace.agent("b")
        write()
        run.now("acknowledged writes, coordinator in another process")
        taken = _in_turns({"ours": write, "floor": floor.one}, turns, count)
        yield _compare("acknowledged write through a remote coordinator", taken["ours"], taken["floor"], 0.5, 2.5)
    floor.close()


@contextlib.contextmanager
def _coordinator(url: str) -> Iterator[subprocess.Popen[str]]:
    """`ccs-stream coordinator` in a process of its own, ready."""
    command = [sys.executable, "-m", "ccs_stream.cli", "coordinator", url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if process.stderr is None:
            raise AssertionError("no stderr")
        health = process.stderr.readline().rpartition("health at ")[2].strip()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(health):
                break
            time.sleep(0.05)
        _until_led(health.removesuffix("/readyz") + "/status")
        yield process
    finally:
        process.terminate()
        process.communicate()


def _until_led(status: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(status) as answer:
            if all(each["role"] == "leading" for each in json.load(answer)["partitions"]):
                return
        time.sleep(0.02)
    raise AssertionError("nobody leads")


async def _gathered(workspaces: list[ccs_stream.Workspace], agents: int, writes: int) -> float:
    """Writes a second of so many agents in each workspace, at once."""

    async def write(workspace: ccs_stream.Workspace, number: int) -> None:
        agent = workspace.agent(f"agent-{number}")
        for each in range(writes):
            await agent.awrite(f"k{number}", {"n": each, "body": BODY})

    for workspace in workspaces:
        await asyncio.gather(*(workspace.agent(f"agent-{number}").awrite("k", 0) for number in range(agents)))
    began = time.perf_counter()
    await asyncio.gather(*(write(workspace, number) for workspace in workspaces for number in range(agents)))
    return len(workspaces) * agents * writes / (time.perf_counter() - began)


def _throughput(run: Run, servers: str) -> Iterator[Row]:
    run.now("throughput")
    url, turns, writes = _log(servers), run.count(5, 1), run.count(150, 10)
    ours: list[float] = []
    bare: list[float] = []
    with ccs_stream.connect(url, workspace="w") as workspace:
        loop = _BareLoop(servers, url)
        for _ in range(turns):
            bare.append(loop.rate(AGENTS * writes))
            ours.append(asyncio.run(_gathered([workspace], AGENTS, writes)))
        loop.close()
    what = f"writes of {AGENTS} agents, 300 bytes, one partition"
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    one = statistics.median(ours)
    against = "bare loop: encode, produce, read back, decode"
    yield Row(
        what, rate(one, "writes"), against, rate(statistics.median(bare), "writes"), ratio, "of its rate", at_least(0.6)
    )
    yield Row(
        "the same", rate(one, "writes"), "8,000 writes/s", rate(8_000, "writes"), one / 8_000, "of that", at_least(1)
    )
    yield _partitions(run, servers)


def _partitions(run: Run, servers: str) -> Row:
    """One workspace against four on as many partitions, coordinated by another process."""
    run.now("several partitions")
    url, turns, writes = _log(servers, 4), run.count(3, 1), run.count(60, 5)
    log = KafkaLog(KafkaSettings.parse(url))
    names = {log.partition(name): name for name in (f"w{number}" for number in range(200))}
    log.close()
    one: list[float] = []
    several: list[float] = []
    with _coordinator(url), contextlib.ExitStack() as opened:
        remote = f"{url}&coordinator=remote"
        workspaces = [opened.enter_context(ccs_stream.connect(remote, workspace=name)) for name in names.values()]
        for _ in range(turns):
            one.append(asyncio.run(_gathered(workspaces[:1], AGENTS, writes)))
            several.append(asyncio.run(_gathered(workspaces, AGENTS // 4, writes)))
    return Row(
        "4 workspaces on 4 partitions, 16 agents each, a coordinator elsewhere",
        rate(statistics.median(several), "writes"),
        "one workspace, 64 agents",
        rate(statistics.median(one), "writes"),
        statistics.median(these / that for these, that in zip(several, one, strict=True)),
        "of its rate",
        at_least(1),
    )


class _BareLoop:
    """The least that decides nothing: encode a batch of decisions, produce, read all back, decode. Stop and wait."""

    def __init__(self, servers: str, url: str) -> None:
        self._floor = Floor(servers, url)
        self._state, self._cursor = Directory(), Cursor()
        session = SessionId(b"benchmark-agents")
        opening: list[Command] = [
            Open(session_id=session, number=CommandNumber(0), settings=DEFAULT_SETTINGS),
            Join(session_id=session, number=CommandNumber(1), agent="a"),
        ]
        for planned in plan(self._state, self._cursor, "w", opening, Micros(1)):
            if planned.record is not None:
                fold(
                    self._state,
                    planned.decision.events,
                    recorded_at=Micros(1),
                    session_id=session,
                    number=planned.record.number,
                    kind=planned.record.command_kind,
                )
        body = json.dumps({"n": 1, "body": BODY}).encode()
        content = Content(
            content_type="application/json",
            content_encoding="",
            content_hash=Hash(bytes(32)),
            size=len(body),
            body=body,
        )
        change = Write(artifact=artifact_id("w", (), "k"), scope=(), key="k", content=content)
        command = Commit(session_id=session, number=CommandNumber(2), agent="a", changes=(change,))
        (decided,) = plan(self._state, self._cursor, "w", [command], Micros(2))
        if decided.record is None:
            raise AssertionError("the write was not decided")
        self._record, self._events, self._contents = decided.record, decided.decision.events, (body,)

    def rate(self, count: int) -> float:
        """Decisions a second."""
        record = self._record
        began = time.perf_counter()
        for _ in range(count // AGENTS):
            messages: list[bytes] = []
            for _ in range(AGENTS):
                record.events = tuple(DEFAULT_CODEC.encode_event(event) for event in self._events)
                head = encode_head(record)
                chain_hash(head)
                messages.append(head + write_parts(self._contents))
            for message in self._floor.round_trip(messages):
                stored = stored_of(message)
                if type(stored.record) is not DecisionRecord:
                    raise AssertionError("what came back is no decision")
                for event in stored.record.events:
                    DEFAULT_CODEC.decode_event(event)
        return count / (time.perf_counter() - began)

    def close(self) -> None:
        """Let go."""
        self._floor.close()


def _hit(run: Run, servers: str) -> Row:
    run.now("cache hits")
    url, turns, count = _log(servers), run.count(9, 2), run.count(3_000, 50)
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
        taken = _in_turns(calls, turns, count)
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
    url, count = _log(servers), run.count(1_000, 30)
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
            time.sleep(0.002)
        seen = json.loads(child.communicate()[0])
    floor = Floor(servers, url)
    base = _quantiles(floor.one, count)
    floor.close()
    taken = [(at - start) / 1e9 for at, start in zip(seen, began, strict=True)]
    what = "a write becomes visible to another process's cache"
    yield _compare(what, [taken], [base], 0.5, 2)
    late = _p(taken, 0.99)
    yield Row(f"{what}, p99", duration(late), "25 ms", duration(0.025), late / 0.025, "x the time", at_most(1))


def see(url: str, count: int) -> None:
    """Print when each of so many versions was folded here, as another host does."""
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
        url = _log(servers)
        remote = f"{url}&coordinator=remote"
        with _coordinator(url) as first, ccs_stream.connect(remote, workspace="w") as workspace:
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
    url = _log(servers)
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
    url, count = _log(servers), run.count(100_000, 1_000)
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
    from benchmarks.memory import resident  # noqa: PLC0415
    from ccs_stream.coordinator.service import CoordinatorService  # noqa: PLC0415

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
