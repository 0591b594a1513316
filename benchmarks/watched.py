"""The cost of observers: a hit, and a put of what many hold, with each of the streams on.

Guarantees: the time includes the work of background threads: a turn is so many hits, and the wait until all of them are
passed on, counted and recorded; the variants take turns. Does not: use a second core well; background threads share the
interpreter with what is measured.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from benchmarks.fan_out import VALUE, WRITER
from benchmarks.report import Row, at_most, duration, longer
from benchmarks.run import Run
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore
from ccs_stream.adapters.telemetry.opentelemetry import OpenTelemetryExporter

NAMESPACE: Final = ("shared",)
FLUSH_TIMEOUT_S: Final = 120.0
OFF: Final = "watched by nobody"

Store = CoherentStore


def rows(run: Run) -> Iterator[Row]:
    """Hits in memory and on SQLite; puts with 100 and 1,000 holders."""
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        memory: dict[str, dict[str, Any]] = {
            OFF: {},
            "deliveries": {"deliveries": True},
            "metrics (benchmark=True)": {"benchmark": True},
            "metrics (on_metric)": {"on_metric": lambda _: None},
            "content audit": {"content_audit_log": lambda _: None},
            "a lease": {"strategy": "lease", "lease_ttl_ticks": 10**9},
            "OpenTelemetry": {"telemetry": _otel()},
        }
        yield from _hits(run, "memory log", memory, lambda options: CoherentStore(**options), bound=("deliveries", 2.0))
        file: dict[str, dict[str, Any]] = {OFF: {"deliveries": False}, "deliveries": {}}

        def on_sqlite(options: dict[str, Any]) -> Store:
            return CoherentStore(f"sqlite:///{folder}/{len(list(Path(folder).iterdir()))}.db", **options)

        yield from _hits(run, "SQLite", file, on_sqlite, bound=("deliveries", 2.0))
        yield from _puts(run, Path(folder))


def _otel() -> OpenTelemetryExporter:
    return OpenTelemetryExporter(
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]), tracer_provider=TracerProvider()
    )


def _hits(
    run: Run,
    where: str,
    variants: dict[str, dict[str, Any]],
    opened: Callable[[dict[str, Any]], Store],
    *,
    bound: tuple[str, float],
) -> Iterator[Row]:
    run.now(f"hits, watched, {where}")
    stores = {name: opened(options) for name, options in variants.items()}
    count, turns = run.count(20_000, 200), run.count(9, 2)
    for store in stores.values():
        store.put(NAMESPACE, "k", VALUE)
        _turn(store, count)
    taken: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(turns):
        for name, store in stores.items():
            taken[name].append(_turn(store, count))
    off = statistics.median(taken[OFF])
    for name in list(stores)[1:]:
        ratio = statistics.median(one / other for one, other in zip(taken[name], taken[OFF], strict=True))
        target = at_most(bound[1]) if name == bound[0] else None
        yield longer(f"get, a hit, {where}, {name}", statistics.median(taken[name]), OFF, off, ratio, target)
    for store in stores.values():
        store.close()


def _turn(store: Store, count: int) -> float:
    """Seconds per hit, with all work that follows from it."""
    began = time.perf_counter()
    for _ in range(count):
        store.get(NAMESPACE, "k")
    if not store.flush(FLUSH_TIMEOUT_S):
        raise AssertionError("what was read was not passed on in time")
    return (time.perf_counter() - began) / count


def _puts(run: Run, folder: Path) -> Iterator[Row]:
    run.now("puts of what many hold, all streams on")
    few, many = run.count(100, 10), run.count(1_000, 100)
    rounds = run.count(9, 2)
    taken = {holders: statistics.median(_put_turns(folder, holders, rounds)) for holders in (few, many)}
    yield Row(
        f"put, {many:,} others hold it, all streams on",
        duration(taken[many]),
        f"the same, {few:,} others",
        duration(taken[few]),
        taken[many] / taken[few],
        "x the time for 10 x the holders",
        at_most(11),
    )


def _put_turns(folder: Path, holders: int, rounds: int) -> Iterator[float]:
    """Seconds of each put, with the wait until all work that follows from it is done."""
    with CCSStore(
        deliveries=True,
        benchmark=True,
        on_metric=lambda _: None,
        state_log=folder / f"states-{holders}.jsonl",
        content_audit_log=folder / f"audit-{holders}.jsonl",
        telemetry=_otel(),
    ) as store:
        store.put(WRITER, "plan", VALUE)
        for _ in range(rounds):
            for number in range(holders):
                store.get((f"agent-{number}", "shared"), "plan")
            store.flush(FLUSH_TIMEOUT_S)
            began = time.perf_counter()
            store.put(WRITER, "plan", VALUE)
            store.flush(FLUSH_TIMEOUT_S)
            yield time.perf_counter() - began
