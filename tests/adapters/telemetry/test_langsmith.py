"""What LangSmith is sent of a store: through its own client and tracing, with what would go over the network kept."""

import multiprocessing
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.tracers.langchain import LangChainTracer
from langgraph.graph import END, START, StateGraph
from langsmith import Client
from langsmith.run_helpers import get_current_run_tree, traceable, tracing_context

from ccs_stream.adapters.telemetry import LangSmithExporter, Telemetry
from ccs_stream.adapters.telemetry import langsmith as ours
from tests.adapters.telemetry.observing import FOUND, HIT, MISS, PUT, event, observed
from tests.adapters.telemetry.session import Kept

LONG_S = 60.0


@pytest.fixture
def session() -> Kept:
    return Kept()


@pytest.fixture
def client(session: Kept) -> Iterator[Client]:
    made = Client(api_url="http://langsmith.invalid", api_key="none", session=session, auto_batch_tracing=False)
    with tracing_context(enabled=True, client=made):
        yield made


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangSmithExporter]:
    """One that sends what is late when it is closed, and not before."""
    monkeypatch.setattr(ours, "LATE_S", 3_600.0)
    made = LangSmithExporter()
    yield made
    made.close()


def told(exporter: LangSmithExporter, *events: Any) -> None:
    """Tell it at once, as if counting took no time."""
    for each in events:
        exporter.export(observed(each), exporter.capture())


def run_telling(exporter: LangSmithExporter, *events: Any) -> None:
    @traceable(name="node")
    def node() -> str:
        told(exporter, *events)
        return "done"

    node()


LATEST = {
    "ccs.operation": "get",
    "ccs.agent_name": "reviewer",
    "ccs.tokens_consumed": 1,
    "ccs.cache_hit": True,
    "ccs.tick": 3,
    "ccs.token_reduction_pct": 16.7,
    "ccs.tokens_saved_estimate": 1,
    "ccs.cache_hit_rate": 0.5,
}
"""After a put of 2 tokens, a read and another: those of the last, and 1 of 6 tokens saved."""
NOT_YET = dict.fromkeys(LATEST)


def test_a_run_ends_with_what_its_latest_event_cost_and_the_totals(
    client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    run_telling(exporter, PUT, MISS, HIT)
    assert session.metadata("node") == [LATEST]


def test_totals_go_on_over_runs_and_a_search_counts_for_tokens_and_not_for_the_rate_of_hits(
    client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    run_telling(exporter, PUT, MISS, HIT)
    run_telling(exporter, FOUND)
    assert session.metadata("node")[1] == {
        "ccs.operation": "search.hit",
        "ccs.agent_name": "planner",
        "ccs.tokens_consumed": 2,
        "ccs.cache_hit": False,
        "ccs.tick": 4,
        "ccs.token_reduction_pct": 12.5,
        "ccs.tokens_saved_estimate": 1,
        "ccs.cache_hit_rate": 0.5,
    }


def test_nothing_moved_is_nothing_saved(client: Client, session: Kept, exporter: LangSmithExporter) -> None:
    run_telling(exporter, event("put", tokens=0))
    (said,) = session.metadata("node")
    assert (said["ccs.token_reduction_pct"], said["ccs.cache_hit_rate"]) == (0.0, 0.0)


def test_each_event_goes_to_the_run_in_which_it_happened(
    client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    @traceable(name="inner")
    def inner() -> None:
        told(exporter, MISS)

    @traceable(name="outer")
    def outer() -> None:
        told(exporter, PUT)
        inner()

    outer()
    (of_outer,), (of_inner,) = session.metadata("outer"), session.metadata("inner")
    assert (of_outer["ccs.operation"], of_inner["ccs.operation"]) == ("put", "get")


def test_metadata_of_the_users_own_stays(client: Client, session: Kept, exporter: LangSmithExporter) -> None:
    @traceable(name="node", metadata={"before": 1})
    def node() -> None:
        captured = exporter.capture()
        run = get_current_run_tree()
        assert run is not None
        run.add_metadata({"after": 2})
        exporter.export(observed(PUT), captured)

    node()
    (patch,) = (run for method, run in session.sent if method == "PATCH")
    metadata = patch["extra"]["metadata"]
    assert (metadata["before"], metadata["after"], metadata["ccs.operation"]) == (1, 2, "put")


def test_outside_of_a_run_only_totals_count(client: Client, session: Kept, exporter: LangSmithExporter) -> None:
    told(exporter, PUT, MISS)
    assert session.sent == []
    run_telling(exporter, HIT)
    assert session.metadata("node") == [LATEST]


def test_what_was_counted_stays_while_more_is_being_counted(
    client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    @traceable(name="node")
    def node() -> None:
        told(exporter, PUT)
        exporter.capture()

    node()
    assert [each["ccs.operation"] for each in session.metadata("node")] == ["put"]


# Runs that are over before their tokens are counted.


def test_a_run_that_is_over_too_soon_is_sent_its_metadata_again(
    client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    captured: list[object] = []

    @traceable(name="node", metadata={"mine": 1}, tags=["kept"])
    def node() -> dict[str, list[int]]:
        captured.extend(exporter.capture() for _ in range(3))
        return output

    output = {"steps": [1]}
    node()
    assert session.metadata("node") == [NOT_YET]
    output["steps"].append(2)  # by whoever called it; what was sent must not change
    for each, run in zip((PUT, MISS, HIT), captured, strict=True):
        exporter.export(observed(each), run)
    exporter.close()
    assert session.metadata("node") == [NOT_YET, LATEST]  # one message for three events
    first, second = (run for method, run in session.sent if method == "PATCH")
    for name in ("id", "trace_id", "dotted_order", "parent_run_id", "session_name", "end_time", "start_time", "tags"):
        assert first[name] == second[name], name
    assert second["extra"]["metadata"]["mine"] == 1
    assert "outputs" in first
    assert "outputs" not in second
    assert "inputs" not in second


def test_what_is_late_is_sent_soon_without_being_asked_for(
    client: Client, session: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "LATE_S", 0.01)
    exporter = LangSmithExporter()
    sent = threading.Event()
    captured: list[object] = []
    send = ours._send

    def send_and_say(run: Any) -> None:
        send(run)
        sent.set()

    monkeypatch.setattr(ours, "_send", send_and_say)
    traceable(name="node")(lambda: captured.append(exporter.capture()))()
    for _ in range(2):  # the second time with a timer of its own
        exporter.export(observed(PUT), captured[0])
        assert sent.wait(LONG_S)
        sent.clear()
    assert [each["ccs.operation"] for each in session.metadata("node")] == [None, "put", "put"]


class Batching(Client):
    """A client that sends in a thread of its own, as clients do unless told otherwise; keeps what it is given."""

    def __init__(self, session: Kept) -> None:
        super().__init__(api_url="http://langsmith.invalid", api_key="none", session=session, auto_batch_tracing=True)
        self.updates: list[dict[str, Any]] = []

    def update_run(self, run_id: Any, **update: Any) -> None:
        self.updates.append(update["extra"]["metadata"].copy())
        super().update_run(run_id, **update)


def test_a_batching_client_takes_late_metadata_too(session: Kept, exporter: LangSmithExporter) -> None:
    client = Batching(session)
    captured: list[object] = []
    with tracing_context(enabled=True, client=client):
        traceable(name="node")(lambda: captured.append(exporter.capture()))()
    exporter.export(observed(PUT), captured[0])
    exporter.close()
    client.flush()
    client.cleanup()
    assert [each["ccs.operation"] for each in client.updates] == [None, "put"]
    assert exporter.unsent == 0


@pytest.mark.parametrize("enabled", ["local", False])
def test_nothing_is_sent_of_a_run_that_langsmith_does_not_send(
    enabled: Any, client: Client, session: Kept, exporter: LangSmithExporter
) -> None:
    captured: list[object] = []
    with tracing_context(enabled=enabled, client=client):
        traceable(name="node")(lambda: captured.append(exporter.capture()))()
    exporter.export(observed(PUT), captured[0])
    exporter.close()
    assert session.sent == []


def test_a_langsmith_that_is_away_is_counted(
    client: Client, session: Kept, exporter: LangSmithExporter, caplog: pytest.LogCaptureFixture
) -> None:
    captured: list[object] = []
    for _ in range(2):
        traceable(name="node")(lambda: captured.append(exporter.capture()))()
    session.fails = True
    for each in captured:
        exporter.export(observed(PUT), each)
    exporter.close()
    assert exporter.unsent == 2
    assert len([each for each in caplog.records if each.name == ours.__name__]) == 1


def test_only_so_many_late_runs_are_gathered(
    client: Client, session: Kept, exporter: LangSmithExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "LATE_MAX", 2)
    captured: list[object] = []
    for _ in range(3):
        traceable(name="node")(lambda: captured.append(exporter.capture()))()
    for each in (*captured, captured[0]):
        exporter.export(observed(PUT), each)
    exporter.close()
    assert exporter.unsent == 1
    assert len([each for each in session.metadata("node") if each != NOT_YET]) == 2


def _told_in_a_child(exporter: LangSmithExporter, captured: object, answers: Any) -> None:
    exporter.export(observed(PUT), captured)
    exporter.close()
    answers.put(exporter.unsent)


def _closed_in_a_child(exporter: LangSmithExporter, captured: object, answers: Any) -> None:
    exporter.close()
    answers.put(exporter.unsent)


@pytest.mark.parametrize("in_the_child", [_told_in_a_child, _closed_in_a_child])
def test_a_fork_while_it_is_busy_is_harmless(
    in_the_child: Callable[..., None], client: Client, exporter: LangSmithExporter
) -> None:
    captured: list[object] = []
    traceable(name="node")(lambda: captured.append(exporter.capture()))()
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    with exporter._lock:
        child = forking.Process(target=in_the_child, args=(exporter, captured[0], answers), daemon=True)
        child.start()
    assert answers.get(timeout=LONG_S) == 0
    child.join()


# In a graph.


class State(TypedDict):
    steps: int


def test_a_node_of_a_graph_carries_what_it_cost(session: Kept, exporter: LangSmithExporter) -> None:
    telemetry = Telemetry(exporter)

    def plan(state: State) -> State:
        for each in (PUT, MISS, HIT):
            telemetry.export(observed(each), telemetry.capture())
        assert telemetry.flush(LONG_S)
        return {"steps": state["steps"] + 1}

    def hurry(state: State) -> State:
        telemetry.export(observed(FOUND), telemetry.capture())
        return {"steps": state["steps"] + 1}

    builder = StateGraph(State)
    builder.add_node("plan", plan)
    builder.add_node("hurry", hurry)
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "hurry")
    builder.add_edge("hurry", END)
    made = Client(api_url="http://langsmith.invalid", api_key="none", session=session, auto_batch_tracing=False)
    tracer = LangChainTracer(client=made)
    builder.compile().invoke({"steps": 0}, {"callbacks": [tracer], "run_id": uuid.uuid4()})
    assert telemetry.close(LONG_S)
    assert telemetry.failed == 0
    assert session.metadata("plan") == [LATEST]
    assert session.metadata("hurry")[-1]["ccs.operation"] == "search.hit"
    assert session.metadata("LangGraph") == [{}]
