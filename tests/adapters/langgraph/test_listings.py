"""A listing names each namespace with something in it, whatever stands before that in the namespace."""

import time

from ccs_stream.adapters.langgraph import CoherentStore


def test_a_namespace_is_listed_as_long_as_anything_is_in_it(store: CoherentStore) -> None:
    store.put(("a", "b"), "first", {"n": 1}, ttl=0.2 / 60)
    store.put(("a", "b"), "second", {"n": 1})
    store.put(("a", "c"), "only", {"n": 1}, ttl=0.2 / 60)
    store.put(("a", "d"), "gone", {"n": 1})
    store.delete(("a", "d"), "gone")
    assert store.list_namespaces() == [("a", "b"), ("a", "c")]
    time.sleep(0.3)
    assert store.list_namespaces() == [("a", "b")]
    store.delete(("a", "b"), "second")
    assert store.list_namespaces() == []
