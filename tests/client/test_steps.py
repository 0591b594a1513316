"""How long an operation waits, taken as its steps are: a slow catch-up leaves less for the decision after it."""

import pytest

from ccs_stream.client.operations.steps import TimeBudget
from ccs_stream.coordinator.port import LEAST_SHARE_OF_TIMEOUT


def test_a_slow_catch_up_leaves_less_for_the_decision_after_it() -> None:
    patience = TimeBudget(10.0)
    assert patience.left_s() == 10.0
    patience.caught_up(4.0)
    assert patience.left_s() == 6.0
    assert patience.left_s() == 10.0  # the log has answered since


def test_a_decision_has_some_time_however_slow_the_catch_up_was() -> None:
    patience = TimeBudget(10.0)
    patience.caught_up(9.9)
    assert patience.left_s() == pytest.approx(10.0 * LEAST_SHARE_OF_TIMEOUT)


def test_a_catch_up_that_had_much_to_fold_takes_nothing_from_the_decision() -> None:
    patience = TimeBudget(10.0)
    patience.caught_up(45.0)
    assert patience.left_s() == 10.0
