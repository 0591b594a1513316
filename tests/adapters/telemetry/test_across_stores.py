"""Reads lead to the writes they saw, whichever process on whichever host made them: the log carries the trace."""

import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, cast

import pytest
from langgraph.store.base import PutOp
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, StaticSampler
from opentelemetry.trace import StatusCode

from ccs_stream import VersionConflict
from ccs_stream.adapters.langgraph import CCSStore
from ccs_stream.adapters.telemetry import Exporter, LangSmithExporter, OpenTelemetryExporter
from ccs_stream.client.observers.telemetry import trace_on_log
from ccs_stream.log.port import LogStore
from ccs_stream.projections.metric_events import ObservedOperation
from ccs_stream.protocol.ids import ArtifactId, SequenceNumber, Version, artifact_id
from tests.adapters.telemetry.traced import Traced, ids, linked
from tests.kafka import as_another_host
from tests.waiting import until

VALUE = {"step": 1}
LARGE = {"text": "x" * 200_000}
PLANNER, REVIEWER = ("planner", "shared"), ("reviewer", "shared")
PLAN = artifact_id("default", ("shared",), "plan")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# Links.


def test_a_read_links_to_a_write_of_another_store(url: str, traced: Traced, elsewhere: Traced) -> None:
    with CCSStore(url, telemetry=elsewhere.exporter()) as theirs, CCSStore(url, telemetry=traced.exporter()) as ours:
        for step in (1, 2):
            with elsewhere.tracer.start_as_current_span(f"plan {step}"):
                theirs.put(PLANNER, "plan", {"step": step})
            ours.get(REVIEWER, "plan")
            ours.get(REVIEWER, "plan")
            ours.get_all([(REVIEWER, "plan")])
            ours.search(REVIEWER)
    first, second = elsewhere.spans("ccs.put")
    reads, found = traced.spans("ccs.get"), traced.spans("ccs.search")
    assert [attributes(each)["ccs.cache_hit"] for each in reads] == [False, True, True] * 2
    assert [linked(each) for each in reads] == [[ids(first.context)]] * 3 + [[ids(second.context)]] * 3
    assert [linked(each) for each in found] == [[ids(first.context)], [ids(second.context)]]
    assert [each.parent for each in (first, second)] == [
        elsewhere.spans(name)[0].context for name in ("plan 1", "plan 2")
    ]


WRITER = """
import sys
from ccs_stream.adapters.langgraph import CCSStore
from tests.adapters.telemetry.traced import Traced, ids

traced = Traced()
with CCSStore(sys.argv[1], telemetry=traced.exporter()) as store:
    store.put(("planner", "shared"), "plan", {"step": 1})
print(*ids(traced.spans("ccs.put")[0].context))
"""


def test_a_read_links_to_a_write_of_another_process(url: str, traced: Traced) -> None:
    wrote = subprocess.run([sys.executable, "-c", WRITER, url], check=True, capture_output=True, text=True)
    with CCSStore(url, telemetry=traced.exporter()) as store:
        store.get(REVIEWER, "plan")
        store.get(REVIEWER, "plan")
    trace_id, span_id = wrote.stdout.split()
    miss, hit = traced.spans("ccs.get")
    assert [attributes(each)["ccs.cache_hit"] for each in (miss, hit)] == [False, True]
    assert linked(miss) == linked(hit) == [(int(trace_id), int(span_id))]


@pytest.mark.kafka
def test_a_read_links_to_a_write_of_another_host(kafka_log: str, traced: Traced, elsewhere: Traced) -> None:
    workspace = uuid.uuid4().hex
    with (
        CCSStore(kafka_log, workspace=workspace, telemetry=elsewhere.exporter()) as theirs,
        CCSStore(as_another_host(kafka_log), workspace=workspace, telemetry=traced.exporter()) as ours,
    ):
        theirs.put(PLANNER, "plan", VALUE)
        theirs.put_all([(PLANNER, "plan", {"step": 2}), (PLANNER, "large", LARGE)])
        until("the writes are here", lambda: ours.get(REVIEWER, "large") is not None)
        ours.get(REVIEWER, "plan")
        ours.get(REVIEWER, "plan")
    first, second, large = elsewhere.spans("ccs.put")
    assert len({ids(each.context) for each in (first, second, large)}) == 3
    reads = {each: linked(each) for each in traced.spans("ccs.get")}
    assert [links for read, links in reads.items() if attributes(read)["ccs.key"] == "plan"] == [
        [ids(second.context)]
    ] * 2
    assert {attributes(read)["ccs.key"]: links for read, links in reads.items()}["large"] == [ids(large.context)]


def test_each_write_of_a_decision_has_its_own_span(url: str, traced: Traced, elsewhere: Traced) -> None:
    with CCSStore(url, telemetry=elsewhere.exporter()) as theirs, CCSStore(url, telemetry=traced.exporter()) as ours:
        theirs.put(PLANNER, "gone", VALUE)
        theirs.put_all([(PLANNER, "a", VALUE), (PLANNER, "gone", None), (PLANNER, "b", LARGE)])
        for key in ("a", "gone", "b"):
            ours.get(REVIEWER, key)
    _, a, b = elsewhere.spans("ccs.put")
    assert [(attributes(each)["ccs.key"], attributes(each)["ccs.version"]) for each in (a, b)] == [("a", 1), ("b", 1)]
    assert [linked(each) for each in traced.spans("ccs.get")] == [[ids(a.context)], [ids(b.context)]]


async def test_a_write_of_a_task_carries_that_task_s_trace(url: str, traced: Traced, elsewhere: Traced) -> None:
    theirs, ours = CCSStore(url, telemetry=elsewhere.exporter()), CCSStore(url, telemetry=traced.exporter())
    with elsewhere.tracer.start_as_current_span("plan") as plan:
        await theirs.aput(PLANNER, "plan", VALUE)
    await ours.aget(REVIEWER, "plan")
    theirs.close()
    ours.close()
    (put,), (get,) = elsewhere.spans("ccs.put"), traced.spans("ccs.get")
    assert put.parent == plan.get_span_context()
    assert linked(get) == [ids(put.context)]


# No links.


@pytest.mark.parametrize("telemetry", [None, LangSmithExporter, OpenTelemetryExporter])
def test_a_write_without_a_trace_gives_no_link(url: str, traced: Traced, telemetry: Any) -> None:
    with (
        CCSStore(url, telemetry=None if telemetry is None else telemetry()) as theirs,  # without providers, too
        CCSStore(url, telemetry=traced.exporter()) as ours,
    ):
        theirs.put(PLANNER, "plan", VALUE)
        ours.get(REVIEWER, "plan")
        assert carried(ours.workspace.coordinator.store) is None
    assert linked(traced.spans("ccs.get")[0]) == []


class Recording(StaticSampler):
    """Records every span, and sends none."""

    def __init__(self) -> None:
        super().__init__(Decision.RECORD_ONLY)


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, Recording()])
def test_a_write_whose_span_is_not_sampled_carries_no_trace(url: str, traced: Traced, sampler: Sampler) -> None:
    unsampled = Traced(sampler)
    with CCSStore(url, telemetry=unsampled.exporter()) as theirs, CCSStore(url, telemetry=traced.exporter()) as ours:
        theirs.put(PLANNER, "plan", VALUE)
        ours.get(REVIEWER, "plan")
        assert carried(ours.workspace.coordinator.store) is None
    unsampled.shut_down()
    assert linked(traced.spans("ccs.get")[0]) == []


class Carrying(Exporter):
    """Has every write carry the same."""

    links = True

    def __init__(self, trace_parent: Any) -> None:
        self.trace_parent = trace_parent

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> object:
        return "begun"

    def trace_parent_of(self, begun: object) -> str | None:
        assert begun == "begun"
        return cast("str | None", self.trace_parent)

    def export(self, observed: ObservedOperation, captured: object) -> None:
        pass


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("carries", "links"),
    [
        (GOOD, 1),
        ("", 0),
        ("garbage", 0),
        (GOOD.replace("00-", "ff-", 1), 0),
        (GOOD[:-1], 0),
        (GOOD + "-more", 0),
        (GOOD.upper(), 0),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", 0),
        (f"00-{'g' * 32}-b7ad6b7169203331-01", 0),
        ("ü\x00\n" * 10_000, 0),
    ],
)
def test_what_is_no_trace_on_the_log_is_no_link(url: str, traced: Traced, carries: str, links: int) -> None:
    exporter = traced.exporter()
    with CCSStore(url, telemetry=Carrying(carries)) as theirs, CCSStore(url, telemetry=exporter) as ours:
        theirs.put(PLANNER, "plan", VALUE)
        item = ours.get(REVIEWER, "plan")
        assert item is not None
        assert item.value == VALUE
        assert carried(ours.workspace.coordinator.store) == carries
    (read,) = traced.spans("ccs.get")
    assert len(read.links) == links
    assert exporter.unlinked == 0
    assert traced.total("ccs.store.operations") == 1


def carried(store: LogStore, version: int = 1) -> str | None:
    """What the only write of the plan carries."""
    found = [trace_on_log(store, "default", PLAN, Version(version), SequenceNumber(number)) for number in range(1, 20)]
    return next((each for each in found if each is not None), None)


def test_a_trace_is_that_of_the_version_asked_for(url: str, traced: Traced) -> None:
    with CCSStore(url, telemetry=traced.exporter()) as store:
        store.put(PLANNER, "plan", VALUE)
        store.put(PLANNER, "other", VALUE)
        log = store.workspace.coordinator.store
        sequence = store.history(PLANNER, "plan")[0].position.sequence
        assert trace_on_log(log, "default", PLAN, Version(1), sequence) is not None
        assert trace_on_log(log, "default", PLAN, Version(2), sequence) is None
        assert trace_on_log(log, "default", ArtifactId(bytes(16)), Version(1), sequence) is None
        assert trace_on_log(log, "default", PLAN, Version(1), SequenceNumber(sequence - 1)) is None
        assert trace_on_log(log, "default", PLAN, Version(1), SequenceNumber(sequence + 100)) is None


# What it costs.


def test_the_log_is_asked_once_for_each_version_and_never_for_one_s_own(
    url: str, traced: Traced, elsewhere: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[ArtifactId, Version]] = []

    def counted(
        store: LogStore, shard: str, artifact: ArtifactId, version: Version, sequence: SequenceNumber
    ) -> str | None:
        asked.append((artifact, version))
        return trace_on_log(store, shard, artifact, version, sequence)

    monkeypatch.setattr("ccs_stream.client.observers.observers.trace_on_log", counted)
    with CCSStore(url, telemetry=elsewhere.exporter()) as theirs, CCSStore(url, telemetry=traced.exporter()) as ours:
        ours.put(PLANNER, "own", VALUE)
        for step in (1, 2):
            theirs.put(PLANNER, "plan", {"step": step})
            for _ in range(5):
                ours.get(REVIEWER, "plan")
                ours.get(REVIEWER, "own")
    assert asked == [(PLAN, 1), (PLAN, 2)]


class Unlinked(Exporter):
    """Keeps what it is told, and links nothing."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> object:
        raise AssertionError("it was asked")

    def export(self, observed: ObservedOperation, captured: object) -> None:
        self.told.append((observed.event.operation, observed.written_by is not None))


def test_who_links_nothing_is_asked_and_given_nothing(url: str) -> None:
    exporter = Unlinked()
    with CCSStore(url, telemetry=exporter) as store:
        store.put(PLANNER, "plan", VALUE)
        store.put(PLANNER, "plan", {"step": 2})
        store.get(REVIEWER, "plan")
        store.get(REVIEWER, "plan")
        assert carried(store.workspace.coordinator.store) is None
    assert exporter.told == [("put", False)] * 2 + [("get", False)] * 2


def test_a_log_that_cannot_be_asked_is_no_trouble_of_the_reader_s(
    url: str, traced: Traced, elsewhere: Traced, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = traced.exporter()
    with CCSStore(url, telemetry=elsewhere.exporter()) as theirs, CCSStore(url, telemetry=exporter) as ours:
        theirs.put(PLANNER, "plan", VALUE)
        theirs.put(PLANNER, "other", VALUE)
        for key in ("plan", "other"):
            assert ours.get(REVIEWER, key) is not None
        assert ours.settle()
        with CCSStore(url, telemetry=exporter) as third:
            for key in ("plan", "other"):
                assert third.get(REVIEWER, key) is not None
            assert third.settle()
            monkeypatch.setattr("ccs_stream.client.observers.telemetry.find_decision", None)
            theirs.put(PLANNER, "plan", {"step": 2})
            theirs.put(PLANNER, "other", {"step": 2})
            for key in ("plan", "other", "plan"):
                item = third.get(REVIEWER, key)
                assert item is not None
                assert item.value == {"step": 2}
    spans = traced.spans("ccs.get")
    assert [len(each.links) for each in spans] == [1] * 4 + [0] * 3
    assert exporter.unlinked == 2
    assert len([each for each in caplog.records if "could not be looked up" in each.getMessage()]) == 1


class Counting(SpanProcessor):
    """Counts what is begun and what is ended."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.begun.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span.name)


def test_no_span_is_begun_in_vain(url: str, traced: Traced) -> None:
    counting = Counting()
    traced.tracers.add_span_processor(counting)
    with CCSStore(url, telemetry=traced.exporter()) as store:
        for value in (VALUE, {"step": 2}, LARGE):  # the first joins, the last is uploaded
            store.put(PLANNER, "plan", value)
        store.get(REVIEWER, "plan")
        store.put(REVIEWER, "plan", VALUE)
        store.delete(REVIEWER, "plan")
        store.put_all([(PLANNER, "a", VALUE), (PLANNER, "b", VALUE)])
    assert counting.begun.count("ccs.put") == 3 + 1 + 2
    assert sorted(counting.begun) == sorted(counting.ended)


# What fails.


def refused(traced: Traced, write: Any) -> list[ReadableSpan]:
    """The spans of a write that is refused."""
    before = len(traced.spans("ccs.put"))
    with pytest.raises(VersionConflict):
        write()
    until("it is told", lambda: len(traced.spans("ccs.put")) > before)
    return traced.spans("ccs.put")[before:]


def test_a_refused_write_ends_its_span_with_an_error(url: str, traced: Traced) -> None:
    with CCSStore(url, telemetry=traced.exporter(), writes="guarded") as store, CCSStore(url) as other:
        store.put(PLANNER, "plan", VALUE)
        other.get(PLANNER, "plan")
        other.put(PLANNER, "plan", {"step": 2})
        (put,) = refused(traced, lambda: store.put(PLANNER, "plan", {"step": 3}))
        (cas,) = refused(traced, lambda: store.compare_and_set(PLANNER, "plan", {"step": 3}, expected=1))
        with pytest.raises(VersionConflict):
            store.put_all([(PLANNER, "new", VALUE), (PLANNER, "plan", {"step": 3})])
    both = traced.spans("ccs.put")[-2:]
    for each in (put, cas, *both):
        assert each.status.status_code is StatusCode.ERROR
        assert each.status.description is not None
        assert "read again" in each.status.description
        said = attributes(each)
        assert (said["error.type"], said["ccs.operation"], said["ccs.agent_name"]) == (
            "VersionConflict",
            "put",
            "planner",
        )
        assert said["ccs.namespace"] == PLANNER
        assert "ccs.version" not in said
        assert (each.start_time or 0) <= (each.end_time or 0)
    assert [attributes(each)["ccs.key"] for each in both] == ["new", "plan"]
    assert traced.spans("ccs.put")[0].status.status_code is StatusCode.UNSET
    assert traced.total("ccs.store.operations") == 1


async def test_a_refused_write_of_a_task_ends_its_span_with_an_error(url: str, traced: Traced) -> None:
    store = CCSStore(url, telemetry=traced.exporter())
    await store.aput(PLANNER, "plan", VALUE)
    with pytest.raises(VersionConflict):
        await store.acompare_and_set(PLANNER, "plan", VALUE, expected=7)
    store.close()
    assert [each.status.status_code for each in traced.spans("ccs.put")] == [StatusCode.UNSET, StatusCode.ERROR]


def test_a_write_that_is_given_up_before_its_outcome_is_known_ends_its_span_with_an_error(traced: Traced) -> None:
    with CCSStore(telemetry=traced.exporter()) as store:
        steps = store._operations.batch([PutOp(PLANNER, "plan", VALUE)], store._context.call())
        next(steps)  # the log was asked
        steps.close()
    (given_up,) = traced.spans("ccs.put")
    assert given_up.status.status_code is StatusCode.ERROR
    assert "gave up" in (given_up.status.description or "")


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_a_write_that_waits_for_the_log_is_told_as_such_and_read_without_a_link(tmp_path: Path, traced: Traced) -> None:
    url = f"sqlite:///{tmp_path}/log.db?busy_timeout_s=0.05"
    with CCSStore(url, on_error="degrade", outbox=tmp_path / "outbox.db", telemetry=traced.exporter()) as store:
        store.put(PLANNER, "plan", VALUE)
        holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with traced.tracer.start_as_current_span("replan") as replan:
            store.put(PLANNER, "plan", {"step": 2})
        holder.rollback()
        holder.close()
        until("the outbox is empty", lambda: not store.is_degraded)
        item = store.get(REVIEWER, "plan")
        assert item is not None
        assert item.value == {"step": 2}
    (waited,), (put,), (get,) = traced.spans("ccs.degraded"), traced.spans("ccs.put"), traced.spans("ccs.get")
    assert waited.parent == replan.get_span_context()
    assert attributes(put)["ccs.version"] == 1
    assert linked(get) == []


class Misbegetting(OpenTelemetryExporter):
    """Begins nothing but trouble."""

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> trace.Span:
        raise RuntimeError("no span")


def test_what_raises_when_a_write_begins_reaches_no_caller(url: str, traced: Traced) -> None:
    exporter = Misbegetting(meter_provider=traced.meters, tracer_provider=traced.tracers)
    with CCSStore(url, telemetry=exporter) as store:
        store.put(PLANNER, "plan", VALUE)
        store.put(PLANNER, "plan", {"step": 2})
        store.get(REVIEWER, "plan")
        assert carried(store.workspace.coordinator.store) is None
    assert [attributes(each)["ccs.version"] for each in traced.spans("ccs.put")] == [1, 2]
    assert [linked(each) for each in traced.spans("ccs.get")] == [[ids(traced.spans("ccs.put")[1].context)]]
