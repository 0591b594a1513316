"""Searches with a filter: the items that pass, in order, wherever their contents are, and none twice."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.client.values import JSON

NS = ("docs",)
ITEMS = 4_500
"""More than a search reads at once."""
FILTERS: list[dict[str, Any]] = [
    {"kind": 3},
    {"kind": {"$gte": 5}},
    {"serial": ITEMS - 1},
    {"kind": 3, "serial": {"$lt": 100}},
    {"kind": -1},
]


@pytest.fixture(scope="module", params=["all at hand", "few at hand", "none at hand"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoherentStore]:
    url = f"sqlite:///{tmp_path_factory.mktemp('search') / 'log.db'}"
    with CoherentStore(url) as filled:
        filled.put_all([])
        for start in range(0, ITEMS, 500):
            filled.put_all(
                [
                    ((*NS, f"n{each % 7}"), f"k{each}", {"kind": each % 10, "serial": each})
                    for each in range(start, start + 500)
                ]
            )
        if request.param == "all at hand":
            yield filled
            return
    options: dict[str, Any] = {"body_cache_bytes": 100_000} if request.param == "few at hand" else {}
    with CoherentStore(url, **options) as opened:
        yield opened


@pytest.mark.parametrize("condition", FILTERS, ids=str)
@pytest.mark.parametrize(("limit", "offset"), [(10, 0), (10, 5), (0, 0), (10_000, 0), (3, 400), (-1, 0), (10, -20)])
def test_a_page_is_a_part_of_everything_that_passes(
    store: CoherentStore, condition: dict[str, Any], limit: int, offset: int
) -> None:
    everything = store.search(NS, limit=ITEMS)
    assert len({each.key for each in everything}) == ITEMS

    def passes(value: dict[str, Any]) -> bool:
        kind, serial = condition.get("kind", value["kind"]), condition.get("serial", value["serial"])
        kinds = range(kind["$gte"], 10) if isinstance(kind, dict) else (kind,)
        serials = range(serial["$lt"]) if isinstance(serial, dict) else (serial,)
        return value["kind"] in kinds and value["serial"] in serials

    expected = [each.key for each in everything if passes(each.value)]
    found = store.search(NS, filter=condition, limit=limit, offset=offset)
    assert [each.key for each in found] == expected[offset : offset + limit]


def test_everybody_gets_values_of_their_own(store: CoherentStore) -> None:
    store.search(NS, filter={"serial": 7})[0].value["serial"] = "spoilt"
    assert store.search(NS, filter={"serial": 7})[0].value["serial"] == 7


@pytest.mark.filterwarnings("ignore::ccs_stream.adapters.langgraph.LostUpdateWarning")
def test_a_search_sees_one_moment_while_others_write() -> None:
    with CoherentStore() as store:
        for each in range(200):
            store.put(NS, f"k{each}", {"on": each == 0})

        def move() -> None:
            for step in range(500):
                off, on = f"k{step * 7 % 200}", f"k{(step + 1) * 7 % 200}"
                store.put_all([(NS, off, {"on": False}), (NS, on, {"on": True})])

        mover, counts, interval = threading.Thread(target=move), set(), sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            mover.start()
            while mover.is_alive():
                counts.add(len(store.search(NS, filter={"on": True})))
            mover.join()
        finally:
            sys.setswitchinterval(interval)
    assert counts == {1}


def test_a_state_that_moves_from_bytes_to_json_is_not_read_as_json() -> None:
    with CoherentStore() as store:
        store.workspace.agent("a").write("k", b"\x00", scope=NS)
        engine = store.workspace.engine
        engine.state.artifacts[engine.address(NS, "k")].content_type = JSON  # as in the middle of a fold

        found = engine.finder.find(NS, wanted=lambda content: bool(content.json_body))

        assert [each.key for each in found.states] == ["k"]
