"""The demo, run as its user runs it: on a small tree with planted faults, as data and as a story."""

import dataclasses
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from ccs_stream import __version__
from ccs_stream.cli import main
from ccs_stream.cli.demo import run, sources
from ccs_stream.cli.demo.graph import ROUNDS
from ccs_stream.cli.demo.result import DemoResult
from ccs_stream.cli.demo.run import check_log, run_demo
from ccs_stream.cli.demo.sources import collect
from ccs_stream.cli.demo.story import tell_story

# One worker runs the demo once for all of these tests.

PLANTED = {
    "shop/__init__.py": '"""A shop."""\n',
    "shop/orders.py": '"""Orders."""\n\nimport shop.stock\n\n\ndef place(order): ...\n',
    "shop/stock.py": '"""Stock."""\n\nimport shop.orders\n\n\ndef total(text):\n    return eval(text)\n',
}


def plant(folder: Path) -> Path:
    """A package with an undocumented function in each of two files, an eval, and a cycle of imports."""
    (folder / "shop").mkdir()
    for name, text in PLANTED.items():
        (folder / name).write_text(text)
    return folder / "shop"


def command(script: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """A console script, run as its own process. A warning there is an error too."""
    program = f"import sys; from ccs_stream.{script} import main; sys.argv[0] = {script!r}; main()"
    environment = {**os.environ, "PYTHONWARNINGS": "error", "LANGSMITH_TRACING": "true"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tree and the log are."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What `ccs-stream demo --json` printed."""
    result = command("cli", "demo", str(plant(folder)), "--log", "sqlite:///demo.db", "--json", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def outcome(told: dict[str, Any], folder: Path) -> DemoResult:
    """A second demo on the same log, run in this process."""
    assert told["log"]["workspace"] == "demo"
    log = check_log(f"sqlite:///{folder}/demo.db")
    return run_demo(collect(folder / "shop"), log, show_progress=lambda _: None)


# As data.


def test_every_expectation_of_the_demo_holds(told: dict[str, Any]) -> None:
    assert told["version"] == __version__
    assert told["held"] is True
    assert [each for each in told["checks"] if not each["held"]] == []
    assert len(told["checks"]) == 11


def test_the_reviewers_find_what_was_planted(told: dict[str, Any]) -> None:
    review = told["review"]
    found = {each["agent"]: each for each in review["reviewers"]}
    assert [(each["rule"], each["path"], each["line"]) for each in found["security"]["findings"]] == [
        ("risky-call", "shop/stock.py", 8)  # one line below where it was planted: a docstring was written above it
    ]
    assert [(each["rule"], each["path"]) for each in found["architecture"]["findings"]] == [("cycle", "shop/orders.py")]
    # The function on one line has no place for a docstring: it stays as it is, and stays reported.
    assert [(each["name"], each["path"]) for each in found["style"]["findings"]] == [("place", "shop/orders.py")]
    assert (found["style"]["at_first"], found["style"]["at_last"]) == (2, 1)
    assert review["fixed"] == ["shop/stock.py"]
    assert "shop/stock.py:8: eval runs whatever text it is given [return eval(text)]" in review["report"]
    assert (review["files"], review["rounds"], review["left_out"]) == (3, ROUNDS, [])


def test_the_files_are_left_as_they_were(told: dict[str, Any], folder: Path) -> None:
    assert told["held"]
    assert {name: (folder / name).read_text() for name in PLANTED} == PLANTED


def test_tokens_are_counted_from_the_log(told: dict[str, Any]) -> None:
    review = told["review"]
    assert [each["agent"] for each in review["readings"]] == ["architecture", "security", "style", "synthesizer"]
    for each in review["readings"]:
        assert each["reads"] == each["fetched"] + each["unchanged"]
        assert 0 < each["fetched"] < each["reads"]
        assert each["signals"] > 0
    assert review["tokens"] == sum(each["tokens"] for each in review["readings"])
    assert 0 < review["tokens"] < review["tokens_rereading"]


def test_a_lost_update_is_on_record(told: dict[str, Any]) -> None:
    race = told["unguarded"]
    assert race["lost"]
    assert race["kept"] + len(race["lost"]) == race["acknowledged"] == 20
    for each in race["overwrites"]:
        assert each["version"] == each["had_read"] + len(each["unseen"]) + 1
    assert told["lost_updates"] == len(race["overwrites"])
    assert told["violations"] == 0


def test_the_guarded_race_loses_nothing(told: dict[str, Any]) -> None:
    race = told["guarded"]
    assert (race["lost"], race["overwrites"], race["kept"], race["acknowledged"]) == ([], [], 20, 20)
    assert race["refused"] > 0


def test_the_late_write_of_a_stopped_holder_is_refused(told: dict[str, Any]) -> None:
    stopped = told["stopped"]
    assert stopped["late_write"] == "reclaimed"
    assert stopped["stopped_s"] > stopped["waited_s"] > 0
    assert stopped["fence_after"] > stopped["fence"]
    assert stopped["versions"] == ["successor", "holder"]


def test_killed_writers_lose_nothing_and_halve_nothing(told: dict[str, Any]) -> None:
    killed = told["killed"]
    assert (killed["kills"], killed["missing"], killed["halves"]) == (3, 0, 0)
    assert killed["acknowledged"] > 0
    assert killed["in_flight_kept"] <= killed["in_flight"] <= killed["kills"]


def test_the_state_rebuilt_from_the_log_is_the_live_one(told: dict[str, Any]) -> None:
    rebuilt = told["rebuilt"]
    assert rebuilt["gap_free"]
    assert rebuilt["rebuilt_hash"] == rebuilt["live_hash"]


def test_the_commands_it_ends_with_work(told: dict[str, Any], folder: Path) -> None:
    commands = [shlex.split(each["command"]) for each in told["replay"]]
    results = [subprocess.run(each, cwd=folder, capture_output=True, text=True, check=False) for each in commands]
    assert [each.returncode for each in results] == [0, 0, 3]
    timeline, artifact, verify = (each.stdout for each in results)
    assert "reclaimed" in timeline
    assert "writer-a" in artifact
    assert f"0 violations, {told['lost_updates']} lost updates" in verify


def test_replay_finds_the_state_that_was_live(told: dict[str, Any], folder: Path) -> None:
    rebuilt = told["rebuilt"]
    arguments = ("sqlite:///demo.db", "state", "--at", str(rebuilt["sequence"]), "--json")
    result = command("replay", *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert rebuilt["live_hash"] in result.stdout


# As a story, and again on the same log.


def test_a_second_demo_on_one_log_has_a_workspace_of_its_own(outcome: DemoResult, folder: Path) -> None:
    assert outcome.held
    assert outcome.log.workspace == "demo-2"
    _, *arguments = shlex.split(outcome.replay[1].command)
    assert "writer-b" in command("replay", *arguments, cwd=folder).stdout


def written(outcome: DemoResult, *, terminal: bool, **options: Any) -> str:
    """The story, as it is written to a terminal or to a pipe."""
    out = io.StringIO()
    tell_story(outcome, Console(file=out, force_terminal=terminal, **options))
    return out.getvalue()


def test_the_story_in_a_pipe_is_plain_text(outcome: DemoResult) -> None:
    text = written(outcome, terminal=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert max(len(line) for line in lines if "ccs-replay" not in line) <= 120
    for each in outcome.replay:
        assert f"   {each.command}\n" in text


def test_the_story_tells_what_was_measured(outcome: DemoResult) -> None:
    text = " ".join(written(outcome, terminal=False).split())
    assert "Four agents review 3 files" in text
    assert f"{outcome.review.saved_percent} % of the tokens did not have to move" in text
    assert f"{outcome.unguarded.kept} entries are in the list; lost: writer-" in text
    assert outcome.stopped.detail in text
    assert outcome.rebuilt.live_hash in text
    assert "all 11 held" in text
    assert "FAILED" not in text


def test_the_story_on_a_narrow_terminal_keeps_commands_whole(outcome: DemoResult) -> None:
    text = written(outcome, terminal=True, width=60, color_system="standard")
    assert "\x1b[" in text
    for each in outcome.replay:
        assert each.command in text


def test_the_story_says_what_was_left_out_and_what_failed(outcome: DemoResult) -> None:
    left_out = [sources.SkippedFile(path=f"big{number}.py", why="has 1 byte too many") for number in range(5)]
    checks = [dataclasses.replace(outcome.checks[0], held=False), *outcome.checks[1:]]
    changed = dataclasses.replace(
        outcome, review=dataclasses.replace(outcome.review, left_out=left_out), checks=checks, held=False
    )
    text = written(changed, terminal=False)
    assert "left out 5: big0.py has 1 byte too many; " in text
    assert "and 2 more" in text
    assert "1 of 11 did not hold" in text
    assert f"FAILED  {checks[0].what}" in text


def test_a_failed_expectation_ends_with_exit_code_1(
    outcome: DemoResult, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(run, "run_demo", lambda *_, **__: dataclasses.replace(outcome, held=False))
    arguments = ["demo", str(folder / "shop"), "--log", f"sqlite:///{folder}/demo.db", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["held"] is False
    assert orjson.loads(result.stdout)["unguarded"] == orjson.loads(orjson.dumps(outcome.unguarded))
