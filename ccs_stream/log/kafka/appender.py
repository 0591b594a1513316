"""A producer that appends to topics and waits until the brokers have the records.

The Kafka store uses it for bodies, snapshots, deliveries and new topics. The leader's log has a producer of its own.

Guarantees: records that `Appender.append` reports as durable are on all in-sync replicas, in the order given; a
definite refusal and an unknown outcome are different errors. Does not: retry; librdkafka does, within
`delivery_timeout_s`.

How: the calling thread polls the producer, under a lock, until every record is acknowledged.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import BrokerRefusal, broker_refusal_of, translated
from ccs_stream.protocol.errors import CcsError, OutcomeUnknown

_POLL_S: Final = 0.05


class Appender:
    """See the module's docstring. One object serves all threads."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._producer: Producer | None = None
        self._lock = threading.Lock()

    def append(self, topic: str, partition: int, records: Sequence[tuple[bytes | None, bytes | None]]) -> list[int]:
        """Append (key, value) pairs; returns offsets. Raises `RefusedByBroker`, `NotAuthorised`, `OutcomeUnknown`..."""
        self._clients.check_process()
        delivered: list[int] = []
        failed: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(error)
            else:
                delivered.append(message.offset() or 0)

        with self._lock:
            if self._producer is None:
                self._producer = self._clients.producer()
            producer = self._producer
            deadline = time.monotonic() + self._clients.settings.delivery_timeout_s + 1.0
            try:
                for key, value in records:
                    _produce(producer, topic, partition, key, value, on_delivery, deadline)
                while len(delivered) + len(failed) < len(records) and time.monotonic() < deadline and not failed:
                    producer.poll(_POLL_S)
            except KafkaException as error:  # also from `poll`, where the producer as such is of no use
                first: Any = error.args[0] if error.args else None
                if isinstance(first, KafkaError):
                    failed.append(first)
            if failed or len(delivered) < len(records):
                self._producer = None  # whatever it still holds must not be sent beside what is appended next
                raise self._error(topic, failed, sent=len(records))
        self._clients.connection.recovered()
        return delivered

    def close(self) -> None:
        """Let go of the producer."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(1.0)

    def _error(self, topic: str, failed: Sequence[KafkaError], *, sent: int) -> CcsError:
        if not failed:
            return OutcomeUnknown(f"appending {sent} messages to {topic}: no word from the broker in time")
        error = translated(failed[0], f"appending to {topic}", self._clients.connection)
        return OutcomeUnknown(str(error)) if broker_refusal_of(failed[0]) is BrokerRefusal.UNKNOWN else error


def _produce(
    producer: Producer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    on_delivery: Any,
    deadline: float,
) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, on_delivery)
        except BufferError:
            if time.monotonic() > deadline:
                raise
            producer.poll(_POLL_S)
        else:
            return
