"""`ccs-replay SOURCE transitions`: the state log, derived from a real log at any later time."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import ccs_stream
from ccs_stream.cli import main
from ccs_stream.client.observers.state_log import StateLog
from tests.replay.conftest import Run

Line = dict[str, Any]


def lines(run: Run, *arguments: str | Path) -> list[Line]:
    result = run(*arguments, "transitions", "--json")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_shows_the_agent_both_states_and_the_cause(path: Path, run: Run) -> None:
    text = run(f"sqlite:///{path}", "transitions").stdout.splitlines()
    told = [line.split(maxsplit=2) for line in text[:7]]
    assert [" ".join(rest.split()) for _, _, rest in told] == [
        "planner I > E fetch shared/plan v0",
        "planner E > E write shared/plan v0",
        "planner E > M commit shared/plan v1",
        "planner M > S fetch shared/plan v1",
        "reviewer I > S fetch shared/plan v1",
        "reviewer S > I write shared/plan v1",
        "planner S > E write shared/plan v1",
    ]
    sequences = [int(line.split()[0]) for line in text]
    assert sequences == sorted(sequences)


def test_as_json_transitions_are_the_lines_of_a_stores_state_log(tmp_path: Path, run: Run) -> None:
    url, told = f"sqlite:///{tmp_path}/told.db", list[Line]()
    with ccs_stream.connect(url, workspace="w") as workspace:
        log = StateLog(workspace.coordinator, told.append, instance_id="one")
        planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
        planner.write("plan", 1)
        reviewer.read("plan")
        reviewer.write("plan", 2)
        planner.delete("plan")
        assert log.close(30)
    derived = lines(run, url)[: len(told)]
    (instance,) = {line["instance_id"] for line in derived}
    assert derived == [{**line, "instance_id": instance} for line in told]


def test_any_part_of_the_transitions_is_a_complete_stream(path: Path, run: Run, tmp_path: Path) -> None:
    for number, options in enumerate(([], ["--from", "9"], ["--agent", "reviewer"], ["--artifact", "x"])):
        result = run(f"sqlite:///{path}", "transitions", "--json", *options)
        printed = tmp_path / f"{number}.jsonl"
        printed.write_text(result.stdout)
        assert result.stdout
        assert CliRunner().invoke(main, ["validate", str(printed)]).exit_code == 0


def test_a_part_of_the_transitions_is_the_same_part_of_the_whole(path: Path, run: Run) -> None:
    source = f"sqlite:///{path}"

    def bare(*options: str) -> list[Line]:
        result = run(source, "transitions", "--json", *options)
        assert result.returncode == 0, result.stderr
        return [{**json.loads(line), "sequence_number": 0} for line in result.stdout.splitlines()]

    whole = bare()
    begin, end = whole[4]["tick"], whole[-4]["tick"]
    part = bare("--from", str(begin), "--until", str(end))
    assert part
    assert part == [line for line in whole if begin <= line["tick"] <= part[-1]["tick"]]
    assert part[-1]["tick"] >= end
    assert bare("--agent", "reviewer") == [line for line in whole if line["agent_name"] == "reviewer"]
    plan = whole[0]["artifact_id"]
    assert bare("--artifact", "shared/plan") == [line for line in whole if line["artifact_id"] == plan]


def test_the_end_of_a_session_and_a_delete_are_shown(path: Path, run: Run) -> None:
    whole = lines(run, f"sqlite:///{path}")
    assert whole[-1]["trigger"] == "invalidate"
    assert {line["to_state"] for line in whole if line["trigger"] == "invalidate"} == {"INVALID"}
    deleted = [line for line in whole if line["trigger"] == "invalidate" and line["version"] == 4]
    assert [line["from_state"] for line in deleted] == ["MODIFIED"]


def test_an_unknown_artifact_or_position_is_a_usage_error(path: Path, run: Run) -> None:
    result = run(f"sqlite:///{path}", "transitions", "--artifact", "none")
    assert result.returncode == 2
    assert run(f"sqlite:///{path}", "transitions", "--from", "99999").returncode == 2
