"""The health of a workspace: threads, what waits, and how the log is reached, as data."""

import sqlite3
import threading
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.client.degraded.mode import CoherenceDegradedWarning
from tests.waiting import until


def test_an_idle_workspace_is_well() -> None:
    with ccs_stream.connect(workspace="w") as workspace:
        health = workspace.health()
    assert (health.workspace, health.closed, health.stale, health.degraded) == ("w", False, False, False)
    assert health.sequence == 1
    assert health.agents == ()
    assert (health.waiting, health.failures) == (0, 0)
    assert health.coordinator.leads


def test_agents_and_the_sequence_move_on() -> None:
    with ccs_stream.connect() as workspace:
        written = workspace.agent("planner").write("plan", 1)
        health = workspace.health()
    assert health.agents == ("planner",)
    assert health.sequence == written.position.sequence


def test_each_background_worker_is_named_and_counts_what_waits() -> None:
    go = threading.Event()
    with ccs_stream.connect(deliveries=True, state_log=lambda line: go.wait(), benchmark=True) as workspace:
        workspace.agent("planner").write("plan", 1)
        until("a line waits", lambda: workspace.health().waiting > 0)
        names = {worker.name for worker in workspace.health().workers}
        assert {"deliveries", "state-log", "state-log-function", "metrics"} <= names
        go.set()
        assert workspace.flush(10)
        assert workspace.health().waiting == 0


def test_a_listener_that_raises_shows(caplog: pytest.LogCaptureFixture) -> None:
    def raising(line: object) -> None:
        raise ZeroDivisionError("planted")

    with ccs_stream.connect(content_audit_log=raising) as workspace:
        workspace.agent("planner").write("plan", 1)
        workspace.flush(10)
        (failed,) = [worker for worker in workspace.health().workers if worker.failures]
    assert (failed.name, failed.failures) == ("content-audit", 1)
    assert failed.last_failure == "ZeroDivisionError: planted"
    assert "content-audit failed" in caplog.text


def test_degraded_mode_shows_with_what_waits_in_the_outbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db?busy_timeout_s=0.05"
    with CoherentStore(url, on_error="degrade", outbox=tmp_path / "outbox.db") as store:
        store.put(("team",), "plan", {"step": 1})
        holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.warns(CoherenceDegradedWarning):
            store.put(("team",), "plan", {"step": 2})
        health = store.health()
        assert health.degraded
        assert (health.degradation_count, health.outbox_waiting, health.outbox_conflicts) == (1, 1, 0)
        assert health.last_error is not None
        holder.rollback()
        holder.close()
        until("the mode is normal", lambda: not store.health().degraded)
        assert store.health().outbox_waiting == 0


def test_a_closed_workspace_says_so_and_none_of_its_threads_goes_on(tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", state_log=tmp_path / "state.jsonl")
    workspace.agent("planner").write("plan", 1)
    workspace.close()
    health = workspace.health()
    assert health.closed
    assert [worker.name for worker in health.workers if worker.alive] == []
