"""Faults of brokers and topics, one test each. `CCS_FAULTS=full` runs full sizes, `python -m tests.faults` the table.

Given a log on a real broker with coordinators and clients in processes of their own, when the fault happens, then
nothing acknowledged is lost or applied twice, and all that `checker` knows of holds.
"""

import contextlib
import time
import uuid

import pytest

from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.kafka.topics import create, describe
from ccs_stream.protocol.errors import LogMissing, LogUnavailable
from ccs_stream.testing.broker import Broker
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


def test_a_second_request_does_not_wait_for_a_killed_controller() -> None:
    """The admin client would, a core busy, until its time is over."""
    with own_broker(3, **brokers.FAILOVER) as broker:
        clients = Clients(_log_on(broker))
        assert describe(clients, settings=False) == {}
        broker.kill(clients.admin.list_topics(timeout=10).controller_id)
        # when it is asked again and again while another takes over, and after
        for _ in range(4):
            assert describe(clients, settings=False) == {}
            time.sleep(1)


def test_a_log_without_a_partition_leader_is_unavailable_and_not_missing() -> None:
    """Kafka's clients know one error for both."""
    with own_broker(3, **brokers.FAILOVER) as broker:
        settings = _log_on(broker, "timeout_s=7")
        create(Clients(settings), partitions=1, replication=1)
        with contextlib.closing(KafkaLog(settings, read_only=True)) as store:
            name = store.names.log
            there = store.clients.admin.list_topics(name, timeout=10).topics[name]
            broker.kill(there.partitions[0].leader)
            time.sleep(4)  # until the others take it to be gone
            with pytest.raises(LogUnavailable):
                store.bounds(name, 0)
            with pytest.raises(LogMissing):
                store.bounds(f"{name}-of-nobody", 0)


def _log_on(broker: Broker, *options: str) -> KafkaSettings:
    chosen = "&".join((f"prefix=p-{uuid.uuid4().hex[:8]}", *options))
    return KafkaSettings.parse(f"kafka://{broker.bootstrap_servers}?{chosen}")
