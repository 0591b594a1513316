"""One test for each fault, small; `CCS_FAULTS=full` runs the full sizes, `python -m tests.faults` prints the table.

Given a log on a real broker with coordinators and clients in processes of their own, when the fault happens, then
nothing acknowledged is lost or applied twice, and all that `checker` knows of holds.
"""

import pytest

from tests.faults import brokers, clients, leaders, records, topics
from tests.faults.environment import Environment, is_full
from tests.faults.table import Row, table

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(3_600 if is_full() else 240)]
first = pytest.mark.xdist_group("faults-1")
second = pytest.mark.xdist_group("faults-2")


def holds(row: Row) -> None:
    print(table([row]))  # noqa: T201  # pytest shows it when the test fails
    assert not row.findings, "\n".join(row.findings)


@first
def test_a_killed_leader(env: Environment) -> None:
    holds(leaders.killed(env))


@second
def test_a_killed_client_that_leads(env: Environment) -> None:
    holds(leaders.embedded_killed(env))


@first
def test_a_stopped_leader(env: Environment) -> None:
    holds(leaders.stopped(env))


@first
def test_a_frozen_leader_that_goes_on_beside_the_next_one(env: Environment) -> None:
    holds(leaders.frozen(env))


@second
def test_a_record_of_a_batch_that_is_lost(env: Environment) -> None:
    holds(records.lost(env))


@second
def test_a_decision_that_is_too_large_and_one_that_raises(env: Environment) -> None:
    holds(records.refused(env))


@second
def test_topics_that_are_made_anew_or_cut_or_enlarged(env: Environment) -> None:
    holds(topics.changed(env))


@first
def test_coordinators_that_race_and_come_and_go(env: Environment) -> None:
    holds(leaders.racing(env))


@second
def test_a_killed_client_whose_session_is_retried(env: Environment) -> None:
    holds(clients.killed(env))


@second
def test_a_killed_broker_of_three(env: Environment) -> None:
    holds(brokers.killed(env))


@first
def test_the_only_broker_away(env: Environment) -> None:
    holds(brokers.away(env))


@second
def test_commands_repeated_and_reordered_and_garbage_in_all_topics(env: Environment) -> None:
    holds(records.garbled(env))


@second
def test_snapshots_that_cannot_be_trusted(env: Environment) -> None:
    holds(records.snapshots(env))


@first
def test_a_broker_silent_beyond_the_delivery_time_out(env: Environment) -> None:
    holds(brokers.silent(env))
