"""Faults of processes and records, a test each; `CCS_FAULTS=full` runs full sizes, `python -m tests.faults` the table.

Given a log on a real broker with coordinators and clients in processes of their own, when the fault happens, then
nothing acknowledged is lost or applied twice, and all that `checker` knows of holds.
"""

import pytest

from tests.faults import clients, leaders, records
from tests.faults.environment import Environment, is_full
from tests.faults.table import holds

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(3_600 if is_full() else 240)]


def test_a_killed_leader(env: Environment) -> None:
    holds(leaders.killed(env))


def test_a_killed_client_that_leads(env: Environment) -> None:
    holds(leaders.embedded_killed(env))


def test_a_stopped_leader(env: Environment) -> None:
    holds(leaders.stopped(env))


def test_a_frozen_leader_that_goes_on_beside_the_next_one(env: Environment) -> None:
    holds(leaders.frozen(env))


def test_a_record_of_a_batch_that_is_lost(env: Environment) -> None:
    holds(records.lost(env))


def test_a_decision_that_is_too_large_and_one_that_raises(env: Environment) -> None:
    holds(records.refused(env))


def test_coordinators_that_race_and_come_and_go(env: Environment) -> None:
    holds(leaders.racing(env))


def test_a_killed_client_whose_session_is_retried(env: Environment) -> None:
    holds(clients.killed(env))


def test_commands_repeated_and_reordered_and_garbage_in_all_topics(env: Environment) -> None:
    holds(records.garbled(env))


def test_snapshots_that_cannot_be_trusted(env: Environment) -> None:
    holds(records.snapshots(env))
