"""A store beside agents of its workspace that write bytes: what it cannot hand out is one error, and hides nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from langgraph.store.base import GetOp, SearchOp

from ccs_stream import UsageError
from ccs_stream.adapters.langgraph import CoherentStore

NS = ("docs",)


def fill(store: CoherentStore) -> None:
    author = store.workspace.agent("author")
    author.write("binary", b"\xff\x00", scope=NS)
    author.write("looks like JSON", b'{"v": 1}', scope=NS)
    author.write("empty", b"", scope=NS)
    store.put(NS, "plain", {"v": 2})


@pytest.mark.parametrize("key", ["binary", "looks like JSON", "empty"])
@pytest.mark.parametrize(
    "get",
    [
        lambda store, key: store.get(NS, key),
        lambda store, key: store.get_all([(NS, "plain"), (NS, key)]),
        lambda store, key: store.batch([GetOp(NS, "plain"), GetOp(NS, key)]),
    ],
)
def test_bytes_are_an_error_that_says_so(
    store: CoherentStore, get: Callable[[CoherentStore, str], Any], key: str
) -> None:
    fill(store)
    for _ in range(2):  # from the log, then from a copy
        with pytest.raises(UsageError, match=rf"'{key}' in \('docs',\) is application/octet-stream, and not JSON"):
            get(store, key)


@pytest.mark.parametrize("key", ["binary", "looks like JSON", "empty"])
async def test_bytes_are_the_same_error_for_coroutines(store: CoherentStore, key: str) -> None:
    fill(store)
    for _ in range(2):
        with pytest.raises(UsageError, match="not JSON"):
            await store.aget(NS, key)


@pytest.mark.parametrize("options", [{}, {"filter": {"v": 2}}, {"limit": 1}, {"query": "plain"}])
def test_a_search_passes_bytes_over(store: CoherentStore, options: dict[str, Any]) -> None:
    fill(store)
    assert [item.key for item in store.search(NS, **options)] == ["plain"]
    assert [item.key for item in store.batch([SearchOp(NS)])[0]] == ["plain"]  # type: ignore[union-attr]
