"""What a store tells of its reads and writes, and that nobody who listens can do it any harm."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ccs_stream import UsageError
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore, StoreMetricEvent
from tests.waiting import until

VALUE = {"step": 1}
PLANNER, REVIEWER = ("planner", "shared"), ("reviewer", "shared")


def told(store: CoherentStore, events: list[StoreMetricEvent]) -> list[tuple[str, str, int, bool, int]]:
    """Operation, agent, tokens, hit and saved tokens of each event, once all are told."""
    store.close()
    return [
        (each.operation, each.agent_name, each.tokens_consumed, each.cache_hit, each.tokens_saved_estimate)
        for each in events
    ]


def test_a_put_a_miss_and_two_hits() -> None:
    events: list[StoreMetricEvent] = []
    store = CCSStore(benchmark=True, on_metric=events.append)
    store.put(PLANNER, "plan", VALUE)
    for namespace in (REVIEWER, REVIEWER, PLANNER):
        store.get(namespace, "plan")
    assert store.benchmark_summary() == {
        "baseline_tokens": 6,
        "ccs_tokens": 4,
        "tokens_saved": 2,
        "token_reduction_pct": 33.3,
        "cache_hit_rate": 0.667,
        "n_operations": 3,
    }
    assert told(store, events) == [
        ("put", "planner", 2, False, 0),
        ("get", "reviewer", 2, False, 0),
        ("get", "reviewer", 1, True, 1),
        ("get", "planner", 1, True, 1),
    ]
    assert [each.sequence_number for each in events] == [1, 2, 3, 4]
    assert [each.tick for each in events] == [1, 2, 3, 4]
    assert {each.schema_version for each in events} == {"ccs.metric.v1"}
    assert len({each.instance_id for each in events}) == 1


def test_a_write_makes_the_next_read_of_everybody_else_a_miss_and_signals_each_holder() -> None:
    with CCSStore(benchmark=True) as store:
        store.put(PLANNER, "plan", VALUE)
        for agent in ("b", "c", "d"):
            store.get((agent, "shared"), "plan")
        store.put(PLANNER, "plan", {"step": 2})  # three are told
        for agent in ("b", "planner"):
            store.get((agent, "shared"), "plan")
        store.delete(PLANNER, "plan")  # and two more: b, and whoever deletes
        account = store.savings()
    assert account.by_cause["miss"] == 4 * 2
    assert account.by_cause["hit"] == 1
    assert account.by_cause["signal"] % 12 == 0
    assert account.by_cause["signal"] // 12 in (4, 5)
    assert account.by_agent["planner"] == 2 + 2 + 1 + account.by_cause["signal"]


@pytest.mark.parametrize("kind", [CoherentStore, CCSStore])
async def test_every_way_to_read_and_write_is_seen(kind: type[CoherentStore]) -> None:
    events: list[StoreMetricEvent] = []
    store = kind(on_metric=events.append)
    store.put(PLANNER, "a", VALUE)
    await store.aput(PLANNER, "b", VALUE)
    store.put_all([(PLANNER, "c", VALUE), (PLANNER, "d", VALUE)])
    store.compare_and_set(PLANNER, "e", VALUE, expected=None)
    store.get(PLANNER, "a")
    await store.aget(PLANNER, "a")
    store.get_all([(PLANNER, "b"), (PLANNER, "nothing")])
    store.search(PLANNER, limit=2)
    store.get(PLANNER, "nothing")
    store.delete(PLANNER, "a")
    store.close()
    assert [(each.operation, each.key) for each in events] == [
        ("put", "a"),
        ("put", "b"),
        ("put", "c"),
        ("put", "d"),
        ("put", "e"),
        ("get", "a"),
        ("get", "a"),
        ("get", "b"),
        ("search.hit", "a"),
        ("search.hit", "b"),
    ]
    assert [each.sequence_number for each in events] == list(range(1, 11))
    assert {each.namespace for each in events} == {PLANNER}
    # The two of one decision have one tick.
    assert [each.tick for each in events] == [1, 2, 3, 3, 4, 5, 6, 7, 8, 8]


def test_a_refused_write_is_no_event() -> None:
    events: list[StoreMetricEvent] = []
    store = CCSStore(on_metric=events.append)
    store.put(PLANNER, "plan", VALUE)
    with pytest.raises(UsageError):
        store.put(PLANNER, "plan", {"bad": object()})
    with pytest.raises(Exception, match="version"):
        store.compare_and_set(PLANNER, "plan", VALUE, expected=7)
    assert [each[0] for each in told(store, events)] == ["put"]


# An observer callback that breaks, blocks or deadlocks a write.


def test_an_observer_that_raises_breaks_no_write() -> None:
    def on_metric(event: StoreMetricEvent) -> None:
        raise ZeroDivisionError(event.operation)

    with CCSStore(on_metric=on_metric, benchmark=True) as store:
        store.put(PLANNER, "plan", VALUE)
        assert store.get(REVIEWER, "plan") is not None
        assert store.benchmark_summary()["n_operations"] == 1


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    go = threading.Event()
    yield go
    go.set()


def test_an_observer_that_hangs_blocks_no_write_and_no_account(hanging: threading.Event) -> None:
    store = CCSStore(on_metric=lambda _: hanging.wait(), benchmark=True)
    for number in range(100):
        store.put(PLANNER, "plan", {"step": number})
        store.get(PLANNER, "plan")
    assert store.benchmark_summary()["n_operations"] == 100
    hanging.set()
    store.close()


def test_an_observer_that_calls_the_store_back_deadlocks_nothing() -> None:
    seen: list[Any] = []

    def on_metric(event: StoreMetricEvent) -> None:
        if event.operation == "put":
            item = store.get(("watcher", "shared"), event.key)
            seen.append(None if item is None else item.value)
            seen.append(store.benchmark_summary()["n_operations"] > 0)

    store = CCSStore(on_metric=on_metric, benchmark=True)
    store.put(PLANNER, "plan", VALUE)
    until("the observer has called the store", lambda: len(seen) == 2)
    store.close()
    assert seen == [VALUE, True]


# Counting tokens.


def test_a_counter_of_ones_own() -> None:
    with CCSStore(benchmark=True, count_tokens=lambda value: 10 * len(value)) as store:
        store.put(PLANNER, "plan", {"a": 1, "b": 2})
        store.get(REVIEWER, "plan")
        assert store.savings().by_cause == {"miss": 20, "write": 20}


@pytest.mark.parametrize("bad", ["raises", "text", "negative"])
def test_a_counter_that_fails_later_is_replaced_by_the_estimate(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    def count_tokens(value: Any) -> Any:
        if "step" not in value:
            return 1
        if bad == "raises":
            raise ZeroDivisionError("planted")
        return "two" if bad == "text" else -1

    with CCSStore(benchmark=True, count_tokens=count_tokens) as store:
        store.put(PLANNER, "plan", VALUE)
        store.get(REVIEWER, "plan")
        assert store.savings().by_cause == {"miss": 2, "write": 2}
    assert sum("count_tokens" in record.message for record in caplog.records) == 1


def test_what_comes_faster_than_it_is_counted_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def count_tokens(value: Any) -> int:
        if "step" in value:
            go.wait()
        return 1

    monkeypatch.setattr("ccs_stream.client.observers.metrics.WAITING_MAX", 1)
    with CCSStore(benchmark=True, count_tokens=count_tokens) as store:
        for number in range(100):
            store.put(PLANNER, "plan", {"step": number})
        go.set()
        with pytest.warns(UserWarning, match="are missing"):
            assert 0 < store.savings().by_cause["write"] < 100


def test_a_size_that_is_no_number_is_counted_by_its_length() -> None:
    with CCSStore(benchmark=True) as store:
        store.put(PLANNER, "plan", {"__ccs_size_tokens__": "many"})
        assert store.savings().by_cause == {"write": 7}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"benchmark": 1}, "True or False"),
        ({"on_metric": "print"}, "takes a StoreMetricEvent"),
        ({"count_tokens": 4, "benchmark": True}, "function"),
        ({"count_tokens": lambda value: value.missing, "benchmark": True}, "raised AttributeError"),
        ({"count_tokens": lambda _: "two", "benchmark": True}, "returned 'two'"),
        ({"count_tokens": len}, "benchmark=True, on_metric"),
        ({"on_metrics": print}, "did you mean 'on_metric'"),
    ],
)
def test_what_cannot_work_is_refused_when_the_store_is_opened(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CCSStore(**options)


def test_a_summary_of_what_was_not_counted_says_what_to_type() -> None:
    with CoherentStore() as plain, CoherentStore(on_metric=print) as told_only:
        for store in (plain, told_only):
            for ask in (store.benchmark_summary, store.savings, store.print_benchmark_summary):
                with pytest.raises(UsageError, match="benchmark=True"):
                    ask()


def test_the_printed_summary_has_both_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    with CCSStore(benchmark=True) as store:
        store.put(PLANNER, "plan", VALUE)
        store.get(REVIEWER, "plan")
        store.get(REVIEWER, "plan")
        store.print_benchmark_summary()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[4].split(maxsplit=1) == ["saved", "1 (25.0 %)"]
    assert lines[6].split(maxsplit=2)[2] == "hit 1, miss 2, write 2"


def test_whoever_deletes_is_not_told_of_it() -> None:
    with CCSStore(benchmark=True) as store:
        store.put(PLANNER, "plan", VALUE)
        store.delete(PLANNER, "plan")
        assert "signal" not in store.savings().by_cause
        store.put(PLANNER, "plan", VALUE)
        store.get(REVIEWER, "plan")
        store.delete(PLANNER, "plan")
        assert store.savings().by_cause["signal"] == 12
