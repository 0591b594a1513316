"""Tokens and the two accounts of what moved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.projections.savings import MovementCause, Savings, TokenMovement, signals
from ccs_stream.projections.tokens import SIZE_KEY, estimate_tokens


def moved(cause: MovementCause, full: int, *, agent: str = "a", key: str = "k") -> TokenMovement:
    return TokenMovement(cause=cause, agent=agent, scope=("s",), key=key, full=full)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ({"step": 1}, 2),
        ({}, 1),
        ("", 1),
        ({"b": 1, "a": [1, 2]}, 4),
        ({"text": "\u00e9" * 100}, 152),  # escaped: six characters each
        ({SIZE_KEY: 500, "text": "x"}, 500),
        ({SIZE_KEY: "7"}, 7),
        ({SIZE_KEY: -3}, -3),
    ],
)
def test_the_estimate_is_a_quarter_of_the_json_unless_the_value_says_its_size(value: object, tokens: int) -> None:
    assert estimate_tokens(value) == tokens


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=SIZE_KEY):
        estimate_tokens({SIZE_KEY: "many"})


def test_nothing_moved_is_nothing_saved() -> None:
    savings = Savings()
    assert savings.benchmark() == {
        "baseline_tokens": 0,
        "ccs_tokens": 0,
        "tokens_saved": 0,
        "token_reduction_pct": 0.0,
        "cache_hit_rate": 0.0,
        "n_operations": 0,
    }
    account = savings.account()
    assert (account.baseline, account.moved, account.saved_pct) == (0, 0, 0.0)


def test_the_published_account_counts_reads_alone_and_the_other_one_all_that_moved() -> None:
    savings = Savings()
    for each in (
        moved(MovementCause.WRITE, 100, agent="planner"),
        moved(MovementCause.MISS, 100, agent="reviewer"),
        moved(MovementCause.HIT, 100, agent="reviewer"),
        moved(MovementCause.HIT, 100, agent="reviewer", key="other"),
        moved(MovementCause.SEARCH, 50, agent="reviewer"),
        signals("planner", ("s",), "k", 2),
    ):
        savings.add(each)
    assert savings.benchmark() == {
        "baseline_tokens": 300,
        "ccs_tokens": 102,
        "tokens_saved": 198,
        "token_reduction_pct": 66.0,
        "cache_hit_rate": 0.667,
        "n_operations": 3,
    }
    account = savings.account()
    assert account.baseline == 450
    assert account.moved == 100 + 100 + 1 + 1 + 50 + 24
    assert account.by_cause == {"hit": 2, "miss": 100, "search": 50, "signal": 24, "write": 100}
    assert account.by_agent == {"planner": 124, "reviewer": 152}
    assert account.by_artifact == {"('s',) / k": 275, "('s',) / other": 1}
    assert account.saved_pct == pytest.approx(100 * (1 - 276 / 450), abs=0.01)


def test_telling_many_of_small_values_costs_more_than_it_saves() -> None:
    savings = Savings()
    savings.add(moved(MovementCause.WRITE, 1))
    savings.add(signals("a", (), "k", 10))
    assert savings.account().saved_pct < 0


@given(st.lists(st.builds(moved, st.sampled_from(MovementCause), st.integers(0, 1_000)), max_size=30), st.randoms())
def test_the_order_does_not_matter_and_the_causes_add_up(all_moved: list[TokenMovement], random: object) -> None:
    one, other = Savings(), Savings()
    for each in all_moved:
        one.add(each)
    shuffled = list(all_moved)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for each in shuffled:
        other.add(each)
    assert (one.benchmark(), one.account()) == (other.benchmark(), other.account())
    account = one.account()
    assert account.moved == sum(account.by_cause.values()) == sum(account.by_agent.values())
    assert account.moved == sum(account.by_artifact.values())
