"""Stores on every log: every test of the store runs on each."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.adapters.langgraph import CCSStore, CoherentStore

OpenStore = Callable[..., CoherentStore]


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("kafka", marks=pytest.mark.kafka),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens stores that are closed at the end; all of one test on one log, except in memory."""
    opened: list[CoherentStore] = []
    workspace = uuid.uuid4().hex

    def open_one(cls: type[CoherentStore] = CoherentStore, **options: Any) -> CoherentStore:
        match request.param:
            case "memory":
                url = None
            case "sqlite":
                url = f"sqlite:///{tmp_path}/log.db"
            case _:
                url = request.getfixturevalue("kafka_log")
                options.setdefault("workspace", workspace)
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
