"""The examples do what they say, run as their readers run them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_task_board_on_sqlite(tmp_path: Path) -> None:
    said = run("examples.task_board", f"sqlite:///{tmp_path}/board.db", "--tasks", "20")
    assert "every task was done exactly once" in said


@pytest.mark.kafka
def test_the_task_board_on_kafka(kafka_log: str) -> None:
    said = run("examples.task_board", kafka_log, "--tasks", "20")
    assert "every task was done exactly once" in said
