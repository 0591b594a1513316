"""What only a coherent store does: guarded writes, lost updates on record, reservations, history, watching."""

import asyncio
import threading
import warnings
from typing import Any

import pytest

from ccs_stream import Fenced, Reserved, UsageError, VersionConflict
from ccs_stream.adapters.langgraph import CoherentStore, LostUpdateWarning
from tests.adapters.langgraph.conftest import OpenStore

NS = ("team",)


def by_first_part(namespace: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The agent is the first part."""
    return namespace[0], namespace[1:]


def test_lost_update_without_a_trace(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    store.put(("setup", "s"), "n", {"n": 0})
    for agent in ("a", "b"):
        assert store.get((agent, "s"), "n") is not None
    store.put(("a", "s"), "n", {"n": 1})
    with pytest.warns(LostUpdateWarning, match="'b' replaced version 2"):
        store.put(("b", "s"), "n", {"n": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(("a", "s"), "n", {"n": 2})  # said once for each artifact
    newest = store.history(("a", "s"), "n")
    assert [(change.agent, change.version, change.base_version) for change in newest[:2]] == [("a", 4, 2), ("b", 3, 1)]


def test_a_put_over_what_its_author_read_warns_of_nothing(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1})
    store.put(NS, "k", {"n": 2})
    assert store.get(NS, "k") is not None
    store.delete(NS, "k")
    store.put(NS, "k", {"n": 3})


def test_guarded_a_conflict_carries_the_current_version_and_value(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part, writes="guarded")
    store.put(("a", "s"), "k", {"n": 1})
    assert store.get(("b", "s"), "k") is not None
    store.put(("a", "s"), "k", {"n": 2})
    with pytest.raises(VersionConflict) as caught:
        store.put(("b", "s"), "k", {"n": 10})
    assert (caught.value.current_version, caught.value.current_value) == (2, {"n": 2})
    with pytest.raises(VersionConflict):
        store.delete(("b", "s"), "k")
    assert store.get(("b", "s"), "k") is not None
    store.put(("b", "s"), "k", {"n": 12})


def test_guarded_never_having_read_succeeds_only_where_nothing_exists(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part, writes="guarded")
    store.put(("a", "s"), "k", {"n": 1})
    with pytest.raises(VersionConflict):
        store.put(("b", "s"), "k", {"n": 2})
    store.delete(("a", "s"), "k")
    store.put(("c", "s"), "k", {"n": 3})


def test_guarded_a_read_that_found_nothing_counts(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part, writes="guarded")
    assert store.get(("b", "s"), "k") is None
    store.put(("a", "s"), "k", {"n": 1})
    with pytest.raises(VersionConflict):
        store.put(("b", "s"), "k", {"n": 2})


def test_guarded_a_batch_is_refused_whole(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part, writes="guarded")
    store.put(("a", "s"), "one", {"n": 1})
    with pytest.raises(VersionConflict):
        store.put_all([(("b", "s"), "two", {"n": 2}), (("b", "s"), "one", {"n": 2})])
    assert store.get(("b", "s"), "two") is None


def _count(store: CoherentStore, namespace: tuple[str, ...], times: int) -> int:
    refused = 0
    for _ in range(times):
        while True:
            item = store.get(namespace, "n")
            try:
                store.put(namespace, "n", {"n": item.value["n"] + 1 if item else 1})
                break
            except VersionConflict:
                refused += 1
    return refused


@pytest.mark.parametrize("names", ["many", "one"])
def test_races_between_threads_under_one_agent_name_too(open_store: OpenStore, names: str) -> None:
    store = open_store(identity=by_first_part, writes="guarded")
    refused: list[int] = []
    threads = [
        threading.Thread(
            target=lambda agent=f"agent-{n if names == 'many' else 0}": refused.append(_count(store, (agent, "s"), 150))
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    item = store.get(("reader", "s"), "n")
    assert item is not None
    assert (item.value["n"], item.version) == (8 * 150, 8 * 150)
    assert len(refused) == 8


async def test_races_between_tasks_of_one_loop(open_store: OpenStore) -> None:
    store = open_store(writes="guarded")

    async def count() -> None:
        for _ in range(20):
            while True:
                item = await store.aget(NS, "n")
                await asyncio.sleep(0)
                try:
                    await store.aput(NS, "n", {"n": item.value["n"] + 1 if item else 1})
                    break
                except VersionConflict:
                    pass

    await asyncio.gather(*(asyncio.create_task(count()) for _ in range(8)))
    item = await store.aget(NS, "n")
    assert item is not None
    assert item.value["n"] == 160


async def test_a_read_in_a_helper_task_counts_for_whoever_called_it(open_store: OpenStore) -> None:
    store = open_store(writes="guarded")
    store.put(NS, "k", {"n": 1})
    both = await asyncio.gather(store.aget(NS, "k"), store.aget(NS, "other"))
    assert both[0] is not None
    await asyncio.wait_for(store.aput(NS, "k", {"n": 2}), 5)
    await store.aput(NS, "k", {"n": 3})
    item = await store.aget(NS, "k")
    assert item is not None
    assert item.value == {"n": 3}


def test_compare_and_set(store: CoherentStore) -> None:
    assert store.compare_and_set(NS, "k", {"n": 1}, expected=None) == 1
    with pytest.raises(VersionConflict):
        store.compare_and_set(NS, "k", {"n": 2}, expected=None)
    item = store.get(NS, "k")
    assert item is not None
    assert store.compare_and_set(NS, "k", {"n": 2}, expected=item.version, reason="because") == 2
    assert store.history(NS, "k")[0].reason == "because"
    assert store.compare_and_set(NS, "k", None, expected=2) == 3
    assert store.get(NS, "k") is None


def test_put_all_and_get_all(open_store: OpenStore) -> None:
    store = open_store()
    store.put(NS, "old", {"n": 0})
    assert store.put_all([(NS, "a", {"n": 1}), (NS, "b", {"n": 2}), (NS, "old", None)]) == [1, 1, 2]
    items = store.get_all([(NS, "a"), (NS, "b"), (NS, "old")])
    assert [item.value["n"] if item else None for item in items] == [1, 2, None]
    named = open_store(identity=by_first_part, workspace="other")
    with pytest.raises(UsageError, match="one agent"):
        named.put_all([(("a", "s"), "k", {"n": 1}), (("b", "s"), "k", {"n": 1})])


def test_a_reader_that_cancels_a_writer_s_reservation(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    store.put(("a", "s"), "k", {"n": 1})
    with store.acquire(("a", "s"), "k", limit_s=30):
        assert store.get(("b", "s"), "k") is not None
        with pytest.raises(Reserved):
            store.put(("b", "s"), "k", {"n": 2})
        with pytest.raises(Reserved), store.acquire(("b", "s"), "k"):
            pass
        store.put(("a", "s"), "k", {"n": 3})
    assert store.get(("b", "s"), "k") is not None
    store.put(("b", "s"), "k", {"n": 4})


def test_waiting_for_a_reservation_ends_with_its_release(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    order: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        entered.wait()
        with store.acquire(("b", "s"), "k", wait_s=30):
            order.append("b")

    waiter = threading.Thread(target=wait)
    waiter.start()
    with store.acquire(("a", "s"), "k", limit_s=30):
        entered.set()
        threading.Event().wait(0.05)
        order.append("a")
    waiter.join(30)
    assert order == ["a", "b"]


def test_another_thread_of_the_holder_does_not_write_under_its_reservation(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    store.put(("a", "s"), "k", {"n": 1})
    errors: list[BaseException] = []

    def intrude() -> None:
        try:
            store.put(("a", "s"), "k", {"n": 9})
        except Reserved as error:
            errors.append(error)

    with store.acquire(("a", "s"), "k", limit_s=30):
        intruder = threading.Thread(target=intrude)
        intruder.start()
        intruder.join()
    assert len(errors) == 1


def test_zombie_write_after_a_reclaim(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    store.put(("a", "s"), "k", {"n": 1})
    reservation = store.acquire(("a", "s"), "k", limit_s=0.02)
    reservation.__enter__()
    threading.Event().wait(0.05)
    with store.acquire(("b", "s"), "k", limit_s=30):
        assert store.get(("b", "s"), "k") is not None
        store.put(("b", "s"), "k", {"n": 2})
    with pytest.raises(Exception, match="reclaimed"):
        store.put(("a", "s"), "k", {"n": 99})
    with pytest.raises(Exception, match="over already"):
        reservation.__exit__(None, None, None)
    item = store.get(("a", "s"), "k")
    assert item is not None
    assert item.value == {"n": 2}
    store.put(("a", "s"), "k", {"n": 3})


def test_a_write_with_the_fence_of_an_ended_reservation_is_refused(open_store: OpenStore) -> None:
    store = open_store(identity=by_first_part)
    store.put(("a", "s"), "k", {"n": 1})
    with store.acquire(("a", "s"), "k", limit_s=30) as first:
        fence = first.fence
    here = store.workspace.engine.read_sets.current("a")
    artifact = store.workspace.engine.session.address(("s",), "k")
    assert fence is not None
    here.fences[artifact] = fence
    with pytest.raises(Fenced):
        store.put(("a", "s"), "k", {"n": 2})


def test_watch_tells_of_changes_and_resumes(store: CoherentStore) -> None:
    with store.watch(NS) as watch:
        store.put((*NS, "sub"), "k", {"n": 1})
        store.put(("other",), "k", {"n": 1})
        store.delete((*NS, "sub"), "k")
        changes = watch.poll()
    assert [(change.kind, change.scope, change.value) for change in changes] == [
        ("written", ("team", "sub"), {"n": 1}),
        ("deleted", ("team", "sub"), None),
    ]
    again = store.watch(NS, after=str(changes[0].position)).poll()
    assert [change.kind for change in again] == ["deleted"]


async def test_watch_waits_for_the_next_change(store: CoherentStore) -> None:
    seen: list[Any] = []

    async def follow() -> None:
        async for change in watch:
            seen.append(change.value)
            if len(seen) == 3:
                return

    watch = store.watch(NS)
    following = asyncio.create_task(follow())
    for n in range(3):
        await store.aput(NS, "k", {"n": n})
        await asyncio.sleep(0.01)
    await asyncio.wait_for(following, 20)
    assert seen == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_position_survives_json_and_asks_for_what_is_not_there(store: CoherentStore) -> None:
    store.put(NS, "k", {"n": 1})
    token = str(store.workspace.position)
    reader = store.workspace.agent("reader")
    reading = reader.read("k", scope=NS, at_least=token)
    assert reading is not None
    assert reading.value == {"n": 1}


def test_the_state_is_a_fold_of_the_log(store: CoherentStore) -> None:
    for n in range(20):
        store.put(NS, f"k{n % 4}", {"n": n})
        store.get(NS, f"k{(n + 1) % 4}")
    store.delete(NS, "k1")
    live = store.workspace.state_hash()
    assert store.workspace.as_of(store.workspace.position).state_hash() == live
    past = store.workspace.as_of(store.history(NS, "k1")[1].position)
    reading = past.read("k1", scope=NS)
    assert reading is not None


def test_ccs_namespaces_need_two_parts_and_share_their_rest(ccs_store: CoherentStore) -> None:
    with pytest.raises(UsageError, match="at least 2 parts"):
        ccs_store.put(("alone",), "k", {"n": 1})
    ccs_store.put(("planner", "shared"), "plan", {"n": 1})
    item = ccs_store.get(("reviewer", "shared"), "plan")
    assert item is not None
    assert item.value == {"n": 1}
    assert ccs_store.history(("reviewer", "shared"), "plan")[0].agent == "planner"


def test_a_namespace_that_names_a_user_is_warned_of_once(ccs_store: CoherentStore) -> None:
    with pytest.warns(UserWarning, match="looks like a user"):
        ccs_store.put(("user-17", "memories"), "k", {"n": 1})
    ccs_store.put(("user-18", "memories"), "j", {"n": 1})
