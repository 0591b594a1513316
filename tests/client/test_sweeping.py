"""Sweeping keeps up with what expires, costs what it ends, and stops at nothing."""

import heapq
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccs_stream
from ccs_stream import Workspace
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.protocol import decide_grants, decide_writes
from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.ids import ArtifactId, Micros, Version
from tests.waiting import until


def fill(workspace: Workspace, count: int, ttl_s: float) -> None:
    agent = workspace.agent("a")
    for number in range(count):
        agent.write(f"k{number}", number, ttl_s=ttl_s)


@pytest.mark.parametrize("log", ["memory", "sqlite"])
def test_what_expires_at_once_is_swept_in_one_go(log: str, tmp_path: Path) -> None:
    url = None if log == "memory" else f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    with ccs_stream.connect(url, deliveries=False) as workspace:
        fill(workspace, 1_500, 0.05)
        time.sleep(0.1)
        assert workspace.sweep() >= 1_500
        state = workspace.engine.state
        assert [each.key for each in state.artifacts.values() if not each.deleted] == []
        assert workspace.sweep() == 0


def test_the_task_keeps_up_with_its_interval(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    with ccs_stream.connect(url, deliveries=False) as workspace:
        fill(workspace, 1_000, 0.05)
        workspace.start_sweeping(0.1)
        state = workspace.engine.state
        until("all are ended", lambda: all(each.deleted for each in list(state.artifacts.values())))


def test_it_goes_on_past_what_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with ccs_stream.connect() as workspace:
        fill(workspace, 600, 0.02)
        time.sleep(0.05)
        expire = decide_writes.expire

        def fail(artifact: ArtifactState, events: list[Any]) -> None:
            if artifact.key in ("k0", "k300"):
                events.append(None)
                raise OverflowError("this one cannot be ended")
            expire(artifact, events)

        monkeypatch.setattr(decide_grants, "expire", fail)
        assert workspace.sweep() >= 598
        assert sorted(each.key for each in workspace.engine.state.artifacts.values() if not each.deleted) == [
            "k0",
            "k300",
        ]
        assert workspace.sweep() == 0
        monkeypatch.undo()
        assert workspace.sweep() == 4


@given(
    ends=st.lists(st.integers(0, 30), max_size=60),
    moved=st.sets(st.integers(0, 59)),
    now=st.integers(0, 31),
    taken=st.integers(0, 70),
)
def test_a_sweep_looks_no_further_than_at_what_it_ends(ends: list[int], moved: set[int], now: int, taken: int) -> None:
    state = Directory()
    for number, end in enumerate(ends):
        artifact = ArtifactState(ArtifactId(bytes([number]) * 16), (), str(number), Version(1))
        artifact.expires_at = Micros(1_000 if number in moved else end)
        state.add_artifact(artifact)
        state.schedule(Micros(end), artifact.artifact)
    before = sorted(state.deadlines)
    due = state.due(Micros(now))
    found = [state.artifacts[each].key for each, _ in zip(due, range(taken), strict=False)]
    wanted = sorted((end, number) for number, end in enumerate(ends) if number not in moved and end <= now)
    assert [ends[int(key)] for key in found] == [end for end, _ in wanted][:taken]
    held = [each for each in before if state.artifacts[each[1]].expires_at == each[0]]
    assert [each for each in sorted(state.deadlines) if each in held] == held  # nothing that holds is lost
    assert heapq.nsmallest(len(state.deadlines), state.deadlines) == sorted(state.deadlines)


def test_the_store_says_whether_sweeping_has_ended() -> None:
    with CoherentStore() as store:
        started = store.start_ttl_sweeper(1)
        assert not started.done()
        assert store.start_ttl_sweeper(1) is started
        assert store.stop_ttl_sweeper(timeout=3) is True
        assert started.result(1) is None
        assert store.stop_ttl_sweeper() is True
        again = store.start_ttl_sweeper(1)
        assert not again.done()
    assert again.result(1) is None
