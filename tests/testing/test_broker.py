"""The shared broker and the prefix, as a test of any room uses them."""

import re

import pytest
from confluent_kafka import KafkaError

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing.broker import Broker
from tests.testing.kafka_io import consume, create_topic, produce

pytestmark = pytest.mark.kafka


def test_what_is_produced_is_consumed(kafka_broker: Broker, kafka_prefix: str) -> None:
    create_topic(kafka_broker.bootstrap_servers, f"{kafka_prefix}.events")
    assert produce(kafka_broker.bootstrap_servers, f"{kafka_prefix}.events", [b"1", b"2"]) == [None, None]
    assert consume(kafka_broker.bootstrap_servers, f"{kafka_prefix}.events", 2) == [b"1", b"2"]


def test_a_misspelt_topic_fails(kafka_broker: Broker, kafka_prefix: str) -> None:
    (error,) = produce(kafka_broker.bootstrap_servers, kafka_prefix, [b"1"], **{"topic.metadata.propagation.max.ms": 0})
    assert error is not None
    assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_shared_broker_cannot_be_stopped_or_killed(kafka_broker: Broker, kafka_prefix: str) -> None:
    for fault in (kafka_broker.kill, kafka_broker.terminate, kafka_broker.pause, kafka_broker.restart):
        with pytest.raises(UsageError, match="shared with other tests"):
            fault(1)
    kafka_broker.stop()
    create_topic(kafka_broker.bootstrap_servers, kafka_prefix)


def test_a_listener_that_was_not_asked_for_is_refused_by_name(kafka_broker: Broker) -> None:
    with pytest.raises(UsageError, match="no listener 'SASL': it has PLAINTEXT"):
        kafka_broker.listener("SASL")


@pytest.mark.parametrize("text", ["äöü / _ #", "x" * 300])
def test_a_prefix_is_a_topic_s_name_whatever_the_test_is_called(kafka_prefix: str, text: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9.-]{1,120}", kafka_prefix)
