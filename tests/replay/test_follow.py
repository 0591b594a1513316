"""`ccs-replay timeline --follow`: what comes is printed as it comes, until somebody has seen enough."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

import ccs_stream
from tests.replay.conftest import Run

PATIENCE_S = 40.0


class Following:
    """A running `timeline --follow`, read through a pipe."""

    def __init__(self, source: str, *options: str) -> None:
        # Ctrl-C means what it means in a foreground, also where these tests were started in a background.
        heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        program = f"{heeded}; from ccs_stream.replay import main; main()"
        command = [sys.executable, "-c", program, source, "timeline", "--follow", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self.said = ""
        self._queue: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))

    def until(self, text: str) -> float:
        """Wait for a line with this; how long it took."""
        began = time.monotonic()
        while True:
            try:
                self.lines.append(self._queue.get(timeout=PATIENCE_S))
            except queue.Empty:
                pytest.fail(f"no line with {text!r}, but {self.lines}")
            if text in self.lines[-1]:
                return time.monotonic() - began

    def interrupt(self) -> int:
        """As Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.said = self.process.stderr.read()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._thread.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def test_lines_are_printed_as_they_are_written(path: Path) -> None:
    source = f"sqlite:///{path}"
    with Following(source, "--from", "-1") as following, ccs_stream.connect(source, workspace="w") as workspace:
        following.until("left")
        agent = workspace.agent("late")
        for number in range(3):
            agent.write("k", number)
            assert following.until(f"wrote k v{number + 1}") < 5
        assert following.interrupt() == 130
    sequences = [int(line.split()[0]) for line in following.lines]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert following.said.strip() == "interrupted"


def test_new_events_are_filtered_like_old_ones(path: Path) -> None:
    source = f"sqlite:///{path}"
    chosen = ("--json", "--agent", "late")
    with Following(source, *chosen) as following, ccs_stream.connect(source, workspace="w") as workspace:
        workspace.agent("early").write("k", 1)
        workspace.agent("late").write("k", 2)
        following.until("wrote k v2")
        assert following.interrupt() == 130
    lines = [json.loads(line) for line in following.lines]
    assert {line["agent"] for line in lines} == {"late"}
    assert lines[-1]["lost_update"] is True


def test_following_refuses_an_end_and_an_archive(path: Path, run: Run) -> None:
    source = f"sqlite:///{path}"
    assert run(source, "timeline", "--follow", "--until", "5").returncode == 2
    assert run(source, "export", "-o", "out.avro").returncode == 0
    result = run("file:out.avro", "timeline", "--follow")
    assert (result.returncode, result.stdout) == (2, "")
    assert "archive" in result.stderr


def test_following_ends_when_the_reader_of_the_pipe_goes_away(path: Path) -> None:
    source = f"sqlite:///{path}"
    program = "from ccs_stream.replay import main; main()"
    command = [sys.executable, "-c", program, source, "timeline", "--follow", "--from", "-1"]
    ours, theirs = os.pipe()
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert b"left" in os.read(ours, 1_000)
    os.close(ours)
    with ccs_stream.connect(source, workspace="w") as workspace:
        workspace.agent("late").write("k", 1)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (1, b"")
