"""A broker in a container, where there is a Docker engine that has the image or can pull it."""

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from ccs_stream.testing import broker_container
from ccs_stream.testing.broker import Broker, NoBroker
from ccs_stream.testing.broker_base import BrokerOptions
from tests.testing.kafka_io import consume, create_topic, produce

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    try:
        started = broker_container.start(BrokerOptions(settings={"message.max.bytes": "1000"}))
    except NoBroker as error:
        pytest.skip(str(error))
    with started:
        yield started


def test_a_killed_container_comes_back_with_its_data(broker: Broker, kafka_prefix: str) -> None:
    # given
    servers = broker.bootstrap_servers
    create_topic(servers, kafka_prefix)
    assert produce(servers, kafka_prefix, [b"before"]) == [None]
    # when
    broker.kill(1)
    broker.restart(1)
    # then
    assert produce(servers, kafka_prefix, [b"after"]) == [None]
    assert consume(servers, kafka_prefix, 2) == [b"before", b"after"]
    assert broker.log_of(1).read_text("utf-8").count("Kafka Server started") == 2


def test_a_paused_container_says_nothing_until_it_is_resumed(broker: Broker, kafka_prefix: str) -> None:
    create_topic(broker.bootstrap_servers, kafka_prefix)
    broker.pause(1)
    (late,) = produce(broker.bootstrap_servers, kafka_prefix, [b"late"], **{"message.timeout.ms": 1000})
    broker.resume(1)
    assert late is not None
    assert late.code() == KafkaError._MSG_TIMED_OUT
    assert produce(broker.bootstrap_servers, kafka_prefix, [b"on time"]) == [None]


def test_settings_reach_the_broker(broker: Broker, kafka_prefix: str) -> None:
    create_topic(broker.bootstrap_servers, kafka_prefix)
    (exceeds,) = produce(broker.bootstrap_servers, kafka_prefix, [b"x" * 1500])
    assert exceeds is not None
    assert exceeds.code() == KafkaError.MSG_SIZE_TOO_LARGE


def test_options_that_a_container_cannot_have_go_to_the_next_source() -> None:
    for options in (
        BrokerOptions(nodes=3),
        BrokerOptions(listeners={"SASL": "SASL_PLAINTEXT"}),
        BrokerOptions(format_arguments=["-x"]),
    ):
        with pytest.raises(NoBroker, match="one node, no further listeners"):
            broker_container.start(options)
