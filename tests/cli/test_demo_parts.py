"""The parts of the demo: how it is called, which files it takes, the graph with any model, the children."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langgraph.graph import START, MessagesState, StateGraph

from ccs_stream import __version__
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.cli import main
from ccs_stream.cli.demo import sources
from ccs_stream.cli.demo.evidence import Evidence
from ccs_stream.cli.demo.graph import CODE, FILES_FIXED, REVIEW, build_graph, tally, with_docstring
from ccs_stream.cli.demo.processes import Child, ChildFailed
from ccs_stream.cli.demo.run import check_log
from ccs_stream.cli.demo.sources import collect
from ccs_stream.cli.demo.tokens import SIGNAL_TOKENS, UNCHANGED_TOKENS, MeteredStore, count, tokens_of
from ccs_stream.client.values import encode_json
from ccs_stream.protocol.errors import UsageError

# Wrong usage.


def test_help_says_what_it_does() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.stdout
    result = CliRunner().invoke(main, ["demo", "--help"])
    assert result.exit_code == 0
    assert "Exit codes" in result.stdout
    for option in ("PATH", "--log URL", "--json"):
        assert option in result.stdout


def test_help_needs_no_framework(tmp_path: Path) -> None:
    program = (
        "import sys; from ccs_stream.cli import main\n"
        "try: main(['demo', '--help'])\n"
        "except SystemExit: print([each for each in sys.modules if each.startswith('lang')])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n")


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"ccs-stream, version {__version__}\n"


def test_a_missing_framework_is_reported_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 2
    assert "pip install 'ccs-stream[demo]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "there is nothing at nowhere"),
        (["."], "there is no Python file to review"),
        (["text.txt"], "no Python file: name one, or a folder"),
        (["binary.py"], "binary.py is not UTF-8"),
        (["ok.py", "--log", "memory:"], "kept in SQLite"),
        (["ok.py", "--log", "demo.db"], "kept in SQLite"),
        (["ok.py", "--log", "sqlite://demo.db"], "names no file"),
        (["ok.py", "--log", "sqlite:///demo.db?sync=1"], "unknown option 'sync'"),
        (["ok.py", "--jsn"], "No such option"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments != ["."]:
        (tmp_path / "text.txt").write_text("")
        (tmp_path / "binary.py").write_bytes(b"\xff\xfe\xff")
        (tmp_path / "ok.py").write_text("")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in " ".join(result.stderr.split())


def test_a_file_that_is_not_a_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ok.py").write_text("")
    (tmp_path / "other.db").write_text("something else")
    arguments = ["demo", str(tmp_path / "ok.py"), "--log", f"sqlite:///{tmp_path}/other.db"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not a SQLite file" in result.stderr


# Which files.


def test_paths_begin_at_the_outermost_package(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    for name in ("shop/__init__.py", "shop/stock.py"):
        (tmp_path / name).write_text("")
    assert list(collect(tmp_path / "shop").files) == ["shop/__init__.py", "shop/stock.py"]
    assert list(collect(tmp_path / "shop" / "stock.py").files) == ["shop/stock.py"]
    assert list(collect(tmp_path).files) == [f"{tmp_path.name}/shop/{name}.py" for name in ("__init__", "stock")]


def test_without_a_path_this_package_is_reviewed() -> None:
    found = collect(None).files
    assert {"ccs_stream/__init__.py", "ccs_stream/adapters/langgraph/store.py", "ccs_stream/replay/app.py"} <= set(
        found
    )


def test_environments_caches_and_loops_are_passed_over(tmp_path: Path) -> None:
    for name in (".venv/a.py", "node_modules/b.py", "env/pyvenv.cfg", "env/lib/c.py", "src/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "src" / "up").symlink_to(tmp_path)
    assert list(collect(tmp_path).files) == [f"{tmp_path.name}/src/d.py"]


def test_nothing_is_left_out_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FILES_MAX", 2)
    monkeypatch.setattr(sources, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(sources, "ALL_BYTES_MAX", 150)
    for name, size in {"a.py": 101, "b.py": 100, "c.py": 60, "d.py": 50, "e.py": 0}.items():
        (tmp_path / name).write_text("#" * size)
    found = collect(tmp_path)
    assert [Path(each).name for each in found.files] == ["b.py", "d.py"]
    assert [(Path(each.path).name, each.why) for each in found.left_out] == [
        ("a.py", "has 101 bytes, more than 100"),
        ("c.py", "comes after the first 150 bytes"),
        ("e.py", "comes after the first 2 files"),
    ]


# The graph, by itself.


def test_the_graph_takes_any_chat_model_and_any_log() -> None:
    model = FakeListChatModel(responses=["Certainly."])
    texts = {f"m{number}.py": "x = 1\n" for number in range(FILES_FIXED + 1)}
    with CoherentStore(writes="guarded") as store:
        build_graph(model, store).invoke({"files": texts})
        fixed = [store.get(CODE, path) for path in texts]
        assert [item.value["text"] for item in fixed if item] == ['"""Certainly."""\n\nx = 1\n'] * len(texts)
        report = store.get(REVIEW, "report")
        assert report is not None
        assert report.value == {"text": "Certainly."}
        assert [each.agent for each in store.history(CODE, "m0.py")] == ["synthesizer", "setup"]


def test_counts_of_a_faster_reviewer_are_kept() -> None:
    with CoherentStore(writes="guarded") as store:
        board = store.get(REVIEW, "board")
        store.workspace.agent("security").write("board", {"round 1": {"security": 2}}, scope=REVIEW)
        tally(store, board, "round 1", {"style": 3})
        now = store.get(REVIEW, "board")
        assert now is not None
        assert now.value == {"round 1": {"security": 2, "style": 3}}


def test_a_model_that_breaks_the_code_changes_nothing() -> None:
    with CoherentStore(writes="guarded") as store:
        build_graph(FakeListChatModel(responses=['"""']), store).invoke({"files": {"a.py": "x = 1\n"}})
        assert len(store.history(CODE, "a.py")) == 1


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("def f():\n    return 1\n", 1, 'def f():\n    """W."""\n    return 1\n'),
        ("class A:\n    @x\n    def f(self): ...\n", 1, 'class A:\n    """W."""\n    @x\n    def f(self): ...\n'),
        (
            "def f(\n    a,\n):\n    # why\n    return 1\n",
            1,
            'def f(\n    a,\n):\n    # why\n    """W."""\n    return 1\n',
        ),
        ("def f(): return 1\n", 1, "def f(): return 1\n"),
        ("def f(\n  a): return 1\n", 1, "def f(\n  a): return 1\n"),
        ("x = 1\n", 1, "x = 1\n"),
        ("def f(:\n", 1, "def f(:\n"),
    ],
)
def test_docstrings_are_written_where_they_belong_or_not_at_all(text: str, line: int, expected: str) -> None:
    assert with_docstring(text, line, "W.") == expected


def test_a_module_s_docstring_comes_after_its_first_comments() -> None:
    assert with_docstring("#!/bin/x\nx = 1\n", 1, "W.", module=True) == '#!/bin/x\n"""W."""\n\nx = 1\n'


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("something else")
    url = f"sqlite:///{tmp_path}/other.db"
    with Child("write", url, "demo", "victim") as child, pytest.raises(ChildFailed, match="not a SQLite file"):
        child.receive()


def test_a_log_elsewhere_than_in_sqlite_is_refused() -> None:
    with pytest.raises(UsageError, match="kept in SQLite"):
        check_log("kafka://localhost:9092")


# Counting tokens.


def test_refetches_and_pushes_billed_as_hits_or_for_free(tmp_path: Path) -> None:
    url, namespace = f"sqlite:///{tmp_path}/log.db", ("shared",)
    store = MeteredStore(url, workspace="w")
    value = {"text": "x" * 400}
    whole = tokens_of(len(encode_json(value)))

    def look(state: MessagesState) -> MessagesState:
        assert store.get(namespace, "plan") is not None
        return state

    graph = StateGraph(MessagesState)
    graph.add_node("reviewer", look)
    graph.add_edge(START, "reviewer")
    reads = graph.compile()

    def put(expected: int | None) -> None:
        store.compare_and_set(namespace, "plan", value, expected=expected)

    put(None)
    reads.invoke({"messages": []})
    reads.invoke({"messages": []})
    put(1)
    reads.invoke({"messages": []})
    store.workspace.close()
    (reviewer,) = [each for each in count(store.reads, Evidence.read(url, "w")) if each.agent == "reviewer"]
    # The value moved again after the write, and being told of it was not for nothing either.
    assert (reviewer.reads, reviewer.fetched, reviewer.unchanged, reviewer.signals) == (3, 2, 1, 1)
    assert reviewer.tokens == 2 * whole + UNCHANGED_TOKENS + SIGNAL_TOKENS
    assert reviewer.tokens_rereading == 3 * whole
