"""Odd values of every type, for every argument of the store: an error before anything is appended, or a sound log."""

import warnings
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langgraph.graph import StateGraph
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from ccs_stream import CcsError, Refused, UsageError
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore
from tests.protocol.test_limits import ANYTHING

Call = Callable[[CoherentStore, Any], object]
NS = ("planner", "x")


class State(TypedDict):
    """The state of a graph."""

    x: int


LABELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5).filter(lambda label: "." not in label)
ODD_LABELS = st.sampled_from(["", "a.b", ".", "\x00", "a\x00b", "\ud83d", "x" * 5_000])


def acquired(store: CoherentStore, namespace: Any = NS, key: Any = "k", **options: Any) -> None:
    """Enter and leave a reservation."""
    with store.acquire(namespace, key, **options):
        pass


ON_NAMESPACES: dict[str, Call] = {
    "put": lambda store, ns: store.put(ns, "k", {"v": 2}),
    "delete": lambda store, ns: store.delete(ns, "k"),
    "get": lambda store, ns: store.get(ns, "k"),
    "compare_and_set": lambda store, ns: store.compare_and_set(ns, "k", {"v": 2}, expected=None),
    "put_all": lambda store, ns: store.put_all([(ns, "k", {"v": 2})]),
    "get_all": lambda store, ns: store.get_all([(ns, "k")]),
    "acquire": acquired,
    "history": lambda store, ns: store.history(ns, "k"),
    "search": lambda store, ns: store.search(ns),
    "watch": lambda store, ns: store.watch(ns).poll(),
    "batch put": lambda store, ns: store.batch([PutOp(ns, "k", {"v": 2})]),
    "batch get": lambda store, ns: store.batch([GetOp(ns, "k")]),
    "batch search": lambda store, ns: store.batch([SearchOp(ns)]),
}
CALLS: dict[str, Call] = {
    "put(key)": lambda store, v: store.put(NS, v, {"v": 2}),
    "put(value)": lambda store, v: store.put(NS, "k", v),
    "put(value member)": lambda store, v: store.put(NS, "k", {"v": v}),
    "put(index)": lambda store, v: store.put(NS, "k", {"v": 2}, index=v),
    "put(ttl)": lambda store, v: store.put(NS, "k", {"v": 2}, ttl=v),
    "compare_and_set(expected)": lambda store, v: store.compare_and_set(NS, "k", {"v": 2}, expected=v),
    "compare_and_set(ttl)": lambda store, v: store.compare_and_set(NS, "k", {"v": 2}, expected=1, ttl=v),
    "compare_and_set(reason)": lambda store, v: store.compare_and_set(NS, "k", {"v": 2}, expected=1, reason=v),
    "put_all(items)": lambda store, v: store.put_all([v]),
    "put_all(reason)": lambda store, v: store.put_all([(NS, "k", {"v": 2})], reason=v),
    "acquire(limit_s)": lambda store, v: acquired(store, limit_s=v),
    "acquire(wait_s)": lambda store, v: acquired(store, wait_s=v),
    "history(limit)": lambda store, v: store.history(NS, "k", limit=v),
    "watch(after)": lambda store, v: store.watch(after=v).poll(),
    "search(query)": lambda store, v: store.search(NS, query=v),
    "search(filter)": lambda store, v: store.search(NS, filter=v),
    "search(filter member)": lambda store, v: store.search(NS, filter={"v": v}),
    "search(filter operand)": lambda store, v: store.search(NS, filter={"v": {"$gt": v}}),
    "search(filter equals)": lambda store, v: store.search(NS, filter={"v": {"$ne": v}}),
    "search(limit)": lambda store, v: store.search(NS, limit=v),
    "search(offset)": lambda store, v: store.search(NS, offset=v),
    "list_namespaces(prefix)": lambda store, v: store.list_namespaces(prefix=v),
    "list_namespaces(max_depth)": lambda store, v: store.list_namespaces(max_depth=v),
    "list_namespaces(limit)": lambda store, v: store.list_namespaces(limit=v),
    "batch list": lambda store, v: store.batch([ListNamespacesOp((MatchCondition("prefix", v),), None, 9, 0)]),
    "start_ttl_sweeper": lambda store, v: store.start_ttl_sweeper(v),
}


def checked(call: Call, value: Any, kind: type[CoherentStore] = CoherentStore) -> BaseException | None:
    """Call it on a store with one item, and see what came of it; returns what was raised."""
    with kind() as store, warnings.catch_warnings(action="ignore"):
        store.put(NS, "k", {"v": 1})
        before, raised = store.workspace.position.offset, None
        try:
            call(store, value)
        except (CcsError, TypeError, ValueError) as error:
            raised = error
        assert not isinstance(raised, UnicodeError)
        assert getattr(raised, "reason", None) not in ("internal_error", "decision_too_large")
        if raised is not None and not isinstance(raised, Refused):
            assert store.workspace.position.offset == before
        held = store.workspace.state_hash()
        assert store.workspace.as_of(store.workspace.position).state_hash() == held
    return raised


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None)
@given(value=ANYTHING)
def test_an_odd_argument_is_refused_before_anything_is_appended(name: str, value: Any) -> None:
    checked(CALLS[name], value)


@pytest.mark.parametrize("kind", [CoherentStore, CCSStore])
@settings(max_examples=40, deadline=None)
@given(
    namespace=st.one_of(
        ANYTHING,
        st.lists(LABELS, min_size=2, max_size=3).map(tuple),
        st.tuples(LABELS, ODD_LABELS),
        st.tuples(ODD_LABELS, LABELS),
        st.just(("a",) * 65),
    )
)
@example(namespace=("a", "\x00"))
def test_every_method_follows_one_rule_of_namespaces(kind: type[CoherentStore], namespace: Any) -> None:
    outcomes = {name: checked(call, namespace, kind) for name, call in ON_NAMESPACES.items()}
    refused = {name: isinstance(raised, ValueError | TypeError) for name, raised in outcomes.items()}
    if namespace == () or (kind is CCSStore and type(namespace) is tuple and len(namespace) < 2):
        return  # what may be listed and read, and not written
    assert len(set(refused.values())) == 1, refused


@pytest.mark.parametrize("first", ["put", "compare_and_set", "workspace"])
def test_a_method_does_not_change_its_mind_later(first: str) -> None:
    bad = ("tenant", "acme.com")
    with CoherentStore() as store:
        for _ in range(2):
            if first == "workspace":
                store.workspace.agent("a").write("k", {"n": 1}, scope=bad)
            else:
                with pytest.raises(ValueError, match="namespace"):
                    ON_NAMESPACES[first](store, bad)
            for name, call in ON_NAMESPACES.items():
                with pytest.raises(ValueError, match=r"[Nn]amespace"):
                    call(store, bad)
                assert name


@pytest.mark.parametrize("ttl", [5, "60", {"default_ttl": "x"}, {"default_ttl": float("inf")}, {"refresh_on_read": 1}])
def test_an_odd_ttl_configuration_is_refused(ttl: Any) -> None:
    with pytest.raises(UsageError):
        CoherentStore(ttl=ttl)


def test_a_run_is_not_refused_for_its_names_and_is_on_record() -> None:
    def node(_: State) -> State:
        assert store.get(NS, "gone") is None
        store.get(NS, "k")
        store.put(NS, "k", {"v": 2})
        return {"x": 1}

    with CoherentStore(deliveries=True) as store:
        builder: Any = StateGraph(State)
        graph = builder.add_node("node", node).set_entry_point("node").compile(store=store)
        for thread in ("t-\ud83d", "x" * 10_000, "plain"):
            graph.invoke({"x": 0}, {"configurable": {"thread_id": thread, "ccs_generation": 2**80}})
        assert store.flush()
        recorded = list(store.workspace.deliveries())
    assert {each.agent for each in recorded} == {"node"}
    assert {each.conversation for each in recorded} == {"t-?", "x" * 4_096, "plain"}


@pytest.mark.parametrize(
    "call",
    [
        lambda store, key: store.get(NS, key),
        lambda store, key: store.put(NS, key, {"v": 2}),
        lambda store, key: store.delete(NS, key),
        lambda store, key: store.compare_and_set(NS, key, {"v": 2}, expected=None),
        lambda store, key: store.put_all([(NS, "k", {"v": 2}), (NS, key, {"v": 2})]),
        lambda store, key: store.get_all([(NS, "k"), (NS, key)]),
        lambda store, key: store.history(NS, key),
        lambda store, key: acquired(store, key=key),
        lambda store, key: store.batch([GetOp(NS, "k"), GetOp(NS, key)]),
        lambda store, key: store.batch([GetOp(NS, "k"), PutOp(NS, key, {"v": 2})]),
    ],
)
@pytest.mark.parametrize("key", ["nested", "\ud83d", "x" * 5_000])
def test_an_odd_key_is_refused_before_anything_is_appended(call: Call, key: Any) -> None:
    if key == "nested":
        key = []
        for _ in range(100_000):
            key = [key]
    assert isinstance(checked(call, key), UsageError)


def test_a_key_is_the_text_of_what_is_given_as_in_langgraph() -> None:
    with CoherentStore() as store:
        store.put(NS, 7, {"v": 2})  # type: ignore[arg-type]
        assert store.get(NS, "7") is not None
