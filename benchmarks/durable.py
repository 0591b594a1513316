"""Puts that survive a crash of the machine, and gets while other processes write.

Guarantees: every durable put waits for the disk (synchronous FULL), on this store and its peers; peers share the disk
and the minute. Does not: describe your disk; the raw commits beside each number do.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from langgraph.store.sqlite import SqliteStore

from benchmarks.report import Row, Target, at_least, at_most, duration, faster, longer, rate
from benchmarks.run import Run
from benchmarks.timing import Call, in_turns
from benchmarks.values import value_of
from ccs_stream.adapters.langgraph import CoherentStore

NAMESPACE: Final = ("team", "shared")
VALUE: Final = value_of(1_000)
HEAD_BYTES: Final = 260
"""Bytes of an envelope with one write, measured by `ccs-replay info`; the raw row has as many."""


def rows(run: Run) -> Iterator[Row]:
    """One writer, many writers, and reading while another process writes."""
    run.now("durable puts")
    yield from _one_writer(run)
    run.now("durable puts of 16 writers")
    yield from _many_writers(run)
    run.now("gets while another process writes")
    yield from _other_process(run)


def _one_writer(run: Run) -> Iterator[Row]:
    with (
        contextlib.closing(sqlite3.connect(run.folder / "raw.db", isolation_level=None)) as raw,
        CoherentStore(f"sqlite:///{run.folder}/one.db") as ours,
        SqliteStore.from_conn_string(str(run.folder / "langgraph.db")) as theirs,
    ):
        theirs.setup()
        commit = _raw_commits(raw)
        timings = in_turns(
            run.effort,
            {
                "ours": lambda: ours.put(NAMESPACE, "plan", VALUE),
                "raw": commit,
                "SqliteStore": lambda: theirs.put(NAMESPACE, "plan", VALUE),
            },
        )
        what = "durable put, SQLite FULL, one writer"
        seconds = timings.seconds
        ratio = timings.ratio("ours", "raw")
        yield longer(what, seconds("ours"), "raw one-row SQLite commit", seconds("raw"), ratio, at_most(2))
        ratio = timings.ratio("SqliteStore", "ours")
        yield faster(what, seconds("ours"), "LangGraph's SqliteStore as shipped", seconds("SqliteStore"), ratio)
        hit = in_turns(run.effort, {"ours": lambda: ours.get(NAMESPACE, "plan"), "memory": _memory_hit()})
        yield longer(
            "get, nothing changed, SQLite",
            hit.seconds("ours"),
            "a hit on the memory log",
            hit.seconds("memory"),
            hit.ratio("ours", "memory"),
            at_most(3),
        )


def _raw_commits(raw: sqlite3.Connection) -> Call:
    """Commits of one row as large as a decision, each in a transaction of its own, in the same journal mode."""
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, head BLOB, body BLOB)")
    head, body = bytes(HEAD_BYTES), bytes(1_000)

    def commit() -> None:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO t (head, body) VALUES (?, ?)", (head, body))
        raw.execute("COMMIT")

    return commit


def _memory_hit() -> Call:
    store = CoherentStore()
    store.put(NAMESPACE, "plan", VALUE)
    return lambda: store.get(NAMESPACE, "plan")


def _many_writers(run: Run) -> Iterator[Row]:
    puts = run.count(200, 10)
    with CoherentStore(f"sqlite:///{run.folder}/many.db") as store:
        kinds = {"gathered coroutines": _gathered, "threads": _threaded}
        rates: dict[str, dict[int, list[float]]] = {kind: {1: [], 16: []} for kind in kinds}
        for _ in range(run.count(7, 1)):
            for kind, measure in kinds.items():
                for writers, measured in rates[kind].items():
                    measured.append(measure(store, writers, puts))
    targets: dict[str, Target] = {"gathered coroutines": at_least(2), "threads": at_least(1)}
    for kind, target in targets.items():
        one, many = rates[kind][1], rates[kind][16]
        yield Row(
            f"durable puts of 16 {kind}",
            rate(statistics.median(many), "puts"),
            "of one",
            rate(statistics.median(one), "puts"),
            statistics.median(each / other for each, other in zip(many, one, strict=True)),
            "x the throughput",
            target,
        )


def _gathered(store: CoherentStore, writers: int, puts: int) -> float:
    """Puts per second of gathered coroutines."""

    async def write(key: str) -> None:
        for _ in range(puts):
            await store.aput(NAMESPACE, key, VALUE)

    async def everybody() -> None:
        await asyncio.gather(*(write(f"c-{number}") for number in range(writers)))

    began = time.perf_counter()
    asyncio.run(everybody())
    return writers * puts / (time.perf_counter() - began)


def _threaded(store: CoherentStore, writers: int, puts: int) -> float:
    """Puts per second of threads."""

    def write(key: str) -> None:
        for _ in range(puts):
            store.put(NAMESPACE, key, VALUE)

    threads = [threading.Thread(target=write, args=(f"t-{number}",)) for number in range(writers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return writers * puts / (time.perf_counter() - began)


def _other_process(run: Run) -> Iterator[Row]:
    path = run.folder / "shared.db"
    gets: list[float] = []
    floors: list[float] = []
    with (
        CoherentStore(f"sqlite:///{path}") as store,
        contextlib.closing(sqlite3.connect(path)) as raw,
        _writer(path) as (to_writer, from_writer),
    ):
        query = "SELECT head, tail FROM records ORDER BY key DESC LIMIT 1"
        for number in range(run.count(300, 10)):
            _write(to_writer, from_writer, number)
            began = time.perf_counter()
            item = store.get(NAMESPACE, "plan")
            middle = time.perf_counter()
            raw.execute(query).fetchone()
            ended = time.perf_counter()
            if item is None or item.value["number"] != number:
                raise AssertionError("the other process's write was not seen")
            gets.append(middle - began)
            floors.append(ended - middle)
    got, floor = statistics.median(gets), statistics.median(floors)
    what = "get after another process wrote (its read is on the log, too)"
    yield longer(what, got, "a raw SQLite select of the newest row", floor, got / floor)
    yield Row("the same", duration(got), "a millisecond", duration(1e-3), got / 1e-3, "x the time", at_most(1))


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """Another process on the file, which puts each number that it reads from stdin, and answers."""
    command = [sys.executable, "-m", "benchmarks.children", "write", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        if child.stdin is None or child.stdout is None:
            raise AssertionError("pipes were asked for")
        yield child.stdin, child.stdout
        child.stdin.close()


def _write(to_writer: IO[str], from_writer: IO[str], number: int) -> None:
    to_writer.write(f"{number}\n")
    to_writer.flush()
    if from_writer.readline() != f"{number}\n":
        raise AssertionError("the other process did not write")


def put_numbers(path: str, numbers: Iterator[str]) -> Iterator[str]:
    """The work of that other process."""
    value: dict[str, Any] = dict(VALUE)
    with CoherentStore(f"sqlite:///{path}", identity=lambda namespace: ("other", namespace)) as store:
        for line in numbers:
            value["number"] = int(line)
            store.put(NAMESPACE, "plan", value)
            yield line
