"""The state log of a workspace as it happens: complete, in order, and harmless."""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Workspace
from ccs_stream.client.observers import decision_follower
from ccs_stream.client.observers.json_lines import ends_path, read_ends
from ccs_stream.client.observers.state_log import StateLog
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.projections.state_log import state_log_entry
from ccs_stream.projections.transitions import Transitions
from ccs_stream.protocol.errors import Closed, LogUnavailable
from ccs_stream.protocol.records import DecisionRecord
from tests.waiting import until

Line = dict[str, Any]


KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture(params=["memory", "sqlite", KAFKA])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    url: str | None = None
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/log.db"
    elif request.param == "kafka":
        url = request.getfixturevalue("kafka_log")
    with ccs_stream.connect(url, workspace=uuid.uuid4().hex) as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(decision_follower, "RETRY_S", 0.01)


def derived(workspace: Workspace, *, after: int = 0) -> list[Line]:
    """The lines that a fold of the whole log gives beyond a sequence, numbered from 1."""
    fold, found = Transitions(), []
    for entry in ShardReader(workspace.coordinator.store, workspace.name).read(bodies=False):
        if type(entry.record) is DecisionRecord:
            found += fold.decision(entry.record.first_sequence, entry.record.recorded_at, entry.events)
    later = [each for each in found if each.sequence > after]
    return [state_log_entry(each, sequence_number=n, instance_id="one") for n, each in enumerate(later, start=1)]


def work(workspace: Workspace, rounds: int = 5) -> None:
    planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
    for number in range(rounds):
        planner.write("plan", {"step": number})
        reviewer.read("plan")
    reviewer.delete("plan")


def test_a_function_is_told_what_the_log_says_in_its_order(workspace: Workspace) -> None:
    told: list[Line] = []
    log = StateLog(workspace.coordinator, told.append, instance_id="one")
    work(workspace)
    assert log.flush(30)
    assert told == derived(workspace)
    assert [line["trigger"] for line in told[:5]] == ["fetch", "write", "commit", "fetch", "fetch"]
    assert log.close(30)


def test_a_file_holds_what_the_log_says_and_where_it_ends(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "states.jsonl"
    log = StateLog(workspace.coordinator, str(path), instance_id="one")
    work(workspace)
    assert log.close(30)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == derived(workspace)
    assert read_ends(ends_path(path)) == {"one": {"ccs.state_log": len(lines)}}


def test_it_begins_where_the_workspace_stood_and_knows_who_held_what(workspace: Workspace) -> None:
    work(workspace)
    workspace.agent("planner").write("plan", 1)
    at = workspace.coordinator.state.sequence
    told: list[Line] = []
    log = StateLog(workspace.coordinator, told.append, instance_id="one")
    workspace.agent("reviewer").write("plan", 2)
    assert log.close(30)
    assert told == derived(workspace, after=at)
    assert told[0]["agent_name"] == "planner"
    assert told[0]["from_state"] == "MODIFIED"


def test_closing_takes_all_that_was_written_before(workspace: Workspace) -> None:
    told: list[Line] = []
    log = StateLog(workspace.coordinator, told.append, instance_id="one")
    work(workspace, rounds=50)
    assert log.close(30)
    assert told == derived(workspace)
    assert log.close(30)
    workspace.agent("planner").write("plan", "after")
    assert len(told) == len(derived(workspace)) - 2


def test_what_other_processes_write_is_told_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    told: list[Line] = []
    with ccs_stream.connect(url) as one, ccs_stream.connect(url) as other:
        log = StateLog(one.coordinator, told.append, instance_id="one")
        other.agent("planner").write("plan", 1)
        until("the other's write is told", lambda: len(told) == 3)
        assert log.close(30)


def test_only_this_workspace_is_told_of_whoever_shares_its_partition(workspace: Workspace) -> None:
    store, name = workspace.coordinator.store, uuid.uuid4().hex
    while isinstance(store, KafkaLog) and store.partition(name) != store.partition(workspace.name):
        name = uuid.uuid4().hex
    told: list[Line] = []
    with Workspace(store, name, owns_store=False) as other:
        log = StateLog(workspace.coordinator, told.append, instance_id="one")
        for number in range(3):
            other.agent("planner").write("plan", number)
            workspace.agent("planner").write("plan", number)
        assert log.close(30)
        assert told == derived(workspace)
        assert len(told) == 7


def test_C7_a_state_log_that_raises_loses_and_breaks_nothing(  # noqa: N802
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Line] = []

    def callback(line: Line) -> None:
        told.append(line)
        raise RuntimeError("an observer's bug")

    log = StateLog(workspace.coordinator, callback, instance_id="one")
    planner = workspace.agent("planner")
    written = planner.write("plan", {"step": 1})
    reading = planner.read("plan")
    assert reading is not None
    assert (written.version, reading.value) == (1, {"step": 1})
    assert workspace.agent("reviewer").read("plan") is not None
    assert log.flush(30)
    assert told == derived(workspace)
    assert log.raised == len(told)
    assert len([each for each in caplog.records if "state-log-function failed" in each.message]) == 1
    assert log.close(30)


def test_a_state_log_that_hangs_holds_nobody_up(workspace: Workspace) -> None:
    go = threading.Event()
    log = StateLog(workspace.coordinator, lambda line: go.wait(), instance_id="one")
    work(workspace)
    assert not log.flush(0.1)
    assert not log.close(0.1)
    work(workspace)
    go.set()


def test_a_state_log_that_calls_the_workspace_back_deadlocks_nobody(workspace: Workspace) -> None:
    seen: list[Any] = []

    def callback(line: Line) -> None:
        seen.append(workspace.agent("observer").read("other"))
        if line["agent_name"] == "planner":
            workspace.agent("observer").write("other", line["sequence_number"])
        if len(seen) == 3:
            log.close(30)

    log = StateLog(workspace.coordinator, callback, instance_id="one")
    workspace.agent("planner").write("plan", 1)
    until("it was called", lambda: len(seen) >= 3)
    assert log.close(30)
    assert log.raised == 0


def test_a_file_that_cannot_be_written_to_for_a_while_loses_nothing(
    workspace: Workspace, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "states.jsonl"
    log = StateLog(workspace.coordinator, path, instance_id="one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", full)
        work(workspace)
        until("it failed some times", lambda: log.failed > 2)
        assert not log.flush(0.05)
    assert log.close(30)
    assert [json.loads(line) for line in path.read_text().splitlines()] == derived(workspace)
    assert len([each for each in caplog.records if "tries again" in each.message]) == 1


def test_a_log_that_cannot_be_read_for_a_while_is_read_on_later(
    workspace: Workspace, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Line] = []
    log = StateLog(workspace.coordinator, told.append, instance_id="one")

    def away(*_: object, **__: object) -> None:
        raise LogUnavailable("no broker answered")

    with monkeypatch.context() as broken:
        broken.setattr(log._follower._reader, "read", away)
        work(workspace)
        until("it failed some times", lambda: log.failed > 2)
    assert log.flush(30)
    assert told == derived(workspace)
    assert log.close(30)


def test_it_ends_by_itself_when_the_workspace_is_closed_under_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = StateLog(workspace.coordinator, lambda line: None, instance_id="one")

    def closed(*_: object) -> None:
        raise Closed("the workspace was closed")

    with monkeypatch.context() as broken:
        broken.setattr(workspace.coordinator, "wait", closed)
        until("its end", lambda: not any(worker.alive for worker in log.workers() if worker.name == "state-log"))
    assert log.failed == 0
    workspace.agent("planner").write("plan", 1)
    assert not log.flush(30)
    assert not log.close(1)


def test_many_holders_cost_a_write_two_lines_each(workspace: Workspace) -> None:
    told: list[Line] = []
    workspace.agent("planner").write("plan", 1)
    for number in range(20):
        workspace.agent(f"reader-{number}").read("plan")
    log = StateLog(workspace.coordinator, told.append, instance_id="one")
    workspace.agent("planner").write("plan", 2)
    assert log.close(30)
    assert len(told) == 42


def test_a_forked_child_has_no_state_log_and_is_not_held_up_by_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "states.jsonl"
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db") as workspace:
        log = StateLog(workspace.coordinator, path, instance_id="one")
        workspace.agent("planner").write("plan", 1)
        child = os.fork()
        if child == 0:
            os._exit(0 if log.flush(0.1) and log.close(0.1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert log.close(30)
    assert len(path.read_text().splitlines()) == 3
