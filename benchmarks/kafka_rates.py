"""Writes per second through a log on Kafka, next to a loop that decides nothing.

Guarantees: the bare loop encodes the real schemas, produces, reads back and decodes, one batch after the other, in
turns with the writes. Does not: use more than one process for the writers.
"""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from typing import Final

import ccs_stream
from benchmarks.kafka_floor import BODY, Floor, coordinator_process, new_log, on_broker
from benchmarks.report import Row, at_least, rate
from benchmarks.run import Run
from ccs_stream.coordinator.batch import plan
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head, encode_tail
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog, stored_of
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import CommandNumber, Hash, Micros, SessionId, artifact_id
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS

AGENTS: Final = 64


async def _gathered(workspaces: list[ccs_stream.Workspace], agents: int, writes: int) -> float:
    """Writes per second of so many agents in each workspace, at once."""

    async def write(workspace: ccs_stream.Workspace, number: int) -> None:
        agent = workspace.agent(f"agent-{number}")
        for each in range(writes):
            await agent.awrite(f"k{number}", {"n": each, "body": BODY})

    for workspace in workspaces:
        await asyncio.gather(*(workspace.agent(f"agent-{number}").awrite("k", 0) for number in range(agents)))
    began = time.perf_counter()
    await asyncio.gather(*(write(workspace, number) for workspace in workspaces for number in range(agents)))
    return len(workspaces) * agents * writes / (time.perf_counter() - began)


@on_broker
def rows(run: Run, servers: str) -> Iterator[Row]:
    run.now("throughput")
    url, turns, writes = new_log(servers), run.count(5, 1), run.count(150, 10)
    ours: list[float] = []
    bare: list[float] = []
    with ccs_stream.connect(url, workspace="w") as workspace:
        loop = _BareLoop(servers)
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
    yield from _partitions(run, servers)


def _partitions(run: Run, servers: str) -> Iterator[Row]:
    """One workspace against four on as many partitions, coordinated by another process."""
    run.now("several partitions")
    url, turns, writes = new_log(servers, 4), run.count(5, 1), run.count(60, 5)
    log = KafkaLog(KafkaSettings.parse(url))
    names = {log.partition(name): name for name in (f"w{number}" for number in range(200))}
    log.close()
    one: list[float] = []
    several: dict[int, list[float]] = {AGENTS: [], AGENTS // 4: []}
    with coordinator_process(url), contextlib.ExitStack() as opened:
        remote = f"{url}&coordinator=remote"
        workspaces = [opened.enter_context(ccs_stream.connect(remote, workspace=name)) for name in names.values()]
        for _ in range(turns):
            one.append(asyncio.run(_gathered(workspaces[:1], AGENTS, writes)))
            for agents, rates in several.items():
                rates.append(asyncio.run(_gathered(workspaces, agents, writes)))
    for agents, rates in several.items():
        yield Row(
            f"4 workspaces on 4 partitions, {agents} agents each, a coordinator elsewhere",
            rate(statistics.median(rates), "writes"),
            f"one workspace, {AGENTS} agents",
            rate(statistics.median(one), "writes"),
            statistics.median(these / that for these, that in zip(rates, one, strict=True)),
            "of its rate",
            at_least(1),
        )


class _BareLoop:
    """The least that a loop without decisions does: encode a batch, produce it, read all of it back, decode it."""

    def __init__(self, servers: str) -> None:
        self._floor = Floor(servers)
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
        """Decisions per second."""
        record = self._record
        began = time.perf_counter()
        for _ in range(count // AGENTS):
            messages: list[bytes] = []
            for _ in range(AGENTS):
                record.events = tuple(DEFAULT_CODEC.encode_event(event) for event in self._events)
                head = encode_head(record)
                chain_hash(head)
                messages.append(head + encode_tail(self._contents))
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
