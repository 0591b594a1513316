"""Four agents plan together in three turns, and some of them change the plan: what an invalidation does.

In the first turn the planner writes the plan, and the engineer changes it after reading it; in the second turn the
tester changes it; in the third nobody does. An agent that holds a copy when another writes is notified that the copy is
stale, and its next look fetches the new version. An agent whose copy is current is served from it.

What to look at: for each version, who held the one before, who was notified, and who fetched it. The lines are computed
from the store's state log, which comes from the log: they show what happened, not what the code intended.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from examples.command_line import Graph, GraphState, parse_options, read, report, run, write

AGENTS = ("planner", "engineer", "tester", "reviewer")
CHANGES = {
    (1, "engineer"): "Migrate the table before the deploy, not after.",
    (2, "tester"): "Rehearse the migration on a copy of last night's data.",
}
TURNS = 3


def agent(name: str) -> Callable[..., GraphState]:
    """An agent that looks at the plan in each turn, and changes it where the script says so."""

    def work(state: GraphState, *, store: BaseStore) -> GraphState:
        turn = state.get("turn", 1)
        if (turn, name) == (1, "planner"):
            write(store, name, "plan", {"goal": "Invoices get a currency.", "steps": ["Deploy.", "Migrate the table."]})
        else:
            plan = read(store, name, "plan")
            change = CHANGES.get((turn, name))
            if change is not None:
                write(store, name, "plan", {**plan, "steps": [*plan["steps"], change]})
        return {"turn": turn + 1} if name == AGENTS[-1] else {}

    return work


def again(state: GraphState) -> Literal["planner", "__end__"]:
    """True if there is another turn."""
    return "planner" if state["turn"] <= TURNS else "__end__"


def build(store: CCSStore) -> Graph:
    """The graph: four agents in a ring."""
    graph = StateGraph(GraphState)
    before = START
    for name in AGENTS:
        graph.add_node(name, agent(name))
        graph.add_edge(before, name)
        before = name
    graph.add_conditional_edges(before, again, {"planner": "planner", "__end__": END})
    return graph.compile(store=store)


@dataclasses.dataclass(slots=True)
class Version:
    """The lines of the state log about one version of the plan."""

    number: int
    writer: str
    lost: list[str]
    """Agents that held the version before, and lost their copies."""
    notified: list[str] = dataclasses.field(default_factory=list)
    fetched: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """The lines for people."""
        return [
            f"plan v{self.number}, written by {self.writer}",
            f"    held a copy     {_names(self.lost)}",
            f"    were notified   {_names(self.notified)}",
            f"    fetched it      {_names(self.fetched)}",
        ]


def versions(state_log: Iterable[dict[str, Any]]) -> list[Version]:
    """Fold the state log of one artifact: a write takes the others' copies, commits, and notifies each of them."""
    found: list[Version] = []
    lost: list[str] = []
    for line in state_log:
        name, to_state = line["agent_name"], line["to_state"]
        match line["trigger"]:
            case "write" if to_state == "INVALID":
                lost.append(name)
            case "commit":
                found.append(Version(line["version"], name, lost))
                lost = []
            case "invalidate" if line["from_state"] == "INVALID":
                found[-1].notified.append(name)
            case "fetch" if line["from_state"] == "INVALID" and line["version"]:
                found[-1].fetched.append(name)
            case _:
                pass
    return found


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nobody"


def main() -> int:
    """Run it once, and say what happened."""
    options = parse_options("multi_agent_planning", __doc__)
    events: list[StoreMetricEvent] = []
    states: list[dict[str, Any]] = []
    with CCSStore(
        options.log, workspace=options.workspace, benchmark=True, on_metric=events.append, state_log=states.append
    ) as store:
        build(store).invoke({})
    rounds = [line for version in versions(states) for line in version.lines()]
    hits = [event.agent_name for event in events if event.cache_hit]
    rounds.append(f"{len(hits)} looks were served from copies: {_names(hits)}")
    return report(options, store, events, rounds)


if __name__ == "__main__":
    run(main)
