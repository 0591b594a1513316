"""A write that is refused leaves no body behind, wherever its body was put first."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Put, VersionConflict, Workspace
from ccs_stream.log.memory import MemoryLog

LARGE = "x" * 200_000


def bodies(workspace: Workspace) -> int:
    store: Any = workspace.coordinator.store
    if isinstance(store, MemoryLog):
        return len(store._contents)
    with sqlite3.connect(store.path) as file:
        count = file.execute("SELECT count(*) FROM contents").fetchone()[0]
    file.close()
    return int(count)


@pytest.fixture(params=["memory", "sqlite"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db" if request.param == "sqlite" else None) as workspace:
        yield workspace


def test_a_refused_write_leaves_no_body(workspace: Workspace) -> None:
    author = workspace.agent("author")
    author.write("plan", LARGE)
    assert bodies(workspace) == 1
    for _ in range(3):
        with pytest.raises(VersionConflict) as refused:
            author.compare_and_set("plan", LARGE + "y", expected=7)
        assert refused.value.current_value == LARGE
        with pytest.raises(VersionConflict):
            workspace.write_all([Put("plan", LARGE + "z", expected=7), Put("other", LARGE)], agent="author")
    assert bodies(workspace) == 1
    author.compare_and_set("plan", LARGE + "y", expected=1)
    read = workspace.agent("b").read("plan")
    assert read is not None
    assert read.value == LARGE + "y"


async def test_a_refused_write_of_a_coroutine_leaves_no_body(workspace: Workspace) -> None:
    author = workspace.agent("author")
    await author.awrite("plan", LARGE)
    with pytest.raises(VersionConflict):
        await author.acompare_and_set("plan", LARGE + "y", expected=7)
    assert bodies(workspace) == 1
