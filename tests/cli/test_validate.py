"""`ccs-stream validate`, as its user runs it."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ccs_stream
from ccs_stream.cli import main
from ccs_stream.client.observers.json_lines import JsonLines
from ccs_stream.client.observers.state_log import StateLog
from tests.projections.test_stream_checks import audit, metric, state


def validate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["validate", *map(str, arguments)])


def report(*arguments: str | Path) -> dict[str, Any]:
    result = validate(*arguments, "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code
    return document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What a state log wrote."""
    path = tmp_path / "states.jsonl"
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", workspace="w") as workspace:
        log = StateLog(workspace.coordinator, path, instance_id="one")
        planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
        for number in range(3):
            planner.write("plan", number)
            reviewer.read("plan")
        reviewer.delete("plan")
        assert log.close(30)
    return path


def test_a_file_that_a_state_log_wrote_is_clean(path: Path) -> None:
    result = validate(path)
    assert result.exit_code == 0, result.output
    lines = len(path.read_text().splitlines())
    assert result.stdout == f"clean: {lines} lines of 1 stream; tail checked\n"
    assert report(path)["streams"] == [
        {
            "stream": "ccs.state_log",
            "instance_id": "one",
            "lines": lines,
            "first": 1,
            "last": lines,
            "tail_checked": True,
        }
    ]


def test_C15_a_cut_tail_is_found(path: Path) -> None:  # noqa: N802
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    result = validate(path)
    assert result.exit_code == 3
    assert f"lines to {len(lines)} were written, and the file ends at {len(lines) - 2}: 2 are missing" in result.stdout
    assert "FINDINGS" in result.stdout
    path.write_text("")
    assert validate(path).exit_code == 3


def test_a_tail_cut_in_the_middle_of_a_line_is_found_with_its_number(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    found = report(path)
    assert found["exit_code"] == 3
    assert found["counts"] == {"malformed": 1, "cut_tail": 1}
    (malformed,) = (each for each in found["findings"] if each["kind"] == "malformed")
    assert malformed["line"] == len(data.splitlines())


def test_lines_after_a_cut_do_not_hide_it(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))
    JsonLines(path).append([state(1, "two")])
    assert report(path)["counts"] == {"cut_tail": 1}


def test_without_its_file_of_ends_the_end_of_a_file_cannot_be_checked(path: Path) -> None:
    (path.parent / "states.jsonl.end").unlink()
    result = validate(path)
    assert result.exit_code == 0
    assert f"tail not checkable: {path}.end is missing" in result.stdout
    assert report(path)["streams"][0]["tail_checked"] is False
    (path.parent / "states.jsonl.end").write_text("{")
    assert "cannot be understood" in validate(path).stdout


def test_a_file_of_ends_that_does_not_name_a_stream_is_reported(path: Path) -> None:
    with path.open("a") as more:
        more.write(json.dumps(metric(1, "two")) + "\n")
    result = validate(path)
    assert result.exit_code == 0
    assert "does not name ccs.metric of two" in result.stdout
    assert [each["tail_checked"] for each in report(path)["streams"]] == [False, True]


def test_two_instances_interleaved_are_no_gaps(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    for number in range(1, 6):
        for line in (state(number, "one"), audit(number, "one"), state(number, "two"), metric(number, "two")):
            JsonLines(path).append([line])
    found = report(path)
    assert found["findings"] == []
    assert (found["lines"], len(found["streams"]), found["tail"]) == (20, 4, "tail checked")


def test_each_finding_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "states.jsonl"
    bad = state(5, tick=True, more=1)
    del bad["version"]
    lines = [state(2), state(4), state(4), "{", bad, state(6, schema_version="ccs.state_log.v9"), {}]
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    result = validate(path)
    assert result.exit_code == 3
    found = {(each["kind"], each["line"]) for each in report(path)["findings"]}
    assert found == {
        ("late_start", 1),
        ("gap", 2),
        ("duplicate", 3),
        ("malformed", 4),
        ("wrong_type", 5),
        ("extra_key", 5),
        ("missing_key", 5),
        ("unknown_schema", 6),
        ("missing_key", 7),
    }
    for kind, _ in found:
        assert kind in result.stdout


def test_no_file_is_an_error_and_wrong_usage_says_what_to_type(tmp_path: Path) -> None:
    missing = validate(tmp_path / "none.jsonl")
    assert (missing.exit_code, "there is no file" in missing.output) == (1, True)
    assert validate(tmp_path).exit_code == 1
    assert validate().exit_code == 2
    assert validate(tmp_path / "none.jsonl", "--workspace", "w").exit_code == 2
    sqlite3.connect(tmp_path / "log.db").execute("CREATE TABLE t (x)").connection.close()
    result = validate(tmp_path / "log.db")
    assert result.exit_code == 2
    assert f"ccs-stream validate sqlite:///{tmp_path}/log.db" in result.output


def test_a_log_is_checked_as_by_replay(path: Path) -> None:
    url = f"sqlite:///{path.parent}/log.db"
    result = validate(url)
    assert result.exit_code == 0, result.output
    assert "clean" in result.stdout
    assert report(url)["violations"] == 0
    connection = sqlite3.connect(path.parent / "log.db")
    connection.execute("DELETE FROM records WHERE key = (SELECT max(key) - 1 FROM records)")
    connection.commit()
    connection.close()
    result = validate(url)
    assert result.exit_code == 3, result.output


def test_a_missing_log_is_an_error_and_several_workspaces_need_a_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    missing = validate(url)
    assert (missing.exit_code, missing.output.startswith("error: ")) == (1, True)
    for name in ("one", "two"):
        with ccs_stream.connect(url, workspace=name) as workspace:
            workspace.agent("a").write("k", 1)
    assert validate(url).exit_code == 2
    assert validate(url, "--workspace", "two").exit_code == 0
