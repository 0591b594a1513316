"""The three graphs: a plan that all agents read, a review in turns, and a state that each agent overwrites.

Guarantees: they are plain LangGraph; everything shared goes through the store that is passed in, in namespaces of agent
and scope; each graph reads and writes the same in every run. Does not: measure; the caller's store does.

The graphs and their sizes are those by which agent-coherence publishes its savings.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore

SCOPE: Final = "shared"


class WorkloadState(TypedDict, total=False):
    """The state that travels along the edges. It is empty, because what is shared is in the store."""

    done: str


Namespace = tuple[str, ...]
Namespaces = Callable[[str], Namespace]
"""The namespace in which an agent finds what is shared."""


def by_agent(agent: str) -> Namespace:
    """The namespace as `CCSStore` expects it: the agent, then the scope."""
    return (agent, SCOPE)


def for_all(agent: str) -> Namespace:
    """The namespace for a store that knows no agents."""
    del agent
    return (SCOPE,)


@dataclasses.dataclass(frozen=True, slots=True)
class AgentTools:
    """The tools of an agent: the store, its namespace, its model."""

    store: BaseStore
    namespace: Namespace
    text: Callable[[], str]
    """Returns what the model says."""


Work = Callable[[AgentTools], None]
Graph = CompiledStateGraph[WorkloadState, None, WorkloadState, WorkloadState]


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """A graph to run. `tokens` is the nominal size of what its model writes."""

    name: str
    what: str
    tokens: int
    agents: dict[str, Work]
    """The agents and their work, in the order in which they run."""

    def graph(self, store: BaseStore, namespaces: Namespaces = by_agent) -> Graph:
        """The graph over a store, with a model that always says the same."""
        model = GenericFakeChatModel(messages=iter(_says(self.tokens)))

        def text() -> str:
            return str(model.invoke("go on").content)

        graph = StateGraph(WorkloadState)
        before = START
        for agent, work in self.agents.items():
            graph.add_node(agent, _node(work, namespaces(agent), text))
            graph.add_edge(before, agent)
            before = agent
        graph.add_edge(before, END)
        return graph.compile(store=store)


def _node(work: Work, namespace: Namespace, text: Callable[[], str]) -> Callable[..., WorkloadState]:
    def node(state: WorkloadState, *, store: BaseStore) -> WorkloadState:
        del state
        work(AgentTools(store, namespace, text))
        return {}

    return node


def _says(tokens: int) -> Any:
    text = ("word " * (tokens * 4 // 5)).strip()
    while True:
        yield AIMessage(text)


def _puts(key: str, field: str, **more: str) -> Work:
    def work(tools: AgentTools) -> None:
        tools.store.put(tools.namespace, key, {field: tools.text(), **more})

    return work


def _gets(*keys: str) -> Work:
    """Reads, checked: a workload that finds nothing would measure nothing."""

    def work(tools: AgentTools) -> None:
        for key in keys:
            if tools.store.get(tools.namespace, key) is None:
                raise AssertionError(f"nothing under {key} in {tools.namespace}")

    return work


def _both(first: Work, second: Work) -> Work:
    def work(tools: AgentTools) -> None:
        first(tools)
        second(tools)

    return work


def _churn(agent: str) -> Work:
    return _both(_gets("state", "state"), _puts("state", "state", writer=agent))


WORKLOADS: Final = (
    Workload(
        "planner",
        "one writes a plan, three read it four times each",
        320,
        {
            "planner": _puts("plan", "content"),
            **{agent: _gets(*["plan"] * 4) for agent in ("researcher", "executor", "reviewer")},
        },
    ),
    Workload(
        "code_review",
        "two review the same code and a third reads both reviews",
        280,
        {
            "setup": _puts("codebase", "code"),
            "reviewer_a": _both(_gets(*["codebase"] * 3), _puts("review_a", "review")),
            "reviewer_b": _both(_gets(*["codebase"] * 3, *["review_a"] * 2), _puts("review_b", "review")),
            "synthesizer": _both(
                _gets(*["codebase"] * 3, *["review_a"] * 2, *["review_b"] * 2),
                _puts("final_review", "synthesis"),
            ),
        },
    ),
    Workload(
        "high_churn",
        "four in line read what the one before wrote over",
        250,
        {
            "setup": _puts("state", "state", writer="setup"),
            **{agent: _churn(agent) for agent in ("agent_a", "agent_b", "agent_c", "agent_d")},
        },
    ),
)
