"""The examples do what they say, run as their readers run them."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def replayed(*arguments: str) -> str:
    command = [sys.executable, "-c", "from ccs_stream.replay import main; main()", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


GRAPHS = {
    # Reads, hit rate: what the construction of each graph asks for, whatever is in its texts.
    "langgraph_planner": (12, 0.75),
    "code_review": (5, 0.0),
    "research_pipeline": (15, 0.6),
    "shared_codebase": (51, 0.353),
    "multi_agent_planning": (11, 0.364),
}


def counted(name: str, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(f"examples.{name}", "--json", *arguments))
    reads, rate = GRAPHS[name]
    assert (found["summary"]["n_operations"], found["summary"]["cache_hit_rate"]) == (reads, rate)
    assert found["savings"]["by_cause"].get("hit", 0) == round(reads * rate)  # a token each
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_says_what_happened_and_both_accounts(name: str) -> None:
    said = run(f"examples.{name}")
    reads, rate = GRAPHS[name]
    assert f"reads                 {reads}\n" in said
    assert f"hit rate              {rate:.3f}\n" in said
    assert "all that moved" in said
    assert "ccs-replay" not in said


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_counts_the_same_on_sqlite(name: str, tmp_path: Path) -> None:
    in_memory, kept = counted(name), counted(name, "--log", f"sqlite:///{tmp_path}/runs.db")
    assert (kept["summary"], kept["savings"]) == (in_memory["summary"], in_memory["savings"])
    # A run can be looked at afterwards as it says, and its log is sound: no update was lost, either.
    command, *arguments = shlex.split(kept["replay"])
    assert command == "ccs-replay"
    assert " wrote shared/" in replayed(*arguments)
    replayed(*arguments[:-1], "verify")


def test_where_nothing_is_read_twice_nothing_is_saved_and_it_is_said() -> None:
    assert counted("code_review")["savings"]["saved_pct"] == 0.0
    assert "Nothing was read twice, so nothing was saved" in run("examples.code_review")


def test_the_flow_of_invalidations_in_every_run_on_one_log(tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/runs.db"
    found, again = (counted("multi_agent_planning", "--log", log) for _ in range(2))
    assert (again["rounds"], again["savings"]) == (found["rounds"], found["savings"])
    for each in (found, again):
        assert " wrote shared/plan v3" in replayed(*shlex.split(each["replay"])[1:])
    assert found["rounds"] == [
        "plan v1, written by planner",
        "    held a copy     nobody",
        "    were notified   nobody",
        "    fetched it      engineer",
        "plan v2, written by engineer",
        "    held a copy     planner",
        "    were notified   planner",
        "    fetched it      tester, reviewer, planner",
        "plan v3, written by tester",
        "    held a copy     planner, engineer, reviewer",
        "    were notified   planner, engineer, reviewer",
        "    fetched it      reviewer, planner, engineer",
        "4 looks were served from copies: engineer, tester, tester, reviewer",
    ]
    assert found["savings"]["by_cause"]["signal"] == 4 * 12


@pytest.mark.parametrize("name", ["task_board", *GRAPHS])
def test_help_is_for_strangers(name: str) -> None:
    said = run(f"examples.{name}", "--help")
    assert f"python -m examples.{name}" in said
    assert "sqlite:///" in said
    assert f"`{name}`" in (ROOT / "examples" / "README.md").read_text("utf-8")


def test_a_wrong_url_is_said_in_a_sentence() -> None:
    command = [sys.executable, "-m", "examples.code_review", "--log", "runs.db"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 'runs.db' is no URL: write sqlite:///runs.db")


@pytest.mark.kafka
def test_a_graph_counts_the_same_on_kafka(kafka_log: str) -> None:
    in_memory, found = counted("multi_agent_planning"), counted("multi_agent_planning", "--log", kafka_log)
    assert (found["rounds"], found["savings"]) == (in_memory["rounds"], in_memory["savings"])
