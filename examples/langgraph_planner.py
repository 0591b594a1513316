"""A planner writes a plan; three agents each look at it four times.

Each agent works in four steps, and looks at the plan before each of them, as careful agents do. The first look fetches
the whole plan. In the other three, the copy that the agent holds is still current, and each costs one token.

What to look at: the hit rate (three looks of four), and that a hit costs the same however long the plan is.
"""

from collections.abc import Callable

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from examples.command_line import Graph, GraphState, parse_options, read, report, run, write

STEPS = ("read the issue", "look for similar ones", "do the work", "say what was done")
PLAN = {
    "goal": "Users can export their invoices as CSV, from the list and from the command line.",
    "steps": [
        {"who": "researcher", "what": "Find out which fields accountants import, and in which encoding."},
        {"who": "executor", "what": "Write the exporter: a stream, so that a year of invoices fits into memory."},
        {"who": "executor", "what": "Add the button to the list and the option to the command line; one code path."},
        {"who": "reviewer", "what": "Check quoting, decimal commas, and that customers see their own invoices only."},
    ],
    "done": "An export of 10,000 invoices opens in two spreadsheet programs without a question being asked.",
}


def planner(state: GraphState, *, store: BaseStore) -> GraphState:
    """Writes the plan, once."""
    write(store, "planner", "plan", PLAN)
    return state


def follower(agent: str) -> Callable[..., GraphState]:
    """An agent that looks at the plan before each of its steps."""

    def work(state: GraphState, *, store: BaseStore) -> GraphState:
        for _ in STEPS:
            read(store, agent, "plan")
        return state

    return work


def build(store: CCSStore) -> Graph:
    """The graph: the planner, and then three in line."""
    graph = StateGraph(GraphState)
    graph.add_node("planner", planner)
    graph.add_edge(START, "planner")
    before = "planner"
    for agent in ("researcher", "executor", "reviewer"):
        graph.add_node(agent, follower(agent))
        graph.add_edge(before, agent)
        before = agent
    graph.add_edge(before, END)
    return graph.compile(store=store)


def main() -> int:
    """Run it once, and say what happened."""
    options = parse_options("langgraph_planner", __doc__)
    events: list[StoreMetricEvent] = []
    with CCSStore(options.log, workspace=options.workspace, benchmark=True, on_metric=events.append) as store:
        build(store).invoke({})
    return report(options, store, events)


if __name__ == "__main__":
    run(main)
