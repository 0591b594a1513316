"""The adapter port is enough for another framework: a namespace, an identity and items, and nothing else.

`Notebook` is an adapter in forty lines. It has hits, guarded writes, searches, metrics, deliveries and degraded mode,
because all of that is behind the port.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import pytest

import ccs_stream
from ccs_stream import VersionConflict
from ccs_stream.client.adapter_port import Condition, ReadCall, Steps
from ccs_stream.client.degraded.mode import CoherenceDegradedWarning
from ccs_stream.client.options import ClientOptions
from ccs_stream.client.values import JSON, decode, encode_json
from ccs_stream.projections.metric_events import StoreMetricEvent
from ccs_stream.protocol.deliveries import DeliverySource
from tests.waiting import until


class Notebook:
    """Pages that authors share: `author` is the agent, the book's name the scope, the title the key."""

    def __init__(self, book: str, url: str | None = None, **options: Unpack[ClientOptions]) -> None:
        self.workspace = ccs_stream.connect(url, **options)
        self._port = self.workspace.adapter_port
        self._scope = (book,)

    def page(self, author: str, title: str) -> Any:
        read_set = self._port.read_sets.current(author)
        found = self._port.read(author, self._port.address(self._scope, title), read_set, namespace=("pages",))
        return None if found is None else decode(JSON, found.body)

    async def page_async(self, author: str, title: str) -> Any:
        read_set = self._port.read_sets.current(author)
        found = await self._port.read_async(author, self._port.address(self._scope, title), read_set)
        return None if found is None else decode(JSON, found.body)

    def write(self, author: str, title: str, text: str) -> int | None:
        batch = self._port.batch(author, self._port.read_sets.current(author))
        batch.write(self._scope, title, JSON, encode_json(text), expected=Condition.LAST_READ, namespace=("pages",))
        return self._port.commit(batch, f"page {title!r}", self._port.begin_call())[0].version

    def find(self, author: str, word: str) -> list[str]:
        return self._port.run(self._find(author, word))

    def _find(self, author: str, word: str) -> Steps[list[str]]:
        yield from self._port.catch_up_steps()
        tick, finder = self._port.begin_call(), self._port.finder
        pages = finder.find(self._scope)
        titles: list[str] = []
        for state in pages.states:
            content = finder.content(state)
            if word in decode(state.content_type, content.body):
                call = ReadCall(author, self._port.read_sets.current(author), ("pages",), tick=tick)
                finder.finish(call, state, content, pages.sequence)
                titles.append(state.key)
        return titles


@pytest.fixture
def events() -> list[StoreMetricEvent]:
    return []


@pytest.fixture
def book(events: list[StoreMetricEvent]) -> Iterator[Notebook]:
    book = Notebook("diary", on_metric=events.append, deliveries=True)
    yield book
    book.workspace.close()


def test_what_is_written_is_read(book: Notebook) -> None:
    assert book.write("ann", "monday", "it rained") == 1
    assert book.page("bob", "monday") == "it rained"
    assert book.page("bob", "tuesday") is None


async def test_it_is_read_in_an_event_loop(book: Notebook) -> None:
    book.write("ann", "monday", "it rained")
    assert await book.page_async("bob", "monday") == "it rained"
    assert await book.page_async("bob", "monday") == "it rained"  # the copy


def test_a_page_that_was_not_read_is_not_overwritten(book: Notebook) -> None:
    book.write("ann", "monday", "it rained")
    with pytest.raises(VersionConflict) as conflict:
        book.write("bob", "monday", "it snowed")
    assert conflict.value.current_value == "it rained"
    book.page("bob", "monday")
    assert book.write("bob", "monday", "it snowed") == 2


def test_metrics_and_deliveries_come_by_themselves(book: Notebook, events: list[StoreMetricEvent]) -> None:
    book.write("ann", "monday", "it rained")
    book.page("bob", "monday")
    book.page("bob", "monday")
    assert book.find("bob", "rain") == ["monday"]
    assert book.workspace.flush(10)
    assert [(each.operation, each.namespace, each.cache_hit) for each in events] == [
        ("put", ("pages",), False),
        ("get", ("pages",), False),
        ("get", ("pages",), True),
        ("search.hit", ("pages",), False),
    ]
    assert [each.source for each in book.workspace.deliveries()] == [
        DeliverySource.WRITE,
        DeliverySource.FETCH,
        DeliverySource.CACHE_HIT,
        DeliverySource.SEARCH,
    ]


def test_degraded_mode_comes_by_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db?busy_timeout_s=0.05"
    book = Notebook("diary", url, on_error="degrade", outbox=tmp_path / "outbox.db")
    book.write("ann", "monday", "it rained")
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.warns(CoherenceDegradedWarning):
        assert book.write("ann", "monday", "it poured") is None  # it waits in the outbox
    assert book.page("ann", "monday") == "it poured"
    holder.close()
    until("the outbox is empty", lambda: not book.workspace.is_degraded)
    assert book.write("ann", "monday", "it cleared up") == 3
    book.workspace.close()
