"""Faults of brokers and topics, one test each. `CCS_FAULTS=full` runs full sizes, `python -m tests.faults` the table.

Given a log on a real broker with coordinators and clients in processes of their own, when the fault happens, then
nothing acknowledged is lost or applied twice, and all that `checker` knows of holds.
"""

import time
import uuid

import pytest

from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.topics import describe
from tests.faults import brokers, topics
from tests.faults.environment import Environment, is_full, own_broker
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


def test_whoever_asks_again_does_not_wait_for_a_killed_controller() -> None:
    """The admin client would, a core busy, until its time is over."""
    with own_broker(3, **brokers.FAILOVER) as broker:
        clients = Clients(KafkaSettings.parse(f"kafka://{broker.bootstrap_servers}?prefix=p-{uuid.uuid4().hex[:8]}"))
        assert describe(clients, settings=False) == {}
        broker.kill(clients.admin.list_topics(timeout=10).controller_id)
        # when it is asked again and again while another takes over, and after
        for _ in range(4):
            assert describe(clients, settings=False) == {}
            time.sleep(1)
