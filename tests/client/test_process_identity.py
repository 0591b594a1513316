"""Which process acted: on record when an agent joins, and shown by the tools."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.client.process_identity import identify_process
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import ParticipantJoined


def joined(url: str) -> list[ParticipantJoined]:
    store = open_log(url, read_only=True)
    events = [
        event for entry in ShardReader(store, "w").read() for event in entry.events if type(event) is ParticipantJoined
    ]
    store.close()
    return events


def test_a_joining_agent_says_which_process_it_runs_in(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, workspace="w", labels={"run": "7", "team": "blue"}) as workspace:
        workspace.agent("planner").write("plan", 1)
    (event,) = joined(url)
    assert (event.host, event.pid) == (socket.gethostname(), os.getpid())
    assert event.program
    assert event.release == ccs_stream.__version__
    assert event.labels == {"run": "7", "team": "blue"}


def test_the_host_can_be_left_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with CoherentStore(url, workspace="w", labels={"run": "7"}, identify_host=False) as store:
        store.put(("team",), "plan", {"step": 1})
    (event,) = joined(url)
    assert (event.host, event.pid, event.program) == (None, None, None)
    assert event.release == ccs_stream.__version__
    assert event.labels == {"run": "7"}


@pytest.mark.parametrize(
    "labels",
    [
        "run",
        7,
        ["run"],
        {"run": 7},
        {7: "run"},
        {"run": "\ud800"},
        {"run": "x" * 1_000},
        {str(number): "x" for number in range(100)},
    ],
)
def test_labels_that_the_log_cannot_hold_open_nothing(labels: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label"):
        ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", labels=labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [None, 0, 1, "no"])
def test_identify_host_is_true_or_false(option: Any) -> None:
    with pytest.raises(UsageError, match="identify_host is True or False"):
        ccs_stream.connect(identify_host=option)


@pytest.mark.parametrize("program", ["x" * 5_000, "tool-\udcff", ""])
def test_odd_names_of_programs_are_made_storable(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", [program])
    identity = identify_process()
    assert identity.program
    assert len(identity.program.encode()) <= 1_024


def test_a_module_that_was_started_is_named(tmp_path: Path) -> None:
    (tmp_path / "planner.py").write_text(
        "from ccs_stream.client.process_identity import identify_process\nprint(identify_process().program)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "planner"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "planner"


def test_the_tools_show_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, workspace="w", labels={"run": "7"}) as workspace:
        workspace.agent("planner").write("plan", 1)
    for command in ("info", "timeline", "deliveries"):
        replay = str(Path(sys.executable).with_name("ccs-replay"))
        ran = subprocess.run([replay, url, command], capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        assert str(os.getpid()) in ran.stdout, command
