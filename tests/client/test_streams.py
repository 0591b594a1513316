"""Files of JSON lines: whole, ended, and safe for several writers; where users may want lines."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.client.observers import json_lines
from ccs_stream.client.observers.json_lines import JsonLines, ends_path, lines_and_ends, parse_sink, read_ends
from ccs_stream.protocol.errors import UsageError

STATE, AUDIT = "ccs.state_log.v2", "ccs.content_audit.v1"


def lines(first: int, last: int, *, instance: str = "one", schema: str = STATE) -> list[dict[str, Any]]:
    return [
        {"sequence_number": number, "instance_id": instance, "schema_version": schema}
        for number in range(first, last + 1)
    ]


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["sequence_number"] for line in path.read_text().splitlines()]


def test_lines_are_appended_and_the_end_is_kept_beside_them(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "log.jsonl")
    file.append(lines(1, 3))
    assert numbers(file.path) == [1, 2, 3]
    assert json.loads((tmp_path / "log.jsonl.end").read_text()) == {"one": {"ccs.state_log": 3}}
    file.append([])
    file.append(lines(4, 4))
    assert numbers(file.path) == [1, 2, 3, 4]
    assert read_ends(ends_path(file.path)) == {"one": {"ccs.state_log": 4}}


def test_instances_and_streams_of_one_file_each_have_an_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    JsonLines(path).append(lines(1, 3))
    JsonLines(path).append(lines(1, 2, instance="two"))
    JsonLines(path).append(lines(1, 1, schema=AUDIT))
    assert read_ends(ends_path(path)) == {
        "one": {"ccs.state_log": 3, "ccs.content_audit": 1},
        "two": {"ccs.state_log": 2},
    }


def test_half_a_line_that_a_crash_left_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    JsonLines(path).append(lines(1, 2))
    with path.open("ab") as crashed:
        crashed.write(b'{"sequence_number": 3, "insta')
    JsonLines(path).append(lines(4, 4))
    found = path.read_text().splitlines()
    assert found[2] == '{"sequence_number": 3, "insta'
    assert json.loads(found[3])["sequence_number"] == 4


def test_what_cannot_be_ended_is_not_there_either_so_that_trying_again_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JsonLines(tmp_path / "log.jsonl")
    file.append(lines(1, 2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            file.append(lines(3, 4))
    assert numbers(file.path) == [1, 2]
    file.append(lines(3, 4))
    assert numbers(file.path) == [1, 2, 3, 4]


def append_many(path: Path, instance: str) -> None:
    file = JsonLines(path)
    for number in range(1, 201):
        file.append(lines(number, number, instance=instance))


def test_several_processes_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_many, args=(path, name)) for name in ("one", "two", "three")]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
        assert each.exitcode == 0
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for name in ("one", "two", "three"):
        assert [each["sequence_number"] for each in found if each["instance_id"] == name] == list(range(1, 201))
    assert read_ends(ends_path(path)) == {name: {"ccs.state_log": 200} for name in ("one", "two", "three")}


def test_a_writer_that_is_killed_leaves_whole_lines_or_half_of_one_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ccs_stream.client.observers.json_lines import JsonLines
        file, number = JsonLines(Path(sys.argv[1])), 0
        while True:
            number += 1
            file.append([{"sequence_number": number, "instance_id": "one", "schema_version": "ccs.state_log.v2"}])
            if number == 50:
                print("going", flush=True)
        """
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"going\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    ends = read_ends(ends_path(path))
    JsonLines(path).append(lines(1, 1, instance="two"))
    whole = []
    for line in path.read_bytes().splitlines():
        try:
            whole.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    assert whole[-1]["instance_id"] == "two"
    last = max(each["sequence_number"] for each in whole if each["instance_id"] == "one")
    assert ends is not None
    assert 49 <= ends["one"]["ccs.state_log"] <= last


def test_lines_are_read_to_where_they_ended_when_their_end_was(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    JsonLines(path).append(lines(1, 2))
    with lines_and_ends(path) as (found, ends):
        JsonLines(path).append(lines(3, 3))
        assert [json.loads(line)["sequence_number"] for line in found] == [1, 2]
        assert ends == {"one": {"ccs.state_log": 2}}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"one": 3}', '{"one": {"ccs.state_log": true}}'])
def test_an_end_that_makes_no_sense_is_none_and_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.jsonl"
    ends_path(path).write_text(text)
    assert read_ends(ends_path(path)) is None
    JsonLines(path).append(lines(1, 1))
    assert read_ends(ends_path(path)) == {"one": {"ccs.state_log": 1}}


def test_a_sink_is_a_function_or_a_file(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    callback = told.append
    assert parse_sink(callback, "state_log") == callback
    assert parse_sink(str(tmp_path / "a.jsonl"), "state_log") == tmp_path / "a.jsonl"
    assert parse_sink(tmp_path / "a.jsonl", "state_log") == tmp_path / "a.jsonl"
    assert not (tmp_path / "a.jsonl").exists()


async def awaited(line: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (3, 'state_log="lines.jsonl"'),
        ("", 'state_log="lines.jsonl"'),
        (None, "got None"),
        (awaited, "async"),
        ("{tmp}", "is a folder"),
        ("{tmp}/none/a.jsonl", "mkdir -p"),
    ],
)
def test_what_cannot_be_a_sink_is_refused_with_what_to_type(tmp_path: Path, option: Any, said: str) -> None:
    if isinstance(option, str):
        option = option.replace("{tmp}", str(tmp_path))
    with pytest.raises(UsageError, match="state_log") as refused:
        parse_sink(option, "state_log")
    assert said in str(refused.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch(0o400)
    with pytest.raises(UsageError, match="cannot be written to"):
        parse_sink(path, "state_log")


def test_a_long_batch_goes_out_whole_when_the_system_takes_it_by_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: memoryview) -> int:
            self.taken += bytes(data[:3])
            return len(data[:3])

    slow = Slow()
    json_lines._write_all(slow, b"0123456789")
    assert slow.taken == b"0123456789"
