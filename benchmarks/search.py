"""Searches with a filter and listings of namespaces, next to LangGraph's own stores with the same values.

Guarantees: the results are the same on all stores, or the benchmark fails. Does not: search by meaning; the embedding
model would be what is measured.
"""

import functools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from langgraph.store.base import BaseStore, Item, PutOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore

from benchmarks.report import Row, at_most, longer
from benchmarks.run import Run
from benchmarks.timing import in_turns
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore

BATCH: Final = 500
NAMESPACES: Final = 200
ROOT: Final = ("docs",)
TEXT: Final = "x" * 100
KINDS: Final = 20
PAGE: Final = {"kind": 3}
"""The filter that one value in twenty passes."""
ONE: Final = {"serial": 5}
"""The filter that one value passes."""


def rows(run: Run) -> Iterator[Row]:
    """A filtered search over 20,000 items, fresh and warm; a listing over 50,000 items in 200 namespaces."""
    run.now("a hit of CCSStore")
    yield _hit_of_ccs_store(run)
    many = run.count(20_000, 400)
    run.now(f"search over {many:,} items")
    yield _fresh(run, many)
    stores = {"ours": CoherentStore(), "InMemoryStore": InMemoryStore()}
    for store in stores.values():
        fill(store, many)
    for what, condition in (("one", ONE), ("twenty", PAGE)):
        same({name: found(store, condition) for name, store in stores.items()})
        calls = {name: functools.partial(found, store, condition) for name, store in stores.items()}
        timings = in_turns(run.effort, calls)
        yield longer(
            f"search for {what} of {many:,} items by a filter, warm",
            timings.seconds("ours"),
            "InMemoryStore",
            timings.seconds("InMemoryStore"),
            timings.ratio("ours", "InMemoryStore"),
            at_most(1.5),
        )
    total = run.count(50_000, 800)
    run.now(f"namespaces of {total:,} items")
    for store in stores.values():
        fill(store, total, after=many)
    same({name: listed(store) for name, store in stores.items()})
    timings = in_turns(run.effort, {name: functools.partial(listed, store) for name, store in stores.items()})
    yield longer(
        f"list {NAMESPACES} namespaces of {total:,} items",
        timings.seconds("ours"),
        "InMemoryStore",
        timings.seconds("InMemoryStore"),
        timings.ratio("ours", "InMemoryStore"),
        at_most(20),
    )


def _hit_of_ccs_store(run: Run) -> Row:
    value, stores = {"text": "x" * 1_000}, {"CCSStore": CCSStore(), "CoherentStore": CoherentStore()}
    for store in stores.values():
        store.put(("agent", "shared"), "k", value)
    timings = in_turns(
        run.effort, {name: functools.partial(store.get, ("agent", "shared"), "k") for name, store in stores.items()}
    )
    return longer(
        "get, a hit, 1 KB, CCSStore",
        timings.seconds("CCSStore"),
        "CoherentStore",
        timings.seconds("CoherentStore"),
        timings.ratio("CCSStore", "CoherentStore"),
        at_most(1.25),
    )


def _fresh(run: Run, count: int) -> Row:
    """The first search of a process that has just opened the log."""
    places = {"ours": run.folder / "ours.db", "SqliteStore": run.folder / "langgraph.db"}
    with opened("ours", places["ours"]) as store:
        fill(store, count)
    with opened("SqliteStore", places["SqliteStore"]) as store:
        store.setup()
        fill(store, count)
    taken: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(run.count(5, 1)):
        for name, place in places.items():
            command = [sys.executable, "-m", "benchmarks.search", name, str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken[name].append(float(done.stdout))
    ratios = sorted(ours / theirs for ours, theirs in zip(*taken.values(), strict=True))
    ours, theirs = (sorted(each)[len(each) // 2] for each in taken.values())
    what = f"search for one of {count:,} items, SQLite, in a new process"
    return longer(what, ours, "LangGraph's SqliteStore", theirs, ratios[len(ratios) // 2], at_most(3))


def opened(name: str, place: Path) -> Any:
    """A store on a file, as a context."""
    return CoherentStore(f"sqlite:///{place}") if name == "ours" else SqliteStore.from_conn_string(str(place))


def fill(store: BaseStore, count: int, *, after: int = 0) -> None:
    """Put items `after` to `count`, in batches."""
    for start in range(after, count, BATCH):
        store.batch(
            [
                PutOp(
                    (*ROOT, f"n{each % NAMESPACES}"),
                    f"k{each}",
                    {"kind": each % KINDS, "serial": each, "text": "x" * 100},
                )
                for each in range(start, min(start + BATCH, count))
            ]
        )


def found(store: BaseStore, condition: dict[str, Any]) -> Sequence[Item]:
    """The first twenty items that pass a filter."""
    return store.search(ROOT, filter=condition, limit=20)


def listed(store: BaseStore) -> Sequence[tuple[str, ...]]:
    """All namespaces."""
    return store.list_namespaces(prefix=ROOT, limit=NAMESPACES)


def same(results: dict[str, Sequence[Any]]) -> None:
    """Raise unless the stores found as much, and something."""
    counts = {name: len(result) for name, result in results.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise AssertionError(f"the stores differ in what they find: {counts}")


def main(name: str, place: str) -> None:
    """Print the seconds from opening the file to the end of the first search."""
    began = time.perf_counter()
    with opened(name, Path(place)) as store:
        if not found(store, ONE):
            raise AssertionError("nothing was found")
        taken = time.perf_counter() - began
    print(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
