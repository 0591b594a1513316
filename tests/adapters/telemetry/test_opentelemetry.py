"""What a dashboard, a trace and a scrape show of a store, through the SDK of OpenTelemetry itself."""

import dataclasses
import functools
import gc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import REGISTRY, generate_latest

from ccs_stream.adapters.telemetry import OpenTelemetryExporter, Telemetry
from ccs_stream.adapters.telemetry import opentelemetry as ours
from tests.adapters.telemetry.observing import BEGAN_AT, FOUND, HIT, MISS, PLAN, PUT, TOOK_US, event, observed

LONG_S = 60.0


class Sdk:
    """The SDK, with what it records within reach."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))

    def exporter(self) -> OpenTelemetryExporter:
        return OpenTelemetryExporter(meter_provider=self.meters, tracer_provider=self.tracers)

    def scopes(self) -> Iterator[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        for resource in data.resource_metrics:
            yield from resource.scope_metrics

    def values(self, name: str) -> dict[tuple[Any, ...], int]:
        """By the values of its attributes."""
        return {
            tuple((point.attributes or {}).values()): point.value
            for scope in self.scopes()
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    made = Sdk()
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()
    gc.collect()  # exporters that a test leaves degraded


def tell(exporter: OpenTelemetryExporter, *events: Any) -> None:
    for each in events:
        exporter.export(observed(each), exporter.capture())


# Metrics.


def test_instruments_have_the_names_units_and_attributes_that_dashboards_know(sdk: Sdk) -> None:
    tell(sdk.exporter(), PUT, MISS, HIT, FOUND, event("degraded"))
    (scope,) = sdk.scopes()
    assert (scope.scope.name, scope.scope.version) == ("ccs.adapters.ccsstore", "0.2.0")
    assert {each.name: each.unit for each in scope.metrics} == {
        "ccs.store.operations": "{operation}",
        "ccs.store.tokens_consumed": "{token}",
        "ccs.store.tokens_saved_estimate": "{token}",
        "ccs.store.cache_hits": "{operation}",
        "ccs.store.cache_misses": "{operation}",
        "ccs.store.degradation_events": "{operation}",
        "ccs.store.degraded_mode": "{bool}",
    }
    keys = {
        tuple(point.attributes) for each in scope.metrics for point in each.data.data_points if each.unit != "{bool}"
    }
    assert keys == {("ccs.operation", "ccs.agent_name", "ccs.cache_hit")}


def test_counters_count_what_happened(sdk: Sdk) -> None:
    tell(sdk.exporter(), PUT, MISS, HIT, HIT, FOUND)
    put, miss, hit = ("put", "planner", False), ("get", "reviewer", False), ("get", "reviewer", True)
    found = ("search.hit", "planner", False)
    assert sdk.values("ccs.store.operations") == {put: 1, miss: 1, hit: 2, found: 1}
    assert sdk.values("ccs.store.tokens_consumed") == {put: 2, miss: 2, hit: 2, found: 2}
    assert sdk.values("ccs.store.tokens_saved_estimate") == {put: 0, miss: 0, hit: 2, found: 0}
    assert sdk.values("ccs.store.cache_hits") == {miss: 0, hit: 2}
    assert sdk.values("ccs.store.cache_misses") == {miss: 1, hit: 0}
    assert sdk.values("ccs.store.degradation_events") == {}


def test_two_stores_of_a_process_add_up(sdk: Sdk) -> None:
    tell(sdk.exporter(), PUT)
    tell(sdk.exporter(), PUT)
    assert sdk.values("ccs.store.operations") == {("put", "planner", False): 2}


def test_the_gauge_is_up_while_a_store_of_the_process_is_degraded(sdk: Sdk) -> None:
    one, other = sdk.exporter(), sdk.exporter()
    assert sdk.values("ccs.store.degraded_mode") == {(): 0}
    tell(one, event("degraded"))
    other.on_degraded(degraded=True)
    assert sdk.values("ccs.store.degraded_mode") == {(): 1}
    assert sdk.values("ccs.store.degradation_events") == {("degraded", "planner", False): 1}
    one.on_degraded(degraded=False)
    assert sdk.values("ccs.store.degraded_mode") == {(): 1}
    other.close()
    assert sdk.values("ccs.store.degraded_mode") == {(): 0}


# Spans.


def test_a_span_says_what_when_and_where_in_the_log(sdk: Sdk) -> None:
    exporter = sdk.exporter()
    exporter.export(observed(MISS, version=7, sequence=40), exporter.capture())
    (span,) = sdk.spans()
    assert (span.name, span.kind, span.parent) == ("ccs.get", SpanKind.INTERNAL, None)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "ccs.adapters.ccsstore"
    assert (span.start_time, span.end_time) == (BEGAN_AT * 1000, (BEGAN_AT + TOOK_US) * 1000)
    assert dict(span.attributes or {}) == {
        "ccs.operation": "get",
        "ccs.agent_name": "reviewer",
        "ccs.cache_hit": False,
        "ccs.namespace": ("reviewer", "shared"),
        "ccs.key": "plan",
        "ccs.artifact_id": str(uuid.UUID(bytes=PLAN)),
        "ccs.sequence": 40,
        "ccs.version": 7,
    }


def test_spans_are_named_after_calls(sdk: Sdk) -> None:
    tell(sdk.exporter(), PUT, MISS, HIT, FOUND, event("degraded"))
    assert [each.name for each in sdk.spans()] == ["ccs.put", "ccs.get", "ccs.get", "ccs.search", "ccs.degraded"]


def test_a_span_is_beneath_the_one_in_which_it_happened(sdk: Sdk) -> None:
    telemetry = Telemetry(sdk.exporter())
    with sdk.tracers.get_tracer("a graph").start_as_current_span("node") as node:
        telemetry.export(observed(PUT), telemetry.capture())
    telemetry.close(LONG_S)
    (put,) = (each for each in sdk.spans() if each.name == "ccs.put")
    assert put.parent == node.get_span_context()


def test_a_read_links_to_the_write_whose_version_it_saw(sdk: Sdk) -> None:
    exporter = sdk.exporter()
    for version in (1, 2):
        exporter.export(observed(PUT, version=version), exporter.capture())
    for seen, version in ((MISS, 1), (HIT, 2), (FOUND, 2), (MISS, 3)):
        exporter.export(observed(seen, version=version), exporter.capture())
    first, second, *reads = sdk.spans()
    linked = [[link.context for link in each.links] for each in reads]
    assert linked == [[first.context], [second.context], [second.context], []]
    assert (first.links, second.links) == ((), ())


def test_a_read_does_not_link_to_a_write_of_another_store(sdk: Sdk) -> None:
    exporter = sdk.exporter()
    tell(exporter, PUT)
    elsewhere = event("get")
    object.__setattr__(elsewhere, "instance_id", "another store")
    tell(exporter, elsewhere)
    assert sdk.spans()[-1].links == ()


def test_only_so_many_writes_are_remembered(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "WRITES_MAX", 3)
    exporter = sdk.exporter()
    for version in range(1, 11):
        exporter.export(observed(PUT, version=version), exporter.capture())
    for version in range(1, 11):
        exporter.export(observed(MISS, version=version), exporter.capture())
    linked = [bool(each.links) for each in sdk.spans()[10:]]
    assert linked == [False] * 6 + [True] * 4


def test_only_so_many_looked_up_writes_are_remembered(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "WRITES_MAX", 3)
    exporter = sdk.exporter()
    asked: list[int] = []

    def ask(version: int) -> str | None:
        asked.append(version)
        return f"00-{version:032x}-{version:016x}-01" if version % 2 else None

    for version in (*range(1, 11), 10, 9, 1):
        seen = dataclasses.replace(observed(MISS, version=version), written_by=functools.partial(ask, version))
        exporter.export(seen, exporter.capture())
    assert asked == [*range(1, 11), 1]
    linked = [[link.context.trace_id for link in each.links] for each in sdk.spans()]
    assert linked == [[version] if version % 2 else [] for version in (*range(1, 11), 10, 9, 1)]


def test_without_providers_nothing_is_recorded_and_nothing_fails() -> None:
    telemetry = Telemetry(OpenTelemetryExporter())
    for each in (PUT, MISS, event("degraded")):
        telemetry.export(observed(each), telemetry.capture())
    telemetry.close(LONG_S)
    assert telemetry.failed == 0


# Prometheus.


def test_a_scrape_shows_the_counters() -> None:
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    try:
        exporter = OpenTelemetryExporter(meter_provider=provider)
        tell(exporter, PUT, MISS, HIT)
        exposed = generate_latest(REGISTRY).decode()
    finally:
        provider.shutdown()
    lines = [line for line in exposed.splitlines() if line.startswith("ccs_store")]
    hit = 'ccs_agent_name="reviewer",ccs_cache_hit="true",ccs_operation="get"'
    assert sum(line.startswith("ccs_store_operations_total{") for line in lines) == 3
    assert any(
        line.startswith("ccs_store_cache_hits_total{") and hit in line and line.endswith(" 1.0") for line in lines
    )
    assert any(line.startswith("ccs_store_tokens_saved_estimate_total{") and hit in line for line in lines)
    assert any(line.startswith("ccs_store_degraded_mode") for line in lines), lines
