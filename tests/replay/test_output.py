"""Text of agents is data: whatever it holds, a tool shows it on one line, as it is or as escapes."""

import ast
import contextlib
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ccs_stream
from ccs_stream.replay.output import console, print_json, print_json_line, print_pairs, say, table, visible
from tests.architecture.tree import ROOT
from tests.replay.conftest import Run

ANY_TEXT = st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "L", "P", "So"]))
ENCODINGS = ["ascii", "cp1252", "utf-8", "latin-1"]


def printed(encoding: str, show: object) -> str:
    """What `show` prints on a stream of this encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, newline="\n", write_through=True)
    with contextlib.redirect_stdout(stream):
        show()  # type: ignore[operator]
    return raw.getvalue().decode(encoding)


def moves(text: str) -> set[str]:
    """The characters that a terminal would act upon, or would not show."""
    return {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=ANY_TEXT)
def test_a_line_is_a_line_and_moves_no_cursor(encoding: str, text: str) -> None:
    shown = printed(encoding, lambda: say(f"before {text} behind"))
    assert shown.count("\n") == 1
    assert not moves(shown)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=ANY_TEXT)
def test_a_table_shows_a_text_and_moves_no_cursor(encoding: str, text: str) -> None:
    made = table(text, ["name"], [[text]])
    assert not moves(printed(encoding, lambda: console().print(made)))
    assert not moves(printed(encoding, lambda: print_pairs([("name", text)])))


@pytest.mark.parametrize("text", ["prompt [/INST]", "arr[int]", "[bold]x[/bold]", "[/]", ":smile:", "[link=x]y"])
def test_markup_is_text(text: str) -> None:
    assert text in printed("utf-8", lambda: console().print(table("", ["name"], [[text]])))
    assert text in printed("utf-8", lambda: print_pairs([("name", text)]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=ANY_TEXT)
def test_json_says_the_same_on_every_encoding(encoding: str, text: str) -> None:
    document = {"name": text, text: [1, None]}
    for show in (print_json, print_json_line):
        shown = printed(encoding, lambda show=show: show(document))
        assert json.loads(shown) == json.loads(json.dumps(document))
        assert not moves(shown)


def test_names_of_any_language_are_shown_as_they_are() -> None:
    assert visible("редактор 計画 müde 🙂") == "редактор 計画 müde 🙂"
    assert visible("a\nb\x1b[2J\u202ec\u2028") == r"a\nb\x1b[2J\u202ec\u2028"


@pytest.mark.parametrize(
    "command", [("info",), ("state",), ("timeline",), ("transitions",), ("deliveries",), ("verify",)]
)
def test_every_command_shows_odd_names(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    forged = "x\n      99  2026-01-01T00:00:00  admin  deleted payroll\x1b]0;owned\x07\u202e[/INST]"
    with ccs_stream.connect(f"sqlite:///{tmp_path}/odd.db", workspace="w") as workspace:
        workspace.agent(forged).write(forged, 1, scope=(forged,), reason=forged)
        workspace.agent("other").write(forged, 2, scope=(forged,))
        workspace.agent("other").delete(forged, scope=(forged,), reason=forged)
    for more in ((), ("--json",)):
        done = run(f"sqlite:///{tmp_path}/odd.db", *command, *more)
        assert done.returncode in (0, 3), done.stderr
        assert not moves(done.stdout)
        assert not any(line.strip().startswith("99 ") for line in done.stdout.split("\n"))


def test_tools_print_through_the_one_module() -> None:
    found = []
    for room in (ROOT / "replay", ROOT / "ccs_stream" / "cli"):
        for path in sorted(room.rglob("*.py")):
            if path.name == "output.py":
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="print")):
                        found.append(f"{path.name}:{node.lineno} print")
                    case ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr="echo" | "secho")):
                        found.append(f"{path.name}:{node.lineno} click.echo")
                    case ast.Call(func=ast.Name(id="Console" | "Table")):
                        found.append(f"{path.name}:{node.lineno} rich")
                    case _:
                        pass
    assert found == []
