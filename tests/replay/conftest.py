"""A log with a little of everything, and the command run on it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Put, VersionConflict

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A planner and a reviewer, a lost update, a refusal, a reservation, a delete, an expiry, a large body."""
    path = tmp_path / "log.db"
    with ccs_stream.connect(f"sqlite:///{path}", workspace="w") as workspace:
        planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
        planner.write("plan", {"step": 1}, scope=("shared",), reason="a first plan")
        reviewer.read("plan", scope=("shared",))
        planner.write("plan", {"step": 2}, scope=("shared",))
        reviewer.write("plan", {"step": 3}, scope=("shared",))
        workspace.write_all([Put("x", 1), Put("y", 2)], agent="planner")
        with pytest.raises(VersionConflict):
            reviewer.compare_and_set("x", 5, expected=9)
        with planner.acquire("x"):
            planner.write("x", {"large": "z" * 100_000})
        reviewer.delete("plan", scope=("shared",), reason="done")
        planner.write("slash", b"raw", scope=("a/b",))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `ccs-replay` as a process of its own."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from ccs_stream.replay import main; main()", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    return call


def read_json(result: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed as JSON."""
    return json.loads(result.stdout)
