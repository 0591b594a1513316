"""Stores on both embedded logs: every test of the store runs on each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.adapters.langgraph import CCSStore, CoherentStore

OpenStore = Callable[..., CoherentStore]


@pytest.fixture(params=["memory", "sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores that are closed at the end; on SQLite, all on one file."""
    opened: list[CoherentStore] = []

    def open_one(cls: type[CoherentStore] = CoherentStore, **options: Any) -> CoherentStore:
        url = None if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"
        store = cls(url, **options)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> CoherentStore:
    """A store with the defaults."""
    return open_store()


@pytest.fixture
def ccs_store(open_store: OpenStore) -> CoherentStore:
    """A store under the predecessor's convention."""
    return open_store(CCSStore)
