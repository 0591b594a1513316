"""A broker of one's own, and what can be done to its nodes."""

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing.broker import QUICK_FAILOVER, Broker, start_broker
from tests.testing.kafka_io import consume, create_topic, leader_and_replicas, produce, setting_of

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One node, which every test leaves running."""
    with start_broker(settings=QUICK_FAILOVER) as started:
        yield started


def test_a_killed_node_comes_back_with_its_data_at_its_address(broker: Broker, kafka_prefix: str) -> None:
    # given
    servers = broker.bootstrap_servers
    create_topic(servers, kafka_prefix)
    assert produce(servers, kafka_prefix, [b"before"]) == [None]
    # when
    broker.kill(1)
    broker.restart(1)
    # then
    assert broker.bootstrap_servers == servers
    assert produce(servers, kafka_prefix, [b"after"]) == [None]
    assert consume(servers, kafka_prefix, 2) == [b"before", b"after"]
    assert broker.log_of(1).read_text("utf-8").count("Kafka Server started") == 2


def test_a_paused_node_says_nothing_until_it_is_resumed(broker: Broker, kafka_prefix: str) -> None:
    # given
    create_topic(broker.bootstrap_servers, kafka_prefix)
    # when
    broker.pause(1)
    (error,) = produce(broker.bootstrap_servers, kafka_prefix, [b"late"], **{"message.timeout.ms": 1000})
    broker.resume(1)
    # then
    assert error is not None
    assert error.code() == KafkaError._MSG_TIMED_OUT
    assert produce(broker.bootstrap_servers, kafka_prefix, [b"on time"]) == [None]


def test_a_node_that_is_down_takes_no_further_fault(broker: Broker) -> None:
    broker.pause(1)
    broker.terminate(1)
    for fault in (broker.kill, broker.terminate, broker.pause, broker.resume):
        with pytest.raises(UsageError, match="node 1 is not running: restart it first"):
            fault(1)
    broker.restart(1)
    with pytest.raises(UsageError, match="there is no node 2"):
        broker.kill(2)


def test_three_nodes_lose_nothing_with_one_of_them(kafka_prefix: str) -> None:
    with start_broker(nodes=3, settings=QUICK_FAILOVER) as broker:
        # given
        servers = broker.bootstrap_servers
        create_topic(servers, kafka_prefix)
        leader, replicas = leader_and_replicas(servers, kafka_prefix)
        assert replicas == [1, 2, 3]
        assert setting_of(servers, leader, "min.insync.replicas") == "2"
        values = [b"%d" % number for number in range(20)]
        assert produce(servers, kafka_prefix, values[:10]) == [None] * 10
        # when
        broker.kill(leader)
        # then
        assert produce(servers, kafka_prefix, values[10:]) == [None] * 10
        assert consume(servers, kafka_prefix, 20) == values
