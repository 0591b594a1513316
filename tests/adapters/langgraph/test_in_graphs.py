"""The store inside real LangGraph graphs: nodes, tools, `create_agent`, the functional API, fan-out."""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.tools import ToolRuntime, tool
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.config import get_store
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import Send

from ccs_stream import VersionConflict
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore
from tests.adapters.langgraph.conftest import OpenStore


class State(TypedDict, total=False):
    """What the graphs pass along."""

    log: Annotated[list[str], operator.add]
    worker: int


def linear(*nodes: tuple[str, Any], store: BaseStore) -> Any:
    """A graph of nodes in a row."""
    graph = StateGraph(State)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile(store=store)


def test_the_agent_is_the_running_node(store: CoherentStore) -> None:
    def planner(state: State, *, store: BaseStore) -> State:
        store.put(("shared",), "plan", {"step": 1})
        return {"log": ["planned"]}

    def reviewer(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        item = runtime.store.get(("shared",), "plan")
        assert item is not None
        runtime.store.put(("shared",), "plan", {"step": item.value["step"] + 1})
        return {"log": ["reviewed"]}

    def closer(state: State) -> State:
        assert get_store().get(("shared",), "plan") is not None
        return {"log": ["closed"]}

    graph = linear(("planner", planner), ("reviewer", reviewer), ("closer", closer), store=store)
    assert graph.invoke({"log": []}) == {"log": ["planned", "reviewed", "closed"]}
    history = store.history(("shared",), "plan")
    assert [(change.agent, change.version, change.base_version) for change in history] == [
        ("reviewer", 2, 1),
        ("planner", 1, None),
    ]


async def test_async_nodes(store: CoherentStore) -> None:
    async def writer(state: State, *, store: BaseStore) -> State:
        await store.aput(("shared",), "plan", {"step": 1})
        store.put(("shared",), "also", {"sync": "inside a running loop"})
        return {"log": ["w"]}

    async def reader(state: State, *, store: BaseStore) -> State:
        item = await store.aget(("shared",), "plan")
        found = await store.asearch(("shared",))
        return {"log": [str(item.value["step"] if item else None), str(len(found))]}

    graph = linear(("writer", writer), ("reader", reader), store=store)
    assert (await graph.ainvoke({"log": []}))["log"] == ["w", "1", "2"]


def test_parallel_tasks_of_one_node_do_not_both_win(open_store: OpenStore) -> None:
    store = open_store(writes="guarded")
    store.put(("shared",), "n", {"n": 0})

    def fan_out(state: State) -> Sequence[Send]:
        return [Send("worker", {"worker": number}) for number in range(4)]

    def worker(state: State, *, store: BaseStore) -> State:
        for attempt in range(50):
            item = store.get(("shared",), "n")
            assert item is not None
            try:
                store.put(("shared",), "n", {"n": item.value["n"] + 1})
            except VersionConflict:
                continue
            return {"log": [str(attempt)]}
        raise AssertionError("never got through")

    graph = StateGraph(State)
    graph.add_node("worker", worker)
    graph.add_conditional_edges(START, fan_out, ["worker"])
    graph.add_edge("worker", END)
    graph.compile(store=store).invoke({"log": []})
    item = store.get(("shared",), "n")
    assert item is not None
    assert item.value == {"n": 4}


GO: Any = {"messages": [("user", "go")]}


class Scripted(GenericFakeChatModel):
    """A chat model that says what it was told to, and takes tools without a word."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """Itself."""
        return self


def call(name: str, number: int, **arguments: Any) -> AIMessage:
    """A message that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": str(number)}])


@tool
def read_plan(runtime: ToolRuntime) -> str:
    """Read the plan."""
    assert runtime.store is not None
    item = runtime.store.get(("shared",), "plan")
    return str(item.value if item else None)


@tool
def write_plan(step: int, runtime: ToolRuntime) -> str:
    """Write the plan."""
    assert runtime.store is not None
    try:
        runtime.store.put(("shared",), "plan", {"step": step})
    except VersionConflict as conflict:
        return f"CONFLICT: the plan is at version {conflict.current_version}: {conflict.current_value}"
    return "written"


@pytest.mark.parametrize("thread", [None, "t1"])
def test_create_agent_writes_over_what_it_has_read_in_an_earlier_step(
    open_store: OpenStore, thread: str | None
) -> None:
    store = open_store(writes="guarded")
    store.put(("shared",), "plan", {"step": 1})
    script = [call("read_plan", 1), call("write_plan", 2, step=2), AIMessage("done")]
    inner = create_agent(Scripted(messages=iter(script)), [read_plan, write_plan], name="researcher", store=store)
    config: Any = {"configurable": {"thread_id": thread}} if thread else {}
    if thread is None:
        # Without a thread, an enclosing graph gives the agent's steps a task in common.
        outer = StateGraph(State)
        outer.add_node("team", lambda state: {"log": [inner.invoke(GO)["messages"][-1].text]})
        outer.add_edge(START, "team")
        outer.add_edge("team", END)
        outer.compile(store=store).invoke({"log": []})
    else:
        inner.invoke(GO, config)
    newest = store.history(("shared",), "plan")[0]
    assert (newest.agent, newest.version, newest.base_version) == ("researcher", 2, 1)


def test_create_agent_is_told_of_a_conflict(open_store: OpenStore) -> None:
    store = open_store(writes="guarded")
    store.put(("shared",), "plan", {"step": 1})

    @tool
    def meanwhile() -> str:
        """Somebody else writes."""
        other = store.workspace.agent("somebody")
        other.write("plan", {"step": 100}, scope=("shared",))
        return "ok"

    script = [call("read_plan", 1), call("meanwhile", 2), call("write_plan", 3, step=2), AIMessage("done")]
    agent = create_agent(
        Scripted(messages=iter(script)), [read_plan, write_plan, meanwhile], name="researcher", store=store
    )
    answer = agent.invoke(GO, {"configurable": {"thread_id": "t"}})
    assert "CONFLICT: the plan is at version 2: {'step': 100}" in [message.text for message in answer["messages"]]


def test_the_functional_api(store: CoherentStore) -> None:
    @entrypoint(store=store)
    def flow(number: int, *, store: BaseStore) -> int:
        store.put(("shared",), "n", {"n": number})
        item = store.get(("shared",), "n")
        return int(item.value["n"]) if item else 0

    assert flow.invoke(7) == 7
    assert store.history(("shared",), "n")[0].agent == "flow"


def test_a_namespace_that_is_no_running_node_is_warned_of_once(open_store: OpenStore) -> None:
    store = open_store(CCSStore)

    def planner(state: State, *, store: BaseStore) -> State:
        store.put(("planner", "shared"), "plan", {"n": 1})
        with pytest.warns(UserWarning, match="no node of the running graph"):
            store.put(("alice", "shared"), "other", {"n": 2})
        store.get(("bob", "shared"), "plan")
        return {"log": []}

    linear(("planner", planner), store=store).invoke({"log": []})


def test_deliveries_name_the_conversation(open_store: OpenStore) -> None:
    recording = open_store(deliveries=True)

    def author(state: State, *, store: BaseStore) -> State:
        store.put(("docs",), "k", {"n": 1})
        store.get(("docs",), "k")
        return {}

    run = {"configurable": {"thread_id": "thread-7", "ccs_generation": 3}}
    linear(("author", author), store=recording).invoke({}, run)
    recording.get(("docs",), "k")
    told = [(each.agent, each.source, each.conversation, each.generation) for each in recording.workspace.deliveries()]
    assert told[:2] == [("author", "write", "thread-7", 3), ("author", "cache_hit", "thread-7", 3)]
    assert told[2][2:] == (None, None)
