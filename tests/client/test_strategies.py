"""Strategies at work: when a copy is served and when it is fetched, and that the directory never depends on it."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import UsageError, Workspace
from ccs_stream.adapters.langgraph import CCSStore
from ccs_stream.client.cache.copy_tracker import parse_rules
from ccs_stream.client.options import parse_options
from ccs_stream.log.memory import MemoryLog
from ccs_stream.protocol.strategies import EAGER, lease
from ccs_stream.testing.clock import ManualClock

Connect = Callable[..., Workspace]
Log = Callable[[], dict[str, Any]]
PLANNER, REVIEWER = ("planner", "shared"), ("reviewer", "shared")


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Opens workspaces that record deliveries."""
    opened: list[Workspace] = []

    def open_one(**options: Any) -> Workspace:
        url: str | None = None
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/log.db"
        elif request.param == "kafka":
            url = request.getfixturevalue("kafka_log")
            options = {"workspace": uuid.uuid4().hex, "freshness": "latest", **options}
        opened.append(ccs_stream.connect(url, **{"deliveries": True, **options}))
        return opened[-1]

    yield open_one
    for workspace in opened:
        workspace.close()


def sources(workspace: Workspace, agent: str) -> list[str]:
    """Where each of an agent's deliveries came from."""
    return [each.source.value for each in workspace.deliveries() if each.agent == agent]


def test_a_lease_of_calls_ends_with_a_fetch(connect: Connect) -> None:
    workspace = connect(strategy="lease", lease_ttl_ticks=3)
    workspace.agent("a").write("k", 1)  # call 1
    for _ in range(7):  # calls 2 to 8: fetched at 2, valid before 5; fetched at 5, valid before 8; fetched at 8
        workspace.agent("b").read("k")
    hit, fetch = "cache_hit", "fetch"
    assert sources(workspace, "b") == [fetch, hit, hit, fetch, hit, hit, fetch]


def test_a_lease_of_time_ends_with_a_fetch() -> None:
    clock = ManualClock()
    options = {"strategy": "lease", "lease_ttl": dt.timedelta(hours=1), "deliveries": True}
    workspace = Workspace(MemoryLog(), "w", config=parse_options(options, of="connect"), clock=clock)
    workspace.agent("a").write("k", 1)
    b = workspace.agent("b")
    b.read("k")
    clock.advance(3_599)
    b.read("k")
    clock.advance(1)
    b.read("k")
    assert sources(workspace, "b") == ["fetch", "cache_hit", "fetch"]


def test_access_count_is_how_often_a_copy_is_served(connect: Connect) -> None:
    workspace = connect(strategy="access_count", access_count_max_accesses=2)
    workspace.agent("a").write("k", 1)
    for _ in range(7):
        workspace.agent("b").read("k")
    hit, fetch = "cache_hit", "fetch"
    assert sources(workspace, "b") == [fetch, hit, hit, fetch, hit, hit, fetch]


@pytest.mark.parametrize("strategy", ["lazy", "lease", "access_count", "eager", "broadcast"])
def test_no_strategy_serves_a_copy_that_was_invalidated(connect: Connect, strategy: str) -> None:
    workspace = connect(strategy=strategy)
    a, b = workspace.agent("a"), workspace.agent("b")
    for number in range(20):
        a.write("k", number)
        reading = b.read("k")
        assert reading is not None
        assert reading.value == number


def test_eager_gives_holders_the_new_version(connect: Connect) -> None:
    workspace = connect(strategy="eager")
    a, b, never = workspace.agent("a"), workspace.agent("b"), workspace.agent("never read it")
    a.write("k", 1)
    b.read("k")
    never.read("other")
    a.write("k", 2)
    assert workspace.settle(30)
    reading = b.read("k")
    assert reading is not None
    assert reading.value == 2
    assert sources(workspace, "b") == ["fetch", "broadcast", "cache_hit"]
    assert sources(workspace, "never read it") == ["fetch"]


def test_broadcast_gives_it_to_everybody_who_joined(connect: Connect) -> None:
    workspace = connect(strategy="broadcast")
    a, other = workspace.agent("a"), workspace.agent("other")
    other.write("another", 0)
    a.write("k", 1)
    assert workspace.settle(30)
    reading = other.read("k")
    assert reading is not None
    assert reading.value == 1
    assert sources(workspace, "other") == ["write", "broadcast", "cache_hit"]


def test_a_push_is_not_a_reading_as_far_as_guarded_writes_go() -> None:
    with ccs_stream.connect(strategy="eager") as workspace:
        a, b = workspace.agent("a"), workspace.agent("b")
        a.write("k", 1)
        b.read("k")
        a.write("k", 2)
        assert workspace.settle(30)
        assert b.write("k", 3).overwrote_unseen, "version 2 was pushed to b's process, and b never saw it"


def test_the_directory_is_the_same_under_every_strategy_but_those_that_push() -> None:
    hashes = set()
    for strategy in ("lazy", "lease", "access_count"):
        with ccs_stream.connect(strategy=strategy) as workspace:
            for number in range(10):
                workspace.agent("a").write("k", number)
                workspace.agent("b").read("k")
                workspace.agent("b").read("k")
            state = workspace.engine.state
            hashes.add((state.sequence, tuple(sorted(state.existing)), state.participants_ever))
    assert len(hashes) == 1


def test_each_artifact_may_have_a_strategy_of_its_own(connect: Connect) -> None:
    workspace = connect(strategy={"plan": "access_count", "docs/*": EAGER, "*": "lazy"}, access_count_max_accesses=1)
    a, b = workspace.agent("a"), workspace.agent("b")
    for key, scope in (("plan", ("x",)), ("notes", ()), ("page", ("docs",))):
        a.write(key, 1, scope=scope)
        for _ in range(3):
            b.read(key, scope=scope)
    assert sources(workspace, "b") == [
        *("fetch", "cache_hit", "fetch"),
        *("fetch", "cache_hit", "cache_hit"),
        *("fetch", "cache_hit", "cache_hit"),
    ]
    a.write("page", 2, scope=("docs",))
    assert workspace.settle(30)
    assert sources(workspace, "b")[-1] == "broadcast"


def test_recovering_has_every_copy_fetched_again(connect: Connect) -> None:
    workspace = connect()
    workspace.agent("a").write("k", 1)
    b = workspace.agent("b")
    b.read("k")
    workspace.engine.reader.forget_copies("b")
    b.read("k")
    b.read("k")
    workspace.agent("a").read("k")
    assert sources(workspace, "b") == ["fetch", "fetch", "cache_hit"]
    assert sources(workspace, "a") == ["write", "cache_hit"]
    assert not workspace.engine.copies.active, "nothing is left to ask about"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "lasy"}, "did you mean 'lazy'"),
        ({"strategy": {}}, "names none"),
        ({"strategy": {"plan": 7}}, "names or Strategy objects"),
        ({"strategy": {"": "lazy"}}, "pattern"),
        ({"strategy": {"plan": "lasy"}}, "did you mean 'lazy'"),
        ({"lease_ttl_ticks": 3}, "of strategy='lease'"),
        ({"strategy": {"plan": "lease"}, "access_count_max_accesses": 3}, "of strategy='access_count'"),
        ({"strategy": lease(ttl_ticks=3), "lease_ttl_ticks": 3}, "not used here"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ccs_stream.connect(**options)
    with pytest.raises(UsageError, match=said):
        CCSStore(**options)


# Named after the failures of those who came before.


def test_c12_a_lease_bounds_what_a_reader_of_what_is_folded_misses(tmp_path: Path) -> None:
    """A reader that asks nobody (`local`) is behind for at most its lease: then its copy is compared with the log."""
    url = f"sqlite:///{tmp_path}/log.db"
    options: dict[str, Any] = {"strategy": "lease", "lease_ttl_ticks": 4}
    with ccs_stream.connect(url) as writer, ccs_stream.connect(url, freshness="local", **options) as reader:
        writer.agent("a").write("k", "old")
        reader.coordinator.catch_up()
        b = reader.agent("b")
        assert b.read("k").value == "old"  # type: ignore[union-attr]  # call 1
        writer.agent("a").write("k", "new")
        assert [b.read("k").value for _ in range(4)] == ["old", "old", "old", "new"]  # type: ignore[union-attr]


def test_c13_a_refetch_after_expiry_is_a_miss_and_pushes_and_signals_are_billed() -> None:
    with CCSStore(benchmark=True, strategy="access_count", access_count_max_accesses=1) as store:
        store.put(PLANNER, "plan", {"step": 1})
        for _ in range(4):
            store.get(REVIEWER, "plan")
        assert store.benchmark_summary()["cache_hit_rate"] == 0.5
        assert store.savings().by_cause == {"hit": 2, "miss": 4, "write": 2}
    with CCSStore(benchmark=True, strategy="eager") as store:
        store.put(PLANNER, "plan", {"step": 1})
        store.get(REVIEWER, "plan")
        store.put(PLANNER, "plan", {"step": 2})
        assert store.workspace.settle(30)
        store.get(REVIEWER, "plan")
        assert store.savings().by_cause == {"hit": 1, "miss": 2, "push": 2, "signal": 12, "write": 4}


def test_c14_no_option_of_a_strategy_is_ignored() -> None:
    for option in ("lease_ticks", "threshold", "event_bus"):
        with pytest.raises(UsageError, match=option):
            CCSStore(strategy="lease", **{option: 1})  # type: ignore[arg-type]


def test_rules_take_the_first_pattern_that_matches() -> None:
    rules = parse_rules({"a*": "eager", "*": "access_count"})
    assert rules.of((), "abc").name == "eager"
    assert rules.of(("a",), "b").name == "access_count"
    assert parse_rules({"x/*": "eager"}).of(("y",), "k").name == "lazy"
