"""What LangGraph expects of a store, and what its own stores get wrong."""

import asyncio
import threading
import time
import warnings
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)

from ccs_stream import UsageError
from ccs_stream.adapters.langgraph import CoherentStore
from tests.adapters.langgraph.conftest import OpenStore

NS = ("docs", "plans")


def test_a_put_is_got_back_as_an_item(store: CoherentStore) -> None:
    store.put(NS, "k", {"a": [1, 2.5, None, True, "ü"]})
    item = store.get(NS, "k")
    assert isinstance(item, Item)
    assert item.value == {"a": [1, 2.5, None, True, "ü"]}
    assert (item.key, item.namespace, item.version) == ("k", NS, 1)


def test_nothing_is_got_from_where_nothing_was_put(store: CoherentStore) -> None:
    assert store.get(NS, "absent") is None


def test_values_are_isolated_from_what_was_put_and_from_each_other(store: CoherentStore) -> None:
    mine = {"list": [1]}
    store.put(NS, "k", mine)
    mine["list"].append(2)
    first = store.get(NS, "k")
    assert first is not None
    first.value["list"].append(3)
    second = store.get(NS, "k")
    assert second is not None
    assert second.value == {"list": [1]}
    found = store.search(NS)[0]
    found.value["list"].clear()
    third = store.get(NS, "k")
    assert third is not None
    assert third.value == {"list": [1]}


def test_created_at_is_kept_and_updated_at_moves(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1})
    first = store.get(NS, "k")
    time.sleep(0.002)
    store.put(NS, "k", {"n": 2})
    second = store.get(NS, "k")
    assert first is not None
    assert second is not None
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert second.created_at.utcoffset() is not None


def test_stale_copy_served_after_delete_and_re_create(open_store: OpenStore) -> None:
    store = open_store(identity=lambda namespace: (namespace[0], namespace[1:]))
    store.put(("planner", "s"), "k", {"v": "old"})
    assert store.get(("reviewer", "s"), "k") is not None
    store.delete(("reviewer", "s"), "k")
    assert store.get(("planner", "s"), "k") is None
    store.put(("reviewer", "s"), "k", {"v": "new"})
    again = store.get(("planner", "s"), "k")
    assert again is not None
    assert again.value == {"v": "new"}
    assert again.version == 3


def test_a_deleted_item_leaves_no_ghost_namespace(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1})
    store.delete(NS, "k")
    store.delete(NS, "k")
    assert store.list_namespaces() == []
    assert store.search(NS) == []


def test_reads_of_a_batch_come_before_its_writes_and_the_last_put_wins(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 0})
    results = store.batch(
        [
            PutOp(NS, "k", {"n": 1}),
            GetOp(NS, "k"),
            PutOp(NS, "k", {"n": 2}),
            SearchOp(NS),
            ListNamespacesOp(),
        ]
    )
    assert results[0] is None
    assert isinstance(results[1], Item)
    assert results[1].value == {"n": 0}
    assert isinstance(results[3], list)
    assert results[4] == [NS]
    after = store.get(NS, "k")
    assert after is not None
    assert (after.value, after.version) == ({"n": 2}, 2)


def test_a_batch_of_puts_is_one_decision(store: CoherentStore) -> None:
    before = store.workspace.position.sequence
    store.batch([PutOp(NS, str(n), {"n": n}) for n in range(5)])
    changes = list(store.watch(NS, after=None).poll())
    assert changes == []
    history = [store.history(NS, str(n))[0].position for n in range(5)]
    assert len({position.offset for position in history}) == 1
    assert history[0].sequence > before


def test_a_batch_with_one_bad_value_writes_nothing(store: CoherentStore) -> None:
    with pytest.raises(UsageError, match=r"\$\.x\[1\]"):
        store.batch([PutOp(NS, "good", {"n": 1}), PutOp(NS, "bad", {"x": [1, {1, 2}]})])
    assert store.get(NS, "good") is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {"b": float("nan")}}, r"\$\.a\.b"),
        ({"a": [0, float("inf")]}, r"\$\.a\[1\]"),
        ({"a": {1: 2}}, r"\$\.a: the key 1"),
        ({"a": object()}, r"\$\.a"),
        ({"a": 2**70}, r"\$\.a: an integer beyond 64 bits"),
        ({"a": "\ud800"}, r"\$\.a: text with a lone surrogate"),
        ({"a": b"raw"}, r"\$\.a"),
    ],
)
def test_a_value_that_is_not_json_is_refused_with_its_path(store: CoherentStore, value: Any, path: str) -> None:
    before = store.workspace.position
    with pytest.raises(UsageError, match=path):
        store.put(NS, "k", value)
    assert store.workspace.position == before


def test_a_value_nested_in_a_circle_is_refused(store: CoherentStore) -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(UsageError, match="nested deeper"):
        store.put(NS, "k", circle)


def test_a_tuple_comes_back_as_a_list(store: CoherentStore) -> None:
    store.put(NS, "k", {"pair": (1, 2)})
    item = store.get(NS, "k")
    assert item is not None
    assert item.value == {"pair": [1, 2]}


def test_bad_namespaces_are_refused_as_langgraph_refuses_them(store: CoherentStore) -> None:
    for namespace in ((), ("a.b",), ("a", ""), ("langgraph", "x")):
        with pytest.raises(InvalidNamespaceError):
            store.put(namespace, "k", {"n": 1})
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(("a.b",), "k", {"n": 1})])
    # What put() refuses for LangGraph's own root, batch() takes: LangGraph itself writes there.
    store.batch([PutOp(("langgraph", "x"), "k", {"n": 1})])
    assert store.get(("langgraph", "x"), "k") is not None
    with pytest.raises(InvalidNamespaceError):
        store.put(("langgraph", "x"), "k", {"n": 1})


def test_keys_are_text_whatever_they_were(store: CoherentStore) -> None:
    store.put(NS, 7, {"n": 1})  # type: ignore[arg-type]
    item = store.get(NS, "7")
    assert item is not None
    assert item.key == "7"


def test_two_names_mapping_to_one_artifact(store: CoherentStore) -> None:
    store.put(("a:b",), "k", {"n": 1})
    store.put(("a", "b"), "k", {"n": 2})
    store.put(("a",), "b:k", {"n": 3})
    values = [item.value["n"] for item in store.get_all([(("a:b",), "k"), (("a", "b"), "k"), (("a",), "b:k")]) if item]
    assert values == [1, 2, 3]


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"n": 1}, ["a"]),
        ({"n": {"$eq": 2}}, ["b"]),
        ({"n": {"$ne": 2}}, ["a", "c"]),
        ({"n": {"$gt": 1}}, ["b", "c"]),
        ({"n": {"$gte": 2, "$lt": 10}}, ["b"]),
        ({"n": {"$lte": 1}}, ["a"]),
        ({"n": {"$gt": "9"}}, ["c"]),
        ({"m": {"deep": {"$eq": "x"}}}, ["b"]),
        ({"m": {"deep": "x"}}, ["b"]),
        ({"absent": {"$gt": 1}}, []),
        ({"l": [1, 2]}, ["c"]),
    ],
)
def test_filters(store: CoherentStore, wanted: dict[str, Any], keys: list[str]) -> None:
    store.put(NS, "a", {"n": 1})
    store.put(NS, "b", {"n": 2, "m": {"deep": "x"}})
    store.put(NS, "c", {"n": 10, "l": [1, 2]})
    assert [item.key for item in store.search(("docs",), filter=wanted)] == keys


def test_an_unknown_filter_operator_names_the_nearest(store: CoherentStore) -> None:
    with pytest.raises(UsageError, match=r"did you mean '\$gte'"):
        store.search(NS, filter={"n": {"$gtee": 1}})


def test_search_pages_in_the_order_of_creation(store: CoherentStore) -> None:
    for n in range(7):
        store.put(NS, f"k{n}", {"n": n})
    store.put(NS, "k0", {"n": 100})
    assert [item.key for item in store.search(NS, limit=3, offset=2)] == ["k2", "k3", "k4"]
    assert [item.key for item in store.search(NS, limit=3, offset=1, filter={"n": {"$gt": 2}})] == ["k3", "k4", "k5"]
    assert all(isinstance(item, SearchItem) for item in store.search(NS))


def test_list_namespaces_with_wildcards_depth_and_pages(store: CoherentStore) -> None:
    for namespace in (("a", "x", "1"), ("a", "y", "1"), ("b", "x", "2"), ("a", "x", "2")):
        store.put(namespace, "k", {"n": 1})
    assert store.list_namespaces(prefix=("a",)) == [("a", "x", "1"), ("a", "x", "2"), ("a", "y", "1")]
    assert store.list_namespaces(prefix=("*", "x")) == [("a", "x", "1"), ("a", "x", "2"), ("b", "x", "2")]
    assert store.list_namespaces(suffix=("*", "1")) == [("a", "x", "1"), ("a", "y", "1")]
    assert store.list_namespaces(max_depth=2) == [("a", "x"), ("a", "y"), ("b", "x")]
    assert store.list_namespaces(max_depth=2, limit=1, offset=1) == [("a", "y")]
    both = (MatchCondition("prefix", ("a",)), MatchCondition("suffix", ("2",)))
    assert store.batch([ListNamespacesOp(match_conditions=both)]) == [[("a", "x", "2")]]


def test_an_expired_item_is_gone_for_every_kind_of_read(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1}, ttl=0.02)  # of minutes: long enough for a slow machine to read it once
    assert store.get(NS, "k", refresh_ttl=False) is not None
    time.sleep(1.25)
    assert store.search(NS) == []
    assert store.list_namespaces() == []
    assert store.get_all([(NS, "k")]) == [None]
    assert store.get(NS, "k") is None
    assert [change.kind for change in store.history(NS, "k")] == ["expired", "written"]


def test_reading_extends_a_life_unless_told_not_to(open_store: OpenStore) -> None:
    store = open_store(ttl={"default_ttl": 0.01, "refresh_on_read": True})
    store.put(NS, "read", {"n": 1})
    store.put(NS, "left", {"n": 1})
    ends = time.monotonic() + 1.0
    while time.monotonic() < ends:
        assert store.get(NS, "read") is not None
        time.sleep(0.05)
    assert store.get(NS, "left", refresh_ttl=False) is None


def test_a_sweep_ends_what_has_expired(open_store: OpenStore) -> None:
    store = open_store(ttl={"sweep_interval_minutes": 0.0005})
    store.put(NS, "k", {"n": 1}, ttl=0.0002)
    deadline = time.monotonic() + 10
    while store.history(NS, "k")[0].kind != "expired":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.stop_ttl_sweeper()
    assert store.sweep_ttl() == 0


def _embed(texts: list[str]) -> list[list[float]]:
    return [[float(text.count("a")), float(text.count("b")), 1.0] for text in texts]


def test_semantic_search_ranks_and_never_logs_embeddings(open_store: OpenStore) -> None:
    store = open_store(index={"dims": 3, "embed": _embed, "fields": ["text"]})
    store.put(NS, "bees", {"text": "bbbb"})
    store.put(NS, "as", {"text": "aaaa"})
    store.put(NS, "unindexed", {"text": "aaaa"}, index=False)
    store.put(NS, "elsewhere", {"other": "aa"}, index=["other"])
    found = store.search(NS, query="aaa")
    assert [item.key for item in found] == ["as", "elsewhere", "bees", "unindexed"]
    assert found[0].score is not None
    assert found[-1].score is None
    assert [item.key for item in store.search(NS, query="bb", limit=1)] == ["bees"]
    store.put(NS, "as", {"text": "bbbbbb"})
    assert {item.key for item in store.search(NS, query="bbb", limit=2)} == {"as", "bees"}


async def test_semantic_search_awaits_an_async_model(open_store: OpenStore) -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return _embed(texts)

    store = open_store(index={"dims": 3, "embed": embed, "fields": ["$"]})
    await store.aput(NS, "one", {"text": "aaaa"})
    await store.aput(NS, "two", {"text": "bbbb"})
    assert [item.key for item in await store.asearch(NS, query="bb", limit=1)] == ["two"]


def test_search_that_cannot_find_what_get_returns(open_store: OpenStore, ccs_store: CoherentStore) -> None:
    ccs_store.put(("planner", "shared"), "plan", {"n": 1})
    for agent in ("planner", "reviewer"):
        assert ccs_store.get((agent, "shared"), "plan") is not None
        found = ccs_store.search((agent, "shared"))
        assert [(item.namespace, item.key) for item in found] == [((agent, "shared"), "plan")]
        assert [item.key for item in ccs_store.search((agent,))] == ["plan"]
        assert (agent, "shared") in ccs_store.list_namespaces(prefix=(agent,))


def test_options_silently_ignored(open_store: OpenStore) -> None:
    with pytest.raises(UsageError, match="did you mean 'writes'"):
        open_store(wirtes="guarded")
    with pytest.raises(UsageError, match="did you mean 'default_ttl'"):
        open_store(ttl={"defualt_ttl": 1})
    with pytest.raises(UsageError, match="'dims', 'embed' and 'fields'"):
        open_store(index={"dims": 2, "embed": _embed, "field": ["x"]})
    with pytest.raises(UsageError, match="identity is"):
        open_store(identity="nodes")
    with pytest.raises(UsageError, match="writes is"):
        open_store(writes="gaurded")


def test_the_store_is_true_when_empty(store: CoherentStore) -> None:
    assert store


async def test_gathered_puts_to_one_key_keep_their_order(store: CoherentStore) -> None:
    big = {"n": -1, "body": "x" * 200_000}
    await asyncio.gather(store.aput(NS, "k", big), *(store.aput(NS, "k", {"n": n}) for n in range(50)))
    item = await store.aget(NS, "k")
    assert item is not None
    assert item.value == {"n": 49}
    order = [change.value["n"] for change in await store.ahistory(NS, "k")]
    assert order == [*range(49, -1, -1), -1]


async def test_a_sync_call_inside_a_running_loop_works(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1})
    assert store.get(NS, "k") is not None
    assert (await store.aget(NS, "k")) is not None


def test_several_event_loops_at_once(store: CoherentStore) -> None:
    async def work(name: str) -> None:
        await asyncio.gather(*(store.aput((name,), str(n), {"n": n}) for n in range(20)))
        found = await store.asearch((name,), limit=100)
        assert len(found) == 20

    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.search((), limit=1000)) == 80


def test_search_during_puts_from_other_threads(store: CoherentStore) -> None:
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            store.put(NS, f"k{n % 50}", {"n": n})
            store.delete(NS, f"k{(n + 25) % 50}")
            n += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(50):
                store.search((), limit=100)
                store.list_namespaces()
        finally:
            stop.set()
            writer.join()


def test_five_megabytes_pass_and_more_than_the_maximum_is_refused(open_store: OpenStore) -> None:
    store = open_store()
    body = {"text": "x" * 5_000_000}
    store.put(NS, "big", body)
    item = store.get(NS, "big")
    assert item is not None
    assert item.value == body
    before = store.workspace.position
    with pytest.raises(Exception, match="the workspace allows"):
        store.put(NS, "huge", {"text": "x" * 17_000_000})
    assert store.workspace.position == before
