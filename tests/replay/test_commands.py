"""Each command of `ccs-replay`, on a real log, as its user runs it."""

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

import ccs_stream
from tests.replay.conftest import Run, read_json


def test_info_counts_what_the_log_holds(path: Path, run: Run) -> None:
    info = read_json(run(f"sqlite:///{path}", "info", "--json"))
    assert (info["workspace"], info["artifacts"], info["tombstones"], info["void_records"]) == ("w", 3, 1, {})
    assert info["agents"] == ["planner", "reviewer"]
    assert info["events"] == sum(info["events_by_kind"].values())
    assert info["events_by_kind"]["CommandRefused"] == 1
    with ccs_stream.connect(f"sqlite:///{path}", workspace="w") as workspace:
        assert info["state_hash"] == workspace.state_hash()


def test_without_a_command_info_runs(path: Path, run: Run) -> None:
    result = run(f"sqlite:///{path}")
    assert result.returncode == 0
    assert "planner, reviewer" in result.stdout


def test_timeline_says_who_did_what_and_marks_lost_updates(path: Path, run: Run) -> None:
    text = run(f"sqlite:///{path}", "timeline").stdout
    lines = text.splitlines()
    lost = [line for line in lines if "LOST UPDATE" in line]
    assert len(lost) == 1
    assert "wrote shared/plan v3 over v2 (had read v1)" in lost[0]
    assert any("read shared/plan v1 (S)" in line for line in lines)
    assert any("refused on x: version_conflict" in line for line in lines)
    assert any("deleted shared/plan, now v4: done" in line for line in lines)
    sequences = [int(line.split()[0]) for line in lines]
    assert sequences == list(range(1, len(sequences) + 1))


def test_timeline_shows_a_part(path: Path, run: Run) -> None:
    source = f"sqlite:///{path}"
    whole = read_json(run(source, "timeline", "--json"))
    part = read_json(run(source, "timeline", "--json", "--from", "9", "--until", "12"))
    assert part[0]["sequence"] == 9
    assert part[-1]["sequence"] >= 12
    assert part == [line for line in whole if 9 <= line["sequence"] <= part[-1]["sequence"]]
    mine = read_json(run(source, "timeline", "--json", "--agent", "reviewer"))
    assert {line["agent"] for line in mine} == {"reviewer"}
    about = read_json(run(source, "timeline", "--json", "--artifact", "shared/plan"))
    assert {line["artifact"] for line in about} == {"shared/plan"}
    last = read_json(run(source, "timeline", "--json", "--from", "-2"))
    assert last == whole[-3:]  # the second last event is in a decision of two


def test_state_is_that_of_the_position_and_never_half_a_commit(path: Path, run: Run) -> None:
    source = f"sqlite:///{path}"
    whole = read_json(run(source, "timeline", "--json"))
    second = next(line["sequence"] for line in whole if line["what"].startswith("wrote y"))
    half = read_json(run(source, "state", "--at", str(second - 2), "--json"))
    state = read_json(run(source, "state", "--at", str(second), "--json"))
    assert half == state
    assert {each["artifact"]: each["version"] for each in state["artifacts"]} == {"shared/plan": 3, "x": 1, "y": 1}
    with ccs_stream.connect(source, workspace="w") as workspace:
        past = workspace.as_of(second)
    assert state["state_hash"] == past.state_hash()
    assert read_json(run(source, "state", "--at", str(past.position), "--json")) == state


@pytest.mark.parametrize("at", ["@2030-01-01", "@2030-01-01T10:00:00+02:00", "-1"])
def test_positions_by_time_and_from_the_end(path: Path, run: Run, at: str) -> None:
    source = f"sqlite:///{path}"
    end = read_json(run(source, "state", "--json"))
    assert read_json(run(source, "state", "--at", at, "--json")) == end


@pytest.mark.parametrize("at", ["99999", "@yesterday", "not-a-position", "@1999-01-01x"])
def test_a_malformed_position_is_explained(path: Path, run: Run, at: str) -> None:
    result = run(f"sqlite:///{path}", "state", "--at", at)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")


def test_artifact_shows_versions_writers_and_bases(path: Path, run: Run) -> None:
    shown = read_json(run(f"sqlite:///{path}", "artifact", "shared/plan", "--json"))
    rows = [(each["version"], each["kind"], each["agent"], each["base_version"]) for each in shown["versions"]]
    assert rows == [
        (4, "deleted", "reviewer", 3),
        (3, "written", "reviewer", 1),
        (2, "written", "planner", 1),
        (1, "written", "planner", None),
    ]
    assert shown["versions"][1]["invalidated"] == ["planner"]
    assert shown["versions"][3]["reason"] == "a first plan"


def test_artifact_prints_the_body_of_a_version_byte_for_byte(path: Path, run: Run) -> None:
    source = f"sqlite:///{path}"
    assert run(source, "artifact", "shared/plan", "--content", "1").stdout == '{"step":1}'
    large = run(source, "artifact", "x", "--content", "2").stdout
    assert json.loads(large) == {"large": "z" * 100_000}
    assert run(source, "artifact", '["a/b", "slash"]', "--content", "1").stdout == "raw"
    gone = run(source, "artifact", "shared/plan", "--content", "4")
    assert (gone.returncode, gone.stdout) == (2, "")


def test_an_unknown_name_is_answered_with_the_nearest(path: Path, run: Run) -> None:
    result = run(f"sqlite:///{path}", "artifact", "shared/pln")
    assert result.returncode == 2
    assert "did you mean shared/plan" in result.stderr
    assert run(f"sqlite:///{path}", "artifact", "[1]").returncode == 2


def test_an_archive_is_read_like_the_log(path: Path, run: Run, tmp_path: Path) -> None:
    source = f"sqlite:///{path}"
    exported = run(source, "export", "-o", "out.avro", "--json")
    assert exported.returncode == 0
    assert read_json(exported)["records"] == read_json(run(source, "info", "--json"))["records"]
    for command in (["timeline", "--json"], ["state", "--json"], ["artifact", "x", "--json"]):
        assert run("file:out.avro", *command).stdout == run(source, *command).stdout
    assert (
        run("file:out.avro", "artifact", "x", "--content", "2").stdout
        == run(source, "artifact", "x", "--content", "2").stdout
    )
    assert run(source, "export", "-o", "out.avro").returncode == 2
    assert run(source, "export", "-o", "out.avro", "--force").returncode == 0
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_nothing_is_written_to_the_source(path: Path, run: Run, tmp_path: Path) -> None:
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    for command in (["info"], ["timeline"], ["state"], ["artifact", "x"], ["verify"], ["export", "-o", "o.avro"]):
        run(f"sqlite:///{path}", *command)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workspace", "other", "SOURCE", "info", "--json"),
        ("SOURCE", "--workspace", "other", "info", "--json"),
        ("SOURCE", "info", "--json", "--workspace", "other"),
        ("SOURCE", "info", "--workspace=other", "--json"),
        ("SOURCE", "-w", "other", "info", "--json"),
        ("SOURCE", "info", "-wother", "--json"),
    ],
)
def test_the_workspace_may_be_named_anywhere(path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    with ccs_stream.connect(f"sqlite:///{path}", workspace="other") as workspace:
        workspace.agent("a").write("k", 1)
    found = read_json(run(*(f"sqlite:///{path}" if each == "SOURCE" else each for each in arguments)))
    assert (found["workspace"], found["artifacts"]) == ("other", 1)


@pytest.mark.parametrize("arguments", [("SOURCE", "info", "--workspace"), ("SOURCE", "info", "--", "-w", "other")])
def test_a_workspace_that_is_not_named_is_a_usage_error(path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*(f"sqlite:///{path}" if each == "SOURCE" else each for each in arguments))
    assert result.returncode == 2
    assert result.stdout == ""


def test_a_log_with_several_workspaces_needs_the_name_of_one(path: Path, run: Run) -> None:
    with ccs_stream.connect(f"sqlite:///{path}", workspace="other") as workspace:
        workspace.agent("a").write("k", 1)
    result = run(f"sqlite:///{path}", "info")
    assert result.returncode == 2
    assert "--workspace" in result.stderr
    assert run("-w", "other", f"sqlite:///{path}", "info").returncode == 0
    assert run("-w", "third", f"sqlite:///{path}", "info").returncode == 2


def test_errors_are_one_line_and_say_what_to_do(run: Run, tmp_path: Path) -> None:
    missing = run("sqlite:///absent.db", "info")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "error: there is no file absent.db: check the path\n"
    assert run("team.db", "info").returncode == 2
    connection = sqlite3.connect(tmp_path / "theirs.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert "something else" in run("sqlite:///theirs.db", "info").stderr
    (tmp_path / "notes.avro").write_text("hello")
    assert run("file:notes.avro", "info").returncode == 1


def test_help_is_for_strangers(run: Run) -> None:
    text = run("--help").stdout
    for word in ("timeline", "verify", "export", "Exit codes: 0 clean, 1 error, 2 usage, 3 findings"):
        assert word in text
