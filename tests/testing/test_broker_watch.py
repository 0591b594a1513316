"""The watch over a process of a broker, on a process that costs nothing to start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccs_stream.testing import broker_watch
from tests.testing.kafka_io import PATIENCE_S


def watched(folder: Path, script: str) -> tuple[subprocess.Popen[bytes], int]:
    """A watch over a script, on behalf of this process; and the script's process."""
    command = [sys.executable, broker_watch.__file__, str(os.getpid()), str(folder), "/bin/sh", "-c", script]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert watch.stdout is not None
    with watch.stdout as answer:
        return watch, int(answer.readline())


def test_it_ends_as_its_command_does_and_leaves_the_folder(tmp_path: Path) -> None:
    watch, _ = watched(tmp_path, "exit 3")
    assert watch.wait(PATIENCE_S) == 3
    assert tmp_path.is_dir()


def test_a_killed_command_is_not_a_success(tmp_path: Path) -> None:
    watch, command = watched(tmp_path, "exec sleep 60")
    os.kill(command, signal.SIGKILL)
    assert watch.wait(PATIENCE_S) == 128 + signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_a_command_does_not_outlive_a_watch_that_is_killed(tmp_path: Path) -> None:
    # given
    watch, command = watched(tmp_path, "exec sleep 60")
    # when
    watch.kill()
    watch.wait(PATIENCE_S)
    # then
    deadline = time.monotonic() + PATIENCE_S
    while is_alive(command):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """Whether it is there and not merely waiting for its parent to look."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text("utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
