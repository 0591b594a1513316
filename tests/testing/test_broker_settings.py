"""Settings, listeners and credentials that a broker is started with."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing.broker import Broker, BrokerFailed, start_broker
from tests.testing.kafka_io import PLAIN, create_topic, produce

PASSWORD = 'back\\slash "quoted" ä='


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Small messages; one listener for users in the cluster's metadata, one for users in the settings."""
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    with start_broker(
        settings={
            "message.max.bytes": "1000",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.plain.plain.sasl.jaas.config": f'{module} required user_writer="{escaped}";',
        },
        listeners={"SCRAM": "SASL_PLAINTEXT", "PLAIN": "SASL_PLAINTEXT"},
        format_arguments=["--add-scram", "SCRAM-SHA-512=[name=admin,password=secret]"],
    ) as started:
        yield started


def brokers(servers: str, **settings: Any) -> int:
    """How many brokers answer a client with these settings."""
    client = AdminClient({"bootstrap.servers": servers, "security.protocol": "SASL_PLAINTEXT", **PLAIN, **settings})
    return len(client.list_topics(timeout=3).brokers)


@pytest.mark.kafka
class TestAsAsked:
    def test_a_message_above_the_maximum_is_refused(self, broker: Broker, kafka_prefix: str) -> None:
        create_topic(broker.bootstrap_servers, kafka_prefix)
        assert produce(broker.bootstrap_servers, kafka_prefix, [b"x" * 500]) == [None]
        (exceeds,) = produce(broker.bootstrap_servers, kafka_prefix, [b"x" * 1500])
        assert exceeds is not None
        assert exceeds.code() == KafkaError.MSG_SIZE_TOO_LARGE

    def test_scram_knows_who_was_added_before_the_start(self, broker: Broker) -> None:
        scram = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "admin"}
        assert brokers(broker.listener("SCRAM"), **scram, **{"sasl.password": "secret"}) == 1
        with pytest.raises(KafkaException):
            brokers(broker.listener("SCRAM"), **scram, **{"sasl.password": "wrong"})

    def test_a_setting_keeps_every_character(self, broker: Broker) -> None:
        plain = {"sasl.mechanism": "PLAIN", "sasl.username": "writer"}
        assert brokers(broker.listener("PLAIN"), **plain, **{"sasl.password": PASSWORD}) == 1

    def test_a_setting_that_kafka_refuses_is_reported_with_kafka_s_words(self) -> None:
        with pytest.raises(BrokerFailed, match=r"Invalid value banana for configuration message\.max\.bytes"):
            start_broker(settings={"message.max.bytes": "banana"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 2}, "1 or 3 nodes, not 2"),
        ({"listeners": {"CONTROLLER": "PLAINTEXT"}}, "not one of the two built in"),
        ({"listeners": {"sasl": "SASL_PLAINTEXT"}}, "of capital letters"),
    ],
)
def test_options_that_no_source_has_are_a_usage_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        start_broker(**options)
