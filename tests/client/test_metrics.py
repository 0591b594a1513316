"""Metrics of a workspace without a framework: the same events and accounts as those of a store."""

import pytest

import ccs_stream
from ccs_stream.adapters.telemetry import TelemetryExporter
from ccs_stream.projections.metric_events import StoreMetricEvent
from ccs_stream.protocol.errors import UsageError


def test_reads_and_writes_of_agents_are_metric_events() -> None:
    events: list[StoreMetricEvent] = []
    with ccs_stream.connect(on_metric=events.append) as workspace:
        planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
        planner.write("plan", {"step": 1}, scope=("team",))
        reviewer.read("plan", scope=("team",))
        reviewer.read("plan", scope=("team",))
        workspace.read_all([(("team",), "plan")], agent="planner")
        assert workspace.flush(10)
    assert [(each.operation, each.agent_name, each.cache_hit) for each in events] == [
        ("put", "planner", False),
        ("get", "reviewer", False),
        ("get", "reviewer", True),
        ("get", "planner", True),
    ]
    assert {(each.namespace, each.key) for each in events} == {(("team",), "plan")}
    assert [each.sequence_number for each in events] == [1, 2, 3, 4]
    assert len({each.tick for each in events}) == 4


def test_the_accounts_of_agents_add_up() -> None:
    with ccs_stream.connect(benchmark=True) as workspace:
        workspace.agent("planner").write("plan", "x" * 398)  # with its quotes, 100 tokens
        workspace.agent("reviewer").read("plan")
        workspace.agent("reviewer").read("plan")
        assert workspace.savings().by_cause == {"hit": 1, "miss": 100, "write": 100}
        assert workspace.benchmark_summary()["cache_hit_rate"] == 0.5


def test_bytes_are_counted_by_their_length() -> None:
    with ccs_stream.connect(benchmark=True) as workspace:
        workspace.agent("planner").write("image", bytes(400))
        assert workspace.savings().by_cause == {"write": 100}
        assert workspace.health().failures == 0


def test_telemetry_is_exported_without_a_framework() -> None:
    class Keeping(TelemetryExporter):
        def __init__(self) -> None:
            self.events: list[StoreMetricEvent] = []

        def on_event(self, event: StoreMetricEvent) -> None:
            self.events.append(event)

    exporter = Keeping()
    with ccs_stream.connect(telemetry=exporter) as workspace:
        workspace.agent("planner").write("plan", 1)
    assert [each.operation for each in exporter.events] == ["put"]


def test_without_benchmark_there_is_no_account() -> None:
    with ccs_stream.connect() as workspace, pytest.raises(UsageError, match="benchmark=True"):
        workspace.savings()
