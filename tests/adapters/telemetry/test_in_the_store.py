"""Telemetry of a whole store: the caller's context arrives, reads lead to writes, and failures stay aside."""

import asyncio
import sys
import threading
from typing import Any, TypedDict

import pytest
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langsmith import Client
from opentelemetry.sdk.trace import ReadableSpan

from ccs_stream import UsageError
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore, StoreMetricEvent
from ccs_stream.adapters.telemetry import TelemetryExporter
from tests.adapters.telemetry.session import Kept
from tests.adapters.telemetry.traced import Traced

VALUE = {"step": 1}
PLANNER, REVIEWER = ("planner", "shared"), ("reviewer", "shared")


def beneath(span: ReadableSpan, parents: list[ReadableSpan]) -> str | None:
    """Name of the span that this one is beneath."""
    return next((each.name for each in parents if span.parent == each.get_span_context()), None)


def test_each_read_and_write_has_a_span_beneath_the_callers_and_a_read_links_to_its_write(traced: Traced) -> None:
    with CCSStore(telemetry=traced.exporter()) as store:
        with traced.tracer.start_as_current_span("plan") as plan:
            store.put(PLANNER, "plan", VALUE)
        with traced.tracer.start_as_current_span("review") as review:
            store.get(REVIEWER, "plan")
            store.get(REVIEWER, "plan")
            store.search(REVIEWER)
        with traced.tracer.start_as_current_span("replan"):
            store.put(PLANNER, "plan", {"step": 2})
        store.get(REVIEWER, "plan")
    first, second = traced.spans("ccs.put")
    miss, hit, after = traced.spans("ccs.get")
    (found,) = traced.spans("ccs.search")
    assert first.parent == plan.get_span_context()
    assert [each.parent for each in (miss, hit, found)] == [review.get_span_context()] * 3
    assert after.parent is None
    for read, write in ((miss, first), (hit, first), (found, first), (after, second)):
        assert [link.context for link in read.links] == [write.get_span_context()]
    seen = [dict(each.attributes or {}) for each in (first, miss, hit, found, second, after)]
    assert [each["ccs.version"] for each in seen] == [1, 1, 1, 1, 2, 2]
    assert [each["ccs.cache_hit"] for each in seen] == [False, False, True, False, False, False]
    sequences = [each["ccs.sequence"] for each in seen]
    assert sequences == sorted(sequences)  # type: ignore[type-var]
    assert all((each.start_time or 0) <= (each.end_time or 0) for each in (first, miss, hit, found))


def test_counters_say_what_on_metric_is_told(traced: Traced) -> None:
    events: list[StoreMetricEvent] = []
    with CCSStore(telemetry=traced.exporter(), on_metric=events.append) as store:
        store.put_all([(PLANNER, "a", VALUE), (PLANNER, "b", VALUE)])
        store.get_all([(REVIEWER, "a"), (REVIEWER, "b"), (REVIEWER, "nothing")])
        store.get(REVIEWER, "a")
        store.get(REVIEWER, "a")
        store.search(REVIEWER)
    assert len(events) == 2 + 2 + 2 + 2
    assert traced.total("ccs.store.operations") == len(events)
    assert traced.total("ccs.store.tokens_consumed") == sum(each.tokens_consumed for each in events)
    assert traced.total("ccs.store.tokens_saved_estimate") == sum(each.tokens_saved_estimate for each in events) == 1
    assert (traced.total("ccs.store.cache_hits"), traced.total("ccs.store.cache_misses")) == (1, 3)


async def test_tasks_that_run_at_once_keep_their_spans_apart(traced: Traced) -> None:
    store = CCSStore(telemetry=traced.exporter())
    await store.aput(PLANNER, "plan", VALUE)

    async def read(number: int) -> None:
        with traced.tracer.start_as_current_span(f"reader {number}"):
            await asyncio.sleep(0)
            await store.aget((f"agent {number}", "shared"), "plan")

    await asyncio.gather(*(read(number) for number in range(8)))
    store.close()
    readers = [each for number in range(8) for each in traced.spans(f"reader {number}")]
    spans = traced.spans("ccs.get")
    assert {(each.attributes or {})["ccs.agent_name"]: beneath(each, readers) for each in spans} == {
        f"agent {number}": f"reader {number}" for number in range(8)
    }


class State(TypedDict):
    said: str


def test_a_node_of_a_graph_carries_in_langsmith_what_it_read() -> None:
    session = Kept()
    client = Client(api_url="http://langsmith.invalid", api_key="none", session=session, auto_batch_tracing=False)

    def plan(state: State, store: BaseStore) -> State:
        store.put(("shared",), "plan", VALUE)
        return {"said": "planned"}

    def review(state: State, store: BaseStore) -> State:
        store.get(("shared",), "plan")
        store.get(("shared",), "plan")
        return {"said": "reviewed"}

    builder = StateGraph(State)
    builder.add_node("plan", plan)
    builder.add_node("review", review)
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "review")
    builder.add_edge("review", END)
    with CoherentStore(telemetry="langsmith") as store:
        builder.compile(store=store).invoke({"said": ""}, {"callbacks": [LangChainTracer(client=client)]})
    planned, reviewed = session.metadata("plan")[-1], session.metadata("review")[-1]
    assert (planned["ccs.operation"], planned["ccs.agent_name"], planned["ccs.tokens_consumed"]) == ("put", "plan", 2)
    assert (reviewed["ccs.operation"], reviewed["ccs.agent_name"], reviewed["ccs.cache_hit"]) == ("get", "review", True)
    assert (reviewed["ccs.tokens_saved_estimate"], reviewed["ccs.cache_hit_rate"]) == (1, 0.5)


def test_telemetry_by_name_without_providers_changes_nothing() -> None:
    with CoherentStore(telemetry="opentelemetry") as store:
        store.put(PLANNER, "plan", VALUE)
        found = store.get(PLANNER, "plan")
    assert found is not None
    assert found.value == VALUE


# What fails.


class Failing(TelemetryExporter):
    """Raises, or hangs until it is let go."""

    def __init__(self) -> None:
        self.hangs: threading.Event | None = None
        self.told = 0

    def on_event(self, event: StoreMetricEvent) -> None:
        self.told += 1
        if self.hangs is not None:
            self.hangs.wait()
        raise RuntimeError("the collector is away")


def test_an_exporter_that_raises_reaches_no_caller() -> None:
    exporter = Failing()
    with CCSStore(telemetry=exporter) as store:
        for step in range(3):
            store.put(PLANNER, "plan", {"step": step})
        assert store.get(REVIEWER, "plan").value == {"step": 2}  # type: ignore[union-attr]
    assert exporter.told == 4


def test_an_exporter_that_hangs_delays_no_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccs_stream.client.observers.metrics.CLOSE_TIMEOUT_S", 0.01)
    exporter = Failing()
    exporter.hangs = threading.Event()
    with CCSStore(telemetry=exporter) as store:
        for step in range(3):
            store.put(PLANNER, "plan", {"step": step})
        assert store.get(REVIEWER, "plan").value == {"step": 2}  # type: ignore[union-attr]
    assert exporter.told <= 1  # it hangs on the first, and the store is closed
    exporter.hangs.set()


def test_a_wrong_option_opens_nothing(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="'opentelemetry', 'langsmith'"):
        CCSStore(f"sqlite:///{tmp_path}/log.db", telemetry="zipkin")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_opens_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ccs_stream.adapters.telemetry.opentelemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"ccs-stream\[otel\]"):
        CCSStore(f"sqlite:///{tmp_path}/log.db", telemetry="opentelemetry")
    assert list(tmp_path.iterdir()) == []
