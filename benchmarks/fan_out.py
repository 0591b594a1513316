"""A put of an artifact that many other participants hold.

Guarantees: before each timed put, every other participant has read the artifact again, so that each put invalidates
all of them. Does not: time those reads.
"""

import io
import statistics
import time
from collections.abc import Iterator
from typing import Any, Final

import fastavro
from ccs.adapters.ccsstore import CCSStore as AgentCoherence

from benchmarks.report import Row, at_least, at_most, duration, longer
from benchmarks.run import Run
from benchmarks.values import value_of
from ccs_stream.adapters.langgraph import CCSStore

LIST: Final[Any] = fastavro.parse_schema({"type": "array", "items": "long"})
VALUE: Final = value_of(1_000)
WRITER: Final = ("writer", "shared")


def rows(run: Run) -> Iterator[Row]:
    """1,000 holders against none; growth; agent-coherence with as many as it bears."""
    counts = (10, 100, 1_000) if run.quick else (10, 100, 1_000, 10_000)
    rounds = run.count(15, 3)
    run.now("puts of what many hold")
    alone_s = statistics.median(_puts(CCSStore(), 0, rounds * 20))
    held = {count: statistics.median(_puts(CCSStore(), count, rounds)) for count in counts}
    list_s, put_s = statistics.median(_encoded(1_000, rounds * 20)), held[1_000]
    yield longer(
        "put, 1,000 others hold the artifact",
        put_s,
        "the same put, none holds it, plus an Avro encode of the list",
        alone_s + list_s,
        put_s / (alone_s + list_s),
        at_most(4),
    )
    few, many = counts[-2], counts[-1]
    yield Row(
        f"the same, {many:,} holders",
        duration(held[many]),
        f"the same, {few:,} holders",
        duration(held[few]),
        held[many] / held[few],
        "x the time for 10 x the holders",
        at_most(11),
    )
    bearable = run.count(300, 30)
    ours = statistics.median(_puts(CCSStore(), bearable, rounds))
    theirs = statistics.median(_puts(AgentCoherence(), bearable, 2))
    yield Row(
        f"put, {bearable} others hold the artifact",
        duration(ours),
        "agent-coherence (quadratic)",
        duration(theirs),
        theirs / ours,
        "x faster",
        at_least(2),
    )


def _puts(store: Any, holders: int, rounds: int) -> Iterator[float]:
    """Seconds of each put, with `holders` others holding a copy just before it."""
    store.put(WRITER, "plan", VALUE)
    others = [(f"agent-{number}", "shared") for number in range(holders)]
    for _ in range(rounds):
        for other in others:
            store.get(other, "plan")
        began = time.perf_counter()
        store.put(WRITER, "plan", VALUE)
        yield time.perf_counter() - began


def _encoded(count: int, rounds: int) -> Iterator[float]:
    """Seconds to encode a list of `count` participant numbers with fastavro."""
    numbers = list(range(2, count + 2))
    for _ in range(rounds):
        out = io.BytesIO()
        began = time.perf_counter()
        fastavro.schemaless_writer(out, LIST, numbers)
        yield time.perf_counter() - began
