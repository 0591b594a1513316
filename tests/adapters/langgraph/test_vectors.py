"""Semantic search keeps vectors of what exists, and of nothing else."""

import gc
import threading
from typing import Any

import pytest

from ccs_stream.adapters.langgraph import CoherentStore

DOCS = ("docs",)
KEEP = "this one stays as it is"


class Vector(list[float]):
    """A vector whose life can be followed."""

    alive = 0

    def __init__(self, text: str) -> None:
        super().__init__([float(len(text)), float(text.count("e")), 1.0])
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


@pytest.fixture
def embedded() -> list[str]:
    return []


@pytest.fixture
def store(embedded: list[str]) -> Any:
    Vector.alive = 0

    def embed(texts: list[str]) -> list[Vector]:
        embedded.extend(texts)
        return [Vector(text) for text in texts]

    index: Any = {"dims": 3, "embed": embed, "fields": ["text"]}
    with CoherentStore(index=index) as store:
        yield store


def search(store: CoherentStore) -> set[str]:
    return {item.key for item in store.search(DOCS, query="text", limit=100)}


def test_replaced_texts_are_forgotten(store: CoherentStore, embedded: list[str]) -> None:
    store.put(DOCS, "keep", {"text": KEEP})
    for number in range(50):
        store.get(DOCS, "status")
        store.put(DOCS, "status", {"text": f"report {number}"})
        assert search(store) == {"keep", "status"}
        gc.collect()
        assert Vector.alive <= 3  # of the two items, and of the query until it is collected
    assert embedded.count(KEEP) == 1


@pytest.mark.parametrize("ttl", [False, True])
def test_texts_of_deleted_and_expired_items_are_forgotten(store: CoherentStore, ttl: bool) -> None:
    for number in range(40):
        store.put(DOCS, f"k{number}", {"text": f"report {number}"}, ttl=0.3 / 60 if ttl else None)
    store.put(DOCS, "keep", {"text": KEEP})
    assert len(search(store)) == 41
    if ttl:
        threading.Event().wait(0.4)
    else:
        for number in range(40):
            store.delete(DOCS, f"k{number}")
    assert search(store) == {"keep"}
    gc.collect()
    assert Vector.alive <= 2


def test_a_text_of_two_items_stays_with_the_second(store: CoherentStore, embedded: list[str]) -> None:
    for key in ("a", "b"):
        store.put(DOCS, key, {"text": KEEP})
    search(store)
    store.delete(DOCS, "a")
    assert search(store) == {"b"}
    assert search(store) == {"b"}
    assert embedded.count(KEEP) == 1


def test_searches_beside_each_other_keep_what_they_need(store: CoherentStore) -> None:
    errors: list[BaseException] = []
    end = threading.Event()

    def look() -> None:
        try:
            while not end.is_set():
                search(store)
        except BaseException as error:  # noqa: BLE001  # shown below
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        for key in ("a", "b", "c"):
            store.get(DOCS, key)
            store.put(DOCS, key, {"text": f"{key} {number // 2}"})
    end.set()
    for thread in threads:
        thread.join(10)
    assert errors == []
