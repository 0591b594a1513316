"""The table of limits: its checks, and its page."""

import math
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.protocol import limits
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import (
    DURATION_US_MAX,
    INT64_MAX,
    LIMITS,
    NAME_BYTES_MAX,
    SCOPE_PARTS_MAX,
    check_duration_us,
    check_index_paths,
    check_scope,
    check_text,
    check_wait_s,
    check_whole_number,
    seconds_to_us,
)
from tests.protocol.limits_page import PAGE, constants, page

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs"])),
    st.binary(),
    st.timedeltas(),
    st.datetimes(),
    st.lists(st.text()),
    st.tuples(st.integers()),
    st.tuples(st.text(st.characters())),
    st.dictionaries(st.text(), st.integers()),
    st.sampled_from([object(), int, 10**5_000, -(10**400), float("inf"), float("nan"), sys.maxsize, 2**63, {1, 2}]),
)


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


CHECKS: list[Callable[[Any], object]] = [
    lambda value: check_text(value, "it"),
    limits.check_reason,
    lambda value: check_whole_number(value, "it"),
    lambda value: limits.check_flag(value, "it"),
    lambda value: check_duration_us(value, "it"),
    lambda value: seconds_to_us(value, "it"),
    lambda value: check_wait_s(value, "it"),
    check_scope,
    check_index_paths,
    limits.check_labels,
]


@pytest.mark.parametrize("check", CHECKS)
@given(value=ANYTHING | st.builds(_Unprintable))
def test_a_check_takes_a_value_or_raises_a_usage_error(check: Callable[[Any], object], value: Any) -> None:
    message = "taken"
    try:
        check(value)
    except UsageError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 400


@given(ANYTHING)
def test_a_duration_that_is_taken_is_a_whole_number_of_microseconds_in_range(value: Any) -> None:
    try:
        micros = seconds_to_us(value, "ttl_s")
    except UsageError:
        return
    assert type(micros) is int
    assert 0 < micros <= DURATION_US_MAX
    assert math.isclose(micros, float(value) * 1_000_000, abs_tol=1)


@pytest.mark.parametrize("seconds", [1, 0.5, Decimal("1.5"), Fraction(3, 2), 10**9])
def test_seconds_of_any_kind_of_number_are_taken(seconds: Any) -> None:
    assert seconds_to_us(seconds, "ttl_s") == round(seconds * 1_000_000)


@pytest.mark.parametrize(
    "text", ["\ud83d", "a\udfff", "x" * (NAME_BYTES_MAX + 1), "ä" * (NAME_BYTES_MAX // 2 + 1), b"k", 1]
)
def test_an_error_of_text_names_the_argument(text: Any) -> None:
    with pytest.raises(UsageError, match="a key"):
        check_text(text, "a key")


@pytest.mark.parametrize("scope", ["shared", ["a"], None, (1,), ("a",) * (SCOPE_PARTS_MAX + 1), ("\ud800",)])
def test_a_scope_is_a_tuple_of_texts(scope: Any) -> None:
    with pytest.raises(UsageError, match="scope"):
        check_scope(scope)


@pytest.mark.parametrize("number", [True, 1.0, "1", -1, INT64_MAX + 1, None])
def test_a_whole_number_is_an_int_of_the_format(number: Any) -> None:
    with pytest.raises(UsageError, match=r"expected is a whole number from 0 to 9223372036854775807"):
        check_whole_number(number, "expected")


def test_every_limit_is_in_the_table_with_its_value() -> None:
    listed = {limit.constant: limit.most for limit in LIMITS}
    assert {name: value for name, value in constants().items() if name in listed} == listed
    assert set(constants()) - set(listed) <= {"LOCATOR_BYTES_MAX"}


def test_the_page_is_that_of_the_constants() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.protocol.limits_page"


@pytest.mark.parametrize("micros", [0, -1, limits.TIME_US_MAX, INT64_MAX, -INT64_MAX, 10**30])
def test_a_time_of_an_earlier_release_beyond_the_calendar_is_shown_as_the_nearest(micros: int) -> None:
    shown = limits.instant_of(micros)
    assert shown.tzinfo is not None
    assert shown.isoformat()
    assert (shown.year == 9999) == (micros > limits.TIME_US_MAX)
