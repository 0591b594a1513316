"""A store on Kafka whose only broker is stopped in the middle of a run, and started again."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.adapters.langgraph import CCSStore, CoherentStore
from ccs_stream.protocol.errors import LogUnavailable, OutcomeUnknown
from ccs_stream.testing.broker import Broker
from tests.faults.environment import own_broker
from tests.kafka import make_topics
from tests.waiting import until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning"),
]
PLANNER, REVIEWER = ("planner", "shared"), ("reviewer", "shared")


@pytest.fixture(scope="module")
def own() -> Iterator[Broker]:
    """A broker that may be hurt."""
    with own_broker() as broker:
        yield broker


def store_on(broker: Broker, **options: Any) -> CoherentStore:
    """A store on a log of its own."""
    prefix = f"degraded-{uuid.uuid4().hex[:8]}"
    url = f"kafka://{broker.bootstrap_servers}?prefix={prefix}&timeout_s=5&session_timeout_s=2"
    make_topics(url, 1)
    return (
        CoherentStore(url, **options) if options.pop("strict", False) else CCSStore(url, on_error="degrade", **options)
    )


def test_reads_go_on_and_writes_wait_until_the_broker_is_back(own: Broker, tmp_path: Path) -> None:
    with store_on(own, outbox=tmp_path / "outbox.db") as store:
        store.put(PLANNER, "plan", {"step": 1})
        store.get(REVIEWER, "plan")
        own.kill(1)
        first: Exception | None = None
        try:
            store.put(PLANNER, "other", {"n": 0})
        except OutcomeUnknown as error:  # on its way when the broker went: it may be in the log, so it is not kept, too
            first = error
        assert store.is_degraded
        for step in (2, 3):
            store.put(PLANNER, "plan", {"step": step})
        item = store.get(REVIEWER, "plan")
        assert item is not None
        assert (item.value, item.stale, item.version) == ({"step": 3}, True, 1)
        own.restart(1)
        until("the outbox is empty", lambda: not store.is_degraded, 120)
        until("no client misses the broker", lambda: not getattr(store.get(REVIEWER, "plan"), "stale", True))
        item = store.get(REVIEWER, "plan")
        assert item is not None
        assert (item.value, item.version) == ({"step": 3}, 3)
        assert store.outbox is not None
        assert store.outbox.conflicts() == []
        assert store.outbox.counts.done == 2 + (first is None)
        assert len(store.history(PLANNER, "plan")) == 3


@pytest.mark.filterwarnings("ignore::ccs_stream.adapters.langgraph.LostUpdateWarning")  # the first may have arrived
def test_without_an_outbox_writes_are_refused_and_work_again_by_themselves(own: Broker) -> None:
    with store_on(own) as store:
        store.put(PLANNER, "plan", {"step": 1})
        own.kill(1)
        with pytest.raises((OutcomeUnknown, LogUnavailable)):
            store.put(PLANNER, "plan", {"step": 2})
        with pytest.raises(LogUnavailable, match="outbox=PATH"):
            store.put(PLANNER, "plan", {"step": 3})
        item = store.get(PLANNER, "plan")
        assert item is not None
        assert item.stale
        own.restart(1)
        until("the mode is normal", lambda: not store.is_degraded, 120)
        store.put(PLANNER, "plan", {"step": 4})
        until("no client misses the broker", lambda: not getattr(store.get(REVIEWER, "plan"), "stale", True))
        item = store.get(REVIEWER, "plan")
        assert item is not None
        assert item.value == {"step": 4}


def test_a_strict_store_marks_what_it_serves_while_nobody_answers(own: Broker) -> None:
    with store_on(own, strict=True) as store:
        store.put(("docs",), "k", {"n": 1})
        item = store.get(("docs",), "k")
        assert item is not None
        assert not item.stale
        own.kill(1)
        until("the broker is missed", lambda: store.workspace.stale)
        item = store.get(("docs",), "k")
        assert item is not None
        assert (item.value, item.stale) == ({"n": 1}, True)
        own.restart(1)
        until("the broker is back", lambda: not store.workspace.stale, 120)
