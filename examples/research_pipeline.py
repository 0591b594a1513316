"""A pipeline: a brief becomes sources, sources become findings, findings become an article.

Each stage comes back to its inputs while it works: to the brief, and to what the stage before it wrote. Only the first
look of each agent at each input has to fetch it.

What to look at: hits grow with the number of looks, misses only with the number of agents and inputs: 9 and 6 here.
"""

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from examples.command_line import Graph, GraphState, parse_options, read, report, run, write

BRIEF = {
    "question": "Does a heat pump pay for itself in a house built before 1980?",
    "readers": "Owners of such houses, without an engineer's knowledge.",
    "limits": "Prices of the last two years; no advice on a particular product.",
}
SOURCES = [
    {"title": "Field test of 41 houses", "says": "seasonal performance between 2.6 and 3.3 without new radiators"},
    {"title": "Prices of electricity and gas", "says": "the ratio decides, and it has moved between 2.4 and 3.8"},
    {"title": "Installers' survey", "says": "one house in five needs two larger radiators, seldom more"},
]


def editor(state: GraphState, *, store: BaseStore) -> GraphState:
    """Writes the brief."""
    write(store, "editor", "brief", BRIEF)
    return state


def searcher(state: GraphState, *, store: BaseStore) -> GraphState:
    """Looks at the brief before the search for each source."""
    found = []
    for source in SOURCES:
        asked = read(store, "searcher", "brief")
        found.append({**source, "for": asked["question"]})
    write(store, "searcher", "sources", {"sources": found})
    return state


def analyst(state: GraphState, *, store: BaseStore) -> GraphState:
    """Reads the brief, works through the sources one by one, and checks the result against the brief."""
    read(store, "analyst", "brief")
    claims = [read(store, "analyst", "sources")["sources"][number]["says"] for number in range(len(SOURCES))]
    limits = read(store, "analyst", "brief")["limits"]
    write(store, "analyst", "findings", {"claims": claims, "within": limits})
    return state


def writer(state: GraphState, *, store: BaseStore) -> GraphState:
    """Plans the article, writes a paragraph for each finding, and adds the list of sources."""
    brief, sources = read(store, "writer", "brief"), read(store, "writer", "sources")
    paragraphs = [read(store, "writer", "findings")["claims"][number] for number in range(len(SOURCES))]
    listed = [each["title"] for each in read(store, "writer", "sources")["sources"]]
    answered = read(store, "writer", "brief")["question"] == brief["question"] and len(listed) == len(
        sources["sources"]
    )
    write(store, "writer", "article", {"paragraphs": paragraphs, "sources": listed, "answered": answered})
    return state


def build(store: CCSStore) -> Graph:
    """The graph: four stages in line."""
    graph = StateGraph(GraphState)
    before = START
    for name, stage in (("editor", editor), ("searcher", searcher), ("analyst", analyst), ("writer", writer)):
        graph.add_node(name, stage)
        graph.add_edge(before, name)
        before = name
    graph.add_edge(before, END)
    return graph.compile(store=store)


def main() -> int:
    """Run it once, and say what happened."""
    options = parse_options("research_pipeline", __doc__)
    events: list[StoreMetricEvent] = []
    with CCSStore(options.log, workspace=options.workspace, benchmark=True, on_metric=events.append) as store:
        build(store).invoke({})
    return report(options, store, events)


if __name__ == "__main__":
    run(main)
