"""Every warning names the line of the user's program that led to it, whatever way the call took inside the library."""

import asyncio
import inspect
import sqlite3
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, PutOp

from ccs_stream.adapters.langgraph import CCSStore, CoherentStore, LostUpdateWarning
from ccs_stream.client.degraded.mode import CoherenceDegradedWarning

HERE = str(Path(__file__))
PLAN = ("shared",)


def warned(action: Callable[[], Any], category: type[Warning]) -> tuple[str, int]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    (warning,) = [each for each in caught if issubclass(each.category, category)]
    return warning.filename, warning.lineno


def line_of(marker: str) -> int:
    lines = Path(HERE).read_text().splitlines()
    (found,) = [number for number, line in enumerate(lines, start=1) if line.endswith(f"# {marker}")]
    return found


@pytest.fixture
def store() -> CoherentStore:
    """A store whose item another agent has replaced unseen: the next put of the process loses an update."""
    store = CoherentStore()
    other = store.workspace.agent("other")
    other.write("plan", {"step": 1}, scope=PLAN)
    other.write("plan", {"step": 2}, scope=PLAN)
    return store


def test_a_put(store: CoherentStore) -> None:
    def action() -> None:
        store.put(PLAN, "plan", {"step": 3})  # put

    assert warned(action, LostUpdateWarning) == (HERE, line_of("put"))


def test_a_batch(store: CoherentStore) -> None:
    def action() -> None:
        store.batch([PutOp(PLAN, "plan", {"step": 3})])  # batch

    assert warned(action, LostUpdateWarning) == (HERE, line_of("batch"))


def test_a_put_that_goes_through_the_base_class(store: CoherentStore) -> None:
    def action() -> None:
        BaseStore.put(store, PLAN, "plan", {"step": 3})  # base class

    assert warned(action, LostUpdateWarning) == (HERE, line_of("base class"))


def test_an_awaited_put(store: CoherentStore) -> None:
    async def action() -> None:
        await store.aput(PLAN, "plan", {"step": 3})  # awaited

    assert warned(lambda: asyncio.run(action()), LostUpdateWarning) == (HERE, line_of("awaited"))


def test_a_put_of_a_thread(store: CoherentStore) -> None:
    def work() -> None:
        store.put(PLAN, "plan", {"step": 3})  # thread

    def action() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    assert warned(action, LostUpdateWarning) == (HERE, line_of("thread"))


class State(TypedDict):
    step: int


def test_a_put_of_a_graph_node(store: CoherentStore) -> None:
    def writer(state: State, *, store: BaseStore) -> State:
        store.put(PLAN, "plan", {"step": 3})  # node
        return state

    builder = StateGraph(State)
    builder.add_node("writer", writer)
    builder.add_edge(START, "writer")
    builder.add_edge("writer", END)
    graph = builder.compile(store=store)
    assert warned(lambda: graph.invoke({"step": 0}), LostUpdateWarning) == (HERE, line_of("node"))


def test_a_namespace_that_hardly_names_an_agent() -> None:
    def action() -> None:
        CCSStore().put(("users", "42"), "likes", {"tea": True})  # namespace

    assert warned(action, UserWarning) == (HERE, line_of("namespace"))


def test_degraded_mode(tmp_path: Path) -> None:
    store = CoherentStore(f"sqlite:///{tmp_path}/log.db?busy_timeout_s=0.05", on_error="degrade")
    store.put(PLAN, "plan", {"step": 1})
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    def action() -> None:
        with pytest.raises(Exception, match="refused"):
            store.put(PLAN, "plan", {"step": 2})  # degraded

    assert warned(action, CoherenceDegradedWarning) == (HERE, line_of("degraded"))
    holder.close()
    store.close()


def test_a_filter_by_module_silences_it(store: CoherentStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=LostUpdateWarning, module=inspect.getmodulename(HERE) or "")
        warnings.filterwarnings("ignore", category=LostUpdateWarning, module=__name__)
        store.put(PLAN, "plan", {"step": 3})
