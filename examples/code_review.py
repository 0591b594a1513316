"""Two agents review the same code at the same time; a third reads the code and both reviews, and writes one.

Every agent reads everything exactly once. No copy can save a read: each read is a fetch, and the hit rate is 0.

What to look at: nothing is saved here, and the program says so. A store that shows a saving for such a graph compares
with a baseline that nobody would pay. Coherence gives something else here: the log proves that the synthesizer read the
very version that both reviewers read.
"""

from collections.abc import Callable

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from examples.command_line import Graph, GraphState, parse_options, read, report, run, write

CODE = """\
def charge(account, cents):
    if account.balance > cents:
        account.balance = account.balance - cents
        ledger.append((account.id, cents))
        return True
    return False
"""
REVIEWS = {
    "correctness": ["A balance of exactly `cents` is refused: > should be >=.", "A negative `cents` is a deposit."],
    "concurrency": ["Two calls may both see the old balance.", "The ledger is written after the balance: not atomic."],
}
NOTE = (
    "Nothing was read twice, so nothing was saved: what moved is what had to move.\n"
    "Agents that come back to what they have read are those that save: examples.shared_codebase."
)


def author(state: GraphState, *, store: BaseStore) -> GraphState:
    """Shares the code."""
    write(store, "author", "code", {"path": "charge.py", "text": CODE})
    return state


def reviewer(topic: str) -> Callable[..., GraphState]:
    """Reads the code once and writes a review of it."""

    def work(state: GraphState, *, store: BaseStore) -> GraphState:
        code = read(store, topic, "code")
        write(store, topic, f"review/{topic}", {"of": code["path"], "found": REVIEWS[topic]})
        return state

    return work


def synthesizer(state: GraphState, *, store: BaseStore) -> GraphState:
    """Reads the code and both reviews, each once, and writes one review."""
    code = read(store, "synthesizer", "code")
    found = [each for topic in REVIEWS for each in read(store, "synthesizer", f"review/{topic}")["found"]]
    write(store, "synthesizer", "review", {"of": code["path"], "found": found, "verdict": "not yet"})
    return state


def build(store: CCSStore) -> Graph:
    """The graph: the author, both reviewers side by side, the synthesizer."""
    graph = StateGraph(GraphState)
    graph.add_node("author", author)
    graph.add_node("synthesizer", synthesizer)
    graph.add_edge(START, "author")
    for topic in REVIEWS:
        graph.add_node(topic, reviewer(topic))
        graph.add_edge("author", topic)
    graph.add_edge(list(REVIEWS), "synthesizer")
    graph.add_edge("synthesizer", END)
    return graph.compile(store=store)


def main() -> int:
    """Run it once, and say what happened."""
    options = parse_options("code_review", __doc__)
    events: list[StoreMetricEvent] = []
    with CCSStore(options.log, workspace=options.workspace, benchmark=True, on_metric=events.append) as store:
        build(store).invoke({})
    return report(options, store, events, note=NOTE if store.benchmark_summary()["cache_hit_rate"] == 0 else "")


if __name__ == "__main__":
    run(main)
