"""Faults of brokers and topics, one test each. `CCS_FAULTS=full` runs full sizes, `python -m tests.faults` the table.

Given a log on a real broker with coordinators and clients in processes of their own, when the fault happens, then
nothing acknowledged is lost or applied twice, and all that `checker` knows of holds.
"""

import pytest

from tests.faults import brokers, topics
from tests.faults.environment import Environment, is_full
from tests.faults.table import holds

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(3_600 if is_full() else 240)]


def test_topics_that_are_made_anew_or_cut_or_enlarged(env: Environment) -> None:
    holds(topics.changed(env))


def test_a_killed_broker_of_three(env: Environment) -> None:
    holds(brokers.killed(env))


def test_the_only_broker_away(env: Environment) -> None:
    holds(brokers.away(env))


def test_a_broker_silent_beyond_the_delivery_time_out(env: Environment) -> None:
    holds(brokers.silent(env))
