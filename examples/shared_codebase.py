"""Three reviewers scan eight files of real code, and then go back to four of them; a fourth agent puts it together.

The files are modules of Python's own library, so their sizes are those of real code. Each reviewer reads all eight for
an overview, and then again the four that its topic is about. The synthesizer reads six of them twice, and the three
findings once.

What to look at: every first read has to be fetched, and that is most of what moves; going back is nearly free. So the
saving is honest and moderate. It grows with every further look, and not with the size of the files.
"""

import importlib
import inspect
from collections.abc import Callable

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from examples.command_line import Graph, GraphState, parse_options, read, report, run, write

FILES = ("bisect", "colorsys", "fnmatch", "heapq", "queue", "sched", "shlex", "string")
TOPICS = {
    "security": ("fnmatch", "shlex", "string", "queue"),
    "performance": ("bisect", "heapq", "fnmatch", "queue"),
    "style": ("colorsys", "sched", "shlex", "string"),
}
CITED = FILES[:6]


def loader(state: GraphState, *, store: BaseStore) -> GraphState:
    """Shares the files."""
    for name in FILES:
        write(store, "loader", f"{name}.py", {"text": inspect.getsource(importlib.import_module(name))})
    return state


def reviewer(topic: str) -> Callable[..., GraphState]:
    """Scans all files, goes back to those its topic is about, and writes what it found."""

    def work(state: GraphState, *, store: BaseStore) -> GraphState:
        lines = {name: read(store, topic, f"{name}.py")["text"].count("\n") for name in FILES}
        again = {name: read(store, topic, f"{name}.py")["text"] for name in TOPICS[topic]}
        found = [f"{name}.py: {lines[name]} lines, {text.count('def ')} functions" for name, text in again.items()]
        write(store, topic, f"findings/{topic}", {"found": found})
        return state

    return work


def synthesizer(state: GraphState, *, store: BaseStore) -> GraphState:
    """Reads six files, the three findings, and the six files again to quote from them."""
    for name in CITED:
        read(store, "synthesizer", f"{name}.py")
    found = [each for topic in TOPICS for each in read(store, "synthesizer", f"findings/{topic}")["found"]]
    quotes = [read(store, "synthesizer", f"{name}.py")["text"].partition("\n")[0] for name in CITED]
    write(store, "synthesizer", "report", {"found": found, "quotes": quotes})
    return state


def build(store: CCSStore) -> Graph:
    """The graph: the loader, three reviewers side by side, the synthesizer."""
    graph = StateGraph(GraphState)
    graph.add_node("loader", loader)
    graph.add_node("synthesizer", synthesizer)
    graph.add_edge(START, "loader")
    for topic in TOPICS:
        graph.add_node(topic, reviewer(topic))
        graph.add_edge("loader", topic)
    graph.add_edge(list(TOPICS), "synthesizer")
    graph.add_edge("synthesizer", END)
    return graph.compile(store=store)


def main() -> int:
    """Run it once, and say what happened."""
    options = parse_options("shared_codebase", __doc__)
    events: list[StoreMetricEvent] = []
    with CCSStore(options.log, workspace=options.workspace, benchmark=True, on_metric=events.append) as store:
        build(store).invoke({})
    return report(options, store, events)


if __name__ == "__main__":
    run(main)
