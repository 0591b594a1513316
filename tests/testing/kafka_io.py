"""What the tests of the test broker do with one: topics, records in, records out."""

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

PATIENCE_S = 30
"""For one step, on a machine that is busy with other tests."""

PLAIN: dict[str, Any] = {"log_level": 2}
"""The client says on stderr that a broker is away; here it is away on purpose."""


def create_topic(servers: str, topic: str) -> None:
    """Create a topic of one partition, with as many replicas as the broker's settings say."""
    admin = AdminClient({"bootstrap.servers": servers, **PLAIN})
    admin.create_topics([NewTopic(topic, 1, -1)])[topic].result(PATIENCE_S)


def produce(servers: str, topic: str, values: list[bytes], **settings: Any) -> list[KafkaError | None]:
    """Produce, and return the error of each record."""
    errors: list[KafkaError | None] = []
    config = {"bootstrap.servers": servers, "acks": "all", "linger.ms": 0, **PLAIN, **settings}
    producer = Producer(config)

    def delivered(error: KafkaError | None, _: Message) -> None:
        errors.append(error)

    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(PATIENCE_S) == 0
    return errors


def consume(servers: str, topic: str, count: int, **settings: Any) -> list[bytes]:
    """The first records of the topic's partition."""
    config = {"bootstrap.servers": servers, "group.id": "unused", "enable.auto.commit": False, **PLAIN, **settings}
    consumer = Consumer(config)
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages = consumer.consume(count, PATIENCE_S)
    finally:
        consumer.close()
    assert not [message.error() for message in messages if message.error()]
    return [message.value() or b"" for message in messages]


def leader_and_replicas(servers: str, topic: str) -> tuple[int, list[int]]:
    """The node that leads the topic's partition, and all that have it, once the node that is asked knows."""
    admin = AdminClient({"bootstrap.servers": servers, **PLAIN})
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        partition = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions.get(0)
        if partition is not None and partition.leader >= 0:
            return partition.leader, sorted(partition.replicas)
        time.sleep(0.05)
    raise TimeoutError(f"no node leads {topic}")


def setting_of(servers: str, node: int, name: str) -> str:
    """A setting of a node."""
    admin = AdminClient({"bootstrap.servers": servers, **PLAIN})
    resource = ConfigResource(ConfigResource.Type.BROKER, str(node))
    return str(admin.describe_configs([resource])[resource].result(PATIENCE_S)[name].value)
