"""Opening a log again in a process that has it open already takes nothing from the first opening.

SQLite's locks are POSIX locks, which a process loses as soon as it closes any descriptor of the file, one that only
read a few bytes included (https://www.sqlite.org/howtocorrupt.html, 2.2). Then another process that leaves takes itself
for the last one, and removes the write-ahead log under the first: what that writes next is acknowledged and lost.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream.log.urls import open_log

WORKER = Path(__file__).with_name("worker.py")


def reading(url: str) -> None:
    open_log(url, read_only=True).close()


def writing(url: str) -> None:
    open_log(url).close()


def another_workspace(url: str) -> None:
    with ccs_stream.connect(url, workspace="other") as workspace:
        workspace.agent("a").write("k", 1)


@pytest.mark.parametrize("again", [reading, writing, another_workspace])
def test_opening_the_log_again_drops_no_lock_of_this_process(again: Callable[[str], None], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("here")
        agent.write("k", 1)
        before = (tmp_path / "log.db-wal").stat().st_ino
        again(url)
        subprocess.run([sys.executable, WORKER, "count", url, "elsewhere", "3"], check=True, capture_output=True)
        assert (tmp_path / "log.db-wal").stat().st_ino == before
        agent.write("k", 2)
        live = workspace.state_hash()
        position = workspace.position
    with ccs_stream.connect(url, workspace="w") as workspace:
        assert workspace.as_of(position).state_hash() == live
