"""`ccs-benchmark`: somebody's own graph, run once and counted; every way in which it can fail."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ccs_stream
from ccs_stream.cli.workloads.measure import main

GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph
from beside import KEY

class State(TypedDict, total=False):
    text: str

def plan(state, *, store):
    store.put(("planner", "shared"), KEY, {"text": state["text"]})
    return {}

def read(state, *, store):
    for _ in range(3):
        assert store.get(("reviewer", "shared"), KEY).value == {"text": state["text"]}
    return {}

async def aread(state, *, store):
    for _ in range(3):
        assert (await store.aget(("reviewer", "shared"), KEY)) is not None
    return {}

def _builder(reader):
    graph = StateGraph(State)
    graph.add_node("planner", plan)
    graph.add_node("reviewer", reader)
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "reviewer")
    graph.add_edge("reviewer", END)
    return graph

def build(store):
    return _builder(read).compile(store=store)

def uncompiled(store):
    return _builder(read)

def coroutines(store):
    return _builder(aread).compile(store=store)

def breaks(store):
    raise KeyError("planted")

def nothing(store):
    return None

NUMBER = 7
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("KEY = 'plan'")
    path = tmp_path / "graph.py"
    path.write_text(GRAPH)
    return path


def measure(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


STATE = ("--initial-state", '{"text": "words"}')


@pytest.mark.parametrize("function", ["build", "uncompiled", "coroutines"])
def test_a_graph_is_run_and_its_tokens_are_printed(graph: Path, function: str) -> None:
    how = ("--async",) if function == "coroutines" else ()
    told = measure("--graph", f"{graph}:{function}", *STATE, "--json", *how)
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["summary"]["n_operations"] == 3
    assert found["summary"]["cache_hit_rate"] == 0.667
    assert found["savings"]["by_cause"] == {"hit": 2, "miss": 4, "write": 4}
    told = measure("--graph", f"{graph}:{function}", *STATE, *how)
    assert told.exit_code == 0
    assert told.stdout.startswith("reads                 3")


def test_the_log_can_be_kept(graph: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/run.db"
    assert measure("--graph", f"{graph}:build", *STATE, "--log", url).exit_code == 0
    with ccs_stream.connect(url) as workspace:
        reading = workspace.agent("me").read("plan", scope=("shared",))
        assert reading is not None
        assert reading.value == {"text": "words"}


@pytest.mark.parametrize(
    ("place", "state", "said"),
    [
        ("graph.py", "{}", "FILE:FUNCTION"),
        (":build", "{}", "FILE:FUNCTION"),
        ("absent.py:build", "{}", "no file"),
        ("graph.py:absent", "{}", "no function absent"),
        ("graph.py:NUMBER", "{}", "no function NUMBER"),
        ("graph.py:build", "{", "no JSON"),
        ("graph.py:build", "[1]", "JSON object"),
        ("graph.py:build", "{}", "running the graph: KeyError: 'text'"),
        ("graph.py:breaks", "{}", "building the graph: KeyError: 'planted'"),
        ("graph.py:nothing", "{}", "NoneType, which is no graph"),
        ("graph.py:coroutines", '{"text": "words"}', "running the graph: TypeError"),
        ("bad.py:build", "{}", "cannot be imported: SyntaxError"),
    ],
)
def test_a_failing_graph_is_reported_on_stderr_with_exit_code_1(
    graph: Path, monkeypatch: pytest.MonkeyPatch, place: str, state: str, said: str
) -> None:
    monkeypatch.chdir(graph.parent)
    Path("bad.py").write_text("def")
    told = measure("--graph", place, "--initial-state", state)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith("error: ")
    assert said in told.stderr


def test_a_log_that_cannot_be_opened_is_an_error_too(graph: Path, tmp_path: Path) -> None:
    told = measure("--graph", f"{graph}:build", *STATE, "--log", f"sqlite:///{tmp_path}/no/folder/run.db")
    assert told.exit_code == 1
    assert told.stderr.startswith("error: ")


def test_the_place_of_an_error_is_shown_when_asked_for(graph: Path) -> None:
    told = measure("--graph", f"{graph}:breaks", "--traceback")
    assert told.exit_code == 1
    assert 'raise KeyError("planted")' in told.stderr


def test_a_wrong_call_exits_2() -> None:
    assert measure().exit_code == 2
    assert measure("--graph", "a:b", "--speed").exit_code == 2
