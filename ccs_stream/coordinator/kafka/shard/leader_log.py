"""The producers of a leader: they append to a partition of the log, and report only failures.

`ShardCoordinator` uses them. Guarantees: messages are sent in order, by an idempotent producer that waits for all
in-sync replicas; a failure is reported once, by `poll`, in the thread that polls. Does not: report success; a leader
reads its own decisions back.
"""

import collections
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import BrokerRefusal, broker_refusal_of, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.records import LeaderClaimed, LeaderResigned

_CLIENT_ID: Final = "ccs-leader"
_BATCH_OVERHEAD_BYTES: Final = 512
"""Bytes of a batch beside its messages, generously."""
_CLAIM: Final = "claim"
RESIGNATION: Final = "resignation"
"""Names the failed message to `OnAppendFailure` where it is not a decision."""
OnAppendFailure = Callable[[object, BrokerRefusal, CcsError], None]
"""Called with the message that failed (as given to `append`), how certain that is, and the error."""


def largest_batch(store: KafkaLog) -> int:
    """Bytes of messages that one batch to the log may hold: brokers measure batches, not messages."""
    return store.largest_message - _BATCH_OVERHEAD_BYTES


class WarmProducers:
    """Producers made ahead: an idempotent one needs half a second to get its id, and a takeover must be faster."""

    def __init__(self, clients: Clients, *, batch_bytes: int, spare: int) -> None:
        self._clients = clients
        self._batch_bytes = batch_bytes
        self._spare = spare
        self._made: collections.deque[Producer] = collections.deque()
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Make as many as are kept ready."""
        with self._lock:
            while len(self._made) < self._spare:
                self._made.append(self._make())

    def take(self) -> Producer:
        """A producer for a partition that is led now; another takes its place."""
        with self._lock:
            taken = self._made.popleft() if self._made else self._make()
        self.warm()
        return taken

    def close(self) -> None:
        """Let go of the producers that were not taken."""
        with self._lock:
            self._spare = 0
            self._made.clear()

    def _make(self) -> Producer:
        return self._clients.producer(only_errors=True, client_id=_CLIENT_ID, batch_bytes=self._batch_bytes)


class LeaderLog:
    """Appends to one partition of the log; after a failure its producer is destroyed and made anew."""

    def __init__(self, clients: Clients, topic: str, partition: int, producers: WarmProducers) -> None:
        self._clients = clients
        self._topic = topic
        self._partition = partition
        self._producers = producers
        self._producer: Producer | None = None
        self._failures: collections.deque[tuple[object, KafkaError]] = collections.deque()

    def append(self, messages: Sequence[tuple[object, bytes | None, bytes]]) -> None:
        """Send (name, key, value) in order. A failure, also one that shows at once, is reported by `poll`."""
        producer = self._producer
        if producer is None:
            producer = self._producer = self._producers.take()
        topic, partition = self._topic, self._partition
        for what, key, value in messages:
            try:
                producer.produce(topic, value, key, partition, functools.partial(self._delivered, what))
            except BufferError:
                self._failures.append((what, KafkaError(KafkaError._QUEUE_FULL)))  # noqa: SLF001  # its only name
            except KafkaException as error:
                first: Any = error.args[0]
                self._failures.append((what, first))
                if broker_refusal_of(first) is BrokerRefusal.TOO_LARGE:
                    continue  # what follows it leaves a gap, which readers see; it must not be half-sent
                return

    def claim(self, claimed: LeaderClaimed) -> None:
        """Send a claim."""
        self.append([(_CLAIM, None, DEFAULT_CODEC.encode_record(claimed))])

    def resign(self, resigned: LeaderResigned) -> None:
        """Send a resignation."""
        self.append([(RESIGNATION, None, DEFAULT_CODEC.encode_record(resigned))])

    def poll(self, on_failure: OnAppendFailure) -> None:
        """Report failures to `on_failure`."""
        if self._producer is not None:
            self._producer.poll(0)
        while self._failures:
            what, error = self._failures.popleft()
            doing = f"appending to {self._topic} [{self._partition}]"
            on_failure(what, broker_refusal_of(error), translated(error, doing, self._clients.connection))

    def destroy(self) -> None:
        """Destroy the producer, with the messages it has not sent. Those on their way may still arrive."""
        producer, self._producer = self._producer, None
        self._failures.clear()
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)

    def flush(self, timeout_s: float) -> None:
        """Wait until everything was sent, for at most so long."""
        producer = self._producer
        if producer is not None:
            producer.flush(timeout_s)

    def _delivered(self, what: object, error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            self._failures.append((what, error))
