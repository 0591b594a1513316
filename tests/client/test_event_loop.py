"""Coroutines on a log in a file: the event loop waits for no disk and no lock, and looking back holds up no commit."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from langgraph.store.base import PutOp

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore

LARGE = "x" * 200_000
"""Longer than what travels in a decision: its body is beside the log."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db?synchronous=normal"


@pytest.fixture
def store(url: str) -> Iterator[CoherentStore]:
    with CoherentStore(url, workspace="w") as store:
        yield store


CALLS: dict[str, Callable[[CoherentStore], Awaitable[Any]]] = {
    "aput": lambda store: store.aput(("docs",), "one", {"n": 2}),
    "aput, large": lambda store: store.aput(("docs",), "large", {"text": LARGE}),
    "aget": lambda store: store.aget(("docs",), "one"),
    "aget, large": lambda store: store.aget(("docs",), "large"),
    "aget of nothing": lambda store: store.aget(("docs",), "none"),
    "aget_all": lambda store: store.aget_all([(("docs",), "one"), (("docs",), "large")]),
    "asearch": lambda store: store.asearch(("docs",)),
    "asearch with a filter": lambda store: store.asearch(("docs",), filter={"n": 1}),
    "alist_namespaces": lambda store: store.alist_namespaces(),
    "abatch": lambda store: store.abatch([PutOp(("docs",), "two", {"n": 3}), PutOp(("docs",), "one", None)]),
    "ahistory": lambda store: store.ahistory(("docs",), "one"),
    "acompare_and_set": lambda store: store.acompare_and_set(("docs",), "new", {"n": 1}, expected=None),
    "aput_all": lambda store: store.aput_all([(("docs",), "one", {"n": 1}), (("docs",), "three", {"n": 1})]),
    "adelete": lambda store: store.adelete(("docs",), "one"),
    "aas_of": lambda store: store.workspace.aas_of(2),
    "awrite": lambda store: store.workspace.agent("a").awrite("plan", 1),
    "aread": lambda store: store.workspace.agent("a").aread("plan"),
    "aread_all": lambda store: store.workspace.aread_all(["plan"]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("another_writes", [False, True], ids=["alone", "beside another"])
@pytest.mark.filterwarnings("ignore::ccs_stream.adapters.langgraph.LostUpdateWarning")
async def test_no_call_blocks_the_event_loop(store: CoherentStore, url: str, name: str, another_writes: bool) -> None:
    store.put(("docs",), "one", {"n": 1})
    store.put(("docs",), "large", {"text": LARGE})
    if another_writes:
        with ccs_stream.connect(url, workspace="w") as other:
            other.agent("other").write("one", {"n": 7}, scope=("docs",))
            other.agent("other").write("large", {"text": LARGE + "y"}, scope=("docs",))
    with blockbuster_ctx():
        await CALLS[name](store)
        if name != "acompare_and_set":
            await CALLS[name](store)


async def test_a_watch_does_not_block_the_event_loop(store: CoherentStore, url: str) -> None:
    watch = store.workspace.watch()
    with CoherentStore(url, workspace="w") as other:
        other.put(("docs",), "large", {"text": LARGE})
    with blockbuster_ctx():
        change = await anext(watch)
    assert (change.key, change.value) == ("large", {"text": LARGE})


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Another thread has the lock, as one that waits for its disk would."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            begun.set()
            end.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


LOOKS: dict[str, Callable[[CoherentStore], Awaitable[Any]]] = {
    name: CALLS[name] for name in ("aget", "asearch", "asearch with a filter", "alist_namespaces", "ahistory", "aas_of")
}


@pytest.mark.parametrize("name", LOOKS)
async def test_looking_back_takes_no_lock_that_commits_need(store: CoherentStore, name: str) -> None:
    store.put(("docs",), "one", {"n": 1})
    store.get(("docs",), "one")
    await store.aget(("docs",), "one")  # everything is folded
    with held(store.workspace.coordinator.lock):
        await asyncio.wait_for(LOOKS[name](store), 5)


@pytest.mark.parametrize("name", CALLS)
async def test_the_event_loop_goes_on_while_a_commit_waits_for_its_disk(store: CoherentStore, name: str) -> None:
    store.put(("docs",), "one", {"n": 1})
    store.put(("docs",), "large", {"text": LARGE})
    with held(store.workspace.coordinator.lock):
        call = asyncio.ensure_future(CALLS[name](store))
        for _ in range(5):
            await asyncio.wait_for(asyncio.sleep(0.01), 1)
    await asyncio.wait_for(call, 10)


def test_a_search_reads_bodies_in_bulk(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with CoherentStore(url, workspace="w") as store:
        for first in range(0, 600, 100):
            store.batch([PutOp(("docs",), f"k{n}", {"n": n}) for n in range(first, first + 50)])
            for n in range(first + 50, first + 100):
                store.put(("docs",), f"k{n}", {"n": n})
        store.put(("docs",), "k3", {"n": 3, "again": True})
    with CoherentStore(url, workspace="w") as store:
        log, queries = store.workspace.coordinator.store, 0
        reader = log._lookups  # type: ignore[attr-defined]  # counted where they are made
        query, bounded = reader.query, reader._bounded

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def count(*arguments: Any) -> Any:
                nonlocal queries
                queries += 1
                return function(*arguments)

            return count

        monkeypatch.setattr(reader, "query", counted(query))
        monkeypatch.setattr(reader, "_bounded", counted(bounded))
        found = store.search(("docs",), limit=1_000)
        assert [item.value["n"] for item in found] == list(range(600))
        assert queries < 40


def test_a_search_is_of_one_sequence_while_others_write() -> None:
    with ccs_stream.connect() as workspace:
        writer, end = workspace.agent("writer"), threading.Event()

        def write() -> None:
            number = 0
            while not end.is_set():
                number += 1
                workspace.write_all([ccs_stream.Put(f"k{each}", number) for each in range(20)], agent="writer")

        writer.write("k0", 0)
        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(300):
                found = workspace.engine.finder.find(())
                bodies = {content.body for _, content in workspace.engine.finder.contents(found.states)}
                assert len({state.sequence // 1_000_000 for state in found.states}) == 1
                assert len({state.updated_at for state in found.states}) == 1
                assert len(bodies) <= 1 or len(found.states) == 1
        finally:
            end.set()
            thread.join()
