"""Gets and puts on the memory log, next to LangGraph's InMemoryStore and agent-coherence.

Guarantees: every store gets the same values under the same keys. A get is a hit: the agent has read the item before,
and nobody wrote since. Does not: show what a hit saves; that is tokens, not microseconds.
"""

import functools
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ccs.adapters.ccsstore import CCSStore as AgentCoherence
from langgraph.store.memory import InMemoryStore

from benchmarks.report import Row, at_least, at_most, faster, longer
from benchmarks.run import Run
from benchmarks.timing import in_turns
from benchmarks.values import SIZES, value_of
from ccs_stream.adapters.langgraph import CoherentStore

KEYS: Final = [f"finding-{number}" for number in range(100)]
NAMESPACE: Final = ("agent", "shared")


def rows(run: Run) -> Iterator[Row]:
    """Gets, puts, and a large value."""
    for name, size in SIZES.items():
        run.now(f"get and put, {name}")
        yield from _size(run, name, value_of(size))
    yield _large(run)


def _size(run: Run, name: str, value: dict[str, Any]) -> Iterator[Row]:
    ours, memory, old = CoherentStore(), InMemoryStore(), AgentCoherence()
    stores: dict[str, Any] = {"ours": ours, "InMemoryStore": memory, "agent-coherence": old}
    keys = _filled(stores.values(), value)
    gets = in_turns(run.effort, {each: functools.partial(_get, store, keys) for each, store in stores.items()})
    puts = in_turns(run.effort, {each: functools.partial(_put, store, keys, value) for each, store in stores.items()})
    for what, timings, over_old, over_memory in (
        (f"get, a hit, {name}", gets, at_least(4), at_most(5) if name == "1 KB" else None),
        (f"put, memory log, {name}", puts, at_least(2) if name == "1 KB" else None, None),
    ):
        yield faster(
            what,
            timings.seconds("ours"),
            "agent-coherence",
            timings.seconds("agent-coherence"),
            timings.ratio("agent-coherence", "ours"),
            over_old,
        )
        yield longer(
            what,
            timings.seconds("ours"),
            "InMemoryStore (hands out its own object)",
            timings.seconds("InMemoryStore"),
            timings.ratio("ours", "InMemoryStore"),
            over_memory,
        )


def _filled(stores: Iterable[Any], value: dict[str, Any]) -> Iterator[str]:
    """Keys to ask for, all of which each store holds and has been asked for before."""
    for store in stores:
        for key in KEYS:
            store.put(NAMESPACE, key, value)
            store.get(NAMESPACE, key)
    return itertools.cycle(random.Random(7).choices(KEYS, k=4096))


def _get(store: Any, keys: Iterator[str]) -> None:
    store.get(NAMESPACE, next(keys))


def _put(store: Any, keys: Iterator[str], value: dict[str, Any]) -> None:
    store.put(NAMESPACE, next(keys), value)


def _large(run: Run) -> Row:
    """5 MB: by way of the content store."""
    run.now("a value of 5 MB")
    value = {"text": "x" * 5_000_000}
    store = CoherentStore()

    def ours() -> None:
        store.put(NAMESPACE, "large", value)
        found = store.get(NAMESPACE, "large")
        if found is None or found.value != value:
            raise AssertionError("a large value did not come back")

    def floor() -> None:
        json.loads(json.dumps(value))

    timings = in_turns(run.effort, {"ours": ours, "floor": floor})
    what = "put and get of a 5 MB value"
    ratio = timings.ratio("ours", "floor")
    return longer(what, timings.seconds("ours"), "json dumps + loads", timings.seconds("floor"), ratio)
