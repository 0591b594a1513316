"""The truth table of strategies, a test for each cell, and what is refused."""

import datetime as dt
from typing import Any

import pytest

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.strategies import (
    NAMES,
    Lease,
    Strategy,
    TimeUnit,
    TrackedCopy,
    access_count,
    build_strategy,
    lease,
)

TTL = 300
MAX = 100


def copy(**known: Any) -> TrackedCopy:
    return TrackedCopy(**{"acquired_at": 0, **known})


REQUIRES_REFRESH = [
    *((name, "used often, long ago", copy(access_count=10**6), 10**6, False) for name in ("lazy", "eager")),
    ("broadcast", "used often, long ago", copy(access_count=10**6), 10**6, False),
    ("lease", "before its end", copy(expires_at=TTL), TTL - 1, False),
    ("lease", "at its end", copy(expires_at=TTL), TTL, True),
    ("lease", "without an end", copy(), 0, True),
    ("access_count", "one left", copy(access_count=MAX - 1), 10**6, False),
    ("access_count", "none left", copy(access_count=MAX), 0, True),
]


@pytest.mark.parametrize(
    ("name", "entry", "now", "expected"),
    [
        pytest.param(name, entry, now, expected, id=f"{name}-{what}")
        for name, what, entry, now, expected in REQUIRES_REFRESH
    ],
)
def test_requires_refresh(name: str, entry: TrackedCopy, now: int, expected: bool) -> None:
    assert build_strategy(name).requires_refresh(entry, now) is expected


@pytest.mark.parametrize("name", NAMES)
def test_on_read_counts(name: str) -> None:
    strategy, entry = build_strategy(name), copy()
    strategy.on_read(entry, 7)
    assert entry.access_count == 1
    assert entry.expires_at == (7 + TTL if name == "lease" else None)


def test_on_read_does_not_renew_a_lease() -> None:
    entry = copy(expires_at=9)
    build_strategy("lease").on_read(entry, 8)
    assert entry.expires_at == 9


@pytest.mark.parametrize("name", NAMES)
def test_on_fetch_begins_anew(name: str) -> None:
    entry = build_strategy(name).on_fetch(7)
    assert (entry.acquired_at, entry.access_count) == (7, 0)
    assert entry.expires_at == (7 + TTL if name == "lease" else None)


BROADCASTS = {"lazy": False, "eager": True, "broadcast": True, "lease": False, "access_count": False}
TO_EVERYBODY = {"lazy": False, "eager": False, "broadcast": True, "lease": False, "access_count": False}


@pytest.mark.parametrize("name", NAMES)
def test_broadcasts_content_on_commit(name: str) -> None:
    assert build_strategy(name).broadcasts_content_on_commit is BROADCASTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_pushes_to_everybody(name: str) -> None:
    assert build_strategy(name).pushes_to_everybody is TO_EVERYBODY[name]


@pytest.mark.parametrize(
    ("alias", "name"),
    [(" Lazy ", "lazy"), ("EAGER", "eager"), ("access-count", "access_count"), ("AccessCount", "access_count")],
)
def test_aliases(alias: str, name: str) -> None:
    assert build_strategy(alias).name == name


def test_options_reach_their_strategy() -> None:
    by_calls = build_strategy("lease", lease_ttl_ticks=7)
    assert isinstance(by_calls, Lease)
    assert (by_calls.ttl, by_calls.unit) == (7, TimeUnit.TICKS)
    by_time = lease(dt.timedelta(seconds=2))
    assert (by_time.ttl_us, by_time.unit) == (2_000_000, TimeUnit.MICROSECONDS)
    assert by_calls.ttl_us is None
    assert access_count(3).max_accesses == 3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("lasy", {}, "did you mean 'lazy'"),
        ("nonsense", {}, "known: lazy, eager"),
        (7, {}, "named by one of"),
        ("lease", {"lease_ttl_ticks": 0}, "1 or more"),
        ("lease", {"lease_ttl_ticks": True}, "whole number"),
        ("lease", {"lease_ttl": dt.timedelta(0)}, "more than 0"),
        ("lease", {"lease_ttl": dt.timedelta(seconds=-1)}, "more than 0"),
        ("lease", {"lease_ttl": 30}, "timedelta"),
        ("lease", {"lease_ttl": dt.timedelta(1), "lease_ttl_ticks": 3}, "one of them"),
        ("access_count", {"access_count_max_accesses": -1}, "1 or more"),
        ("lazy", {"lease_ttl_ticks": 3}, "of strategy='lease'"),
        ("lease", {"access_count_max_accesses": 3}, "of strategy='access_count'"),
    ],
)
def test_a_wrong_option_says_what_to_type(name: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_strategy(name, **options)


def test_a_strategy_is_its_name_and_options() -> None:
    assert build_strategy("lazy") == Strategy()
    assert lease(ttl_ticks=3) == build_strategy("lease", lease_ttl_ticks=3) != lease(ttl_ticks=4)
