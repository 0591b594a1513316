"""The producer of a leader: appends to one partition, and tells only of failures.

Guarantees: what is appended is sent in order, by an idempotent producer that waits for all in-sync replicas; a failure
is told once, by `poll`, in the thread that polls. Does not: tell of success; a leader reads its own decisions back.
"""

import collections
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import Refusal, refusal_of, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.records import LeaderClaimed, LeaderResigned

_CLIENT_ID: Final = "ccs-leader"
_BATCH_OVERHEAD_BYTES: Final = 512
"""What a batch takes beside its messages, generously."""
_CLAIM: Final = "claim"
RESIGNATION: Final = "resignation"
"""What is told to have failed, where it is no decision."""
Failed = Callable[[object, Refusal, CcsError], None]
"""What failed (as given to `append`), how certainly, and the error."""


def largest_batch(store: KafkaLog) -> int:
    """Bytes of messages that one batch to the log may hold: brokers measure batches, not messages."""
    return store.largest_message - _BATCH_OVERHEAD_BYTES


class WarmProducers:
    """Producers made ahead: an idempotent one takes half a second to be given its id, and a take-over must not."""

    def __init__(self, clients: Clients, *, batch_bytes: int, spare: int) -> None:
        self._clients = clients
        self._batch_bytes = batch_bytes
        self._spare = spare
        self._made: collections.deque[Producer] = collections.deque()
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Have as many ready as are kept to spare."""
        with self._lock:
            while len(self._made) < self._spare:
                self._made.append(self._make())

    def take(self) -> Producer:
        """One for whoever leads now; another takes its place."""
        with self._lock:
            taken = self._made.popleft() if self._made else self._make()
        self.warm()
        return taken

    def close(self) -> None:
        """Let go of those that nobody took."""
        with self._lock:
            self._spare = 0
            self._made.clear()

    def _make(self) -> Producer:
        return self._clients.producer(only_errors=True, client_id=_CLIENT_ID, batch_bytes=self._batch_bytes)


class LeaderLog:
    """One partition of the log, to append to; made anew after every failure."""

    def __init__(self, clients: Clients, topic: str, partition: int, producers: WarmProducers) -> None:
        self._clients = clients
        self._topic = topic
        self._partition = partition
        self._producers = producers
        self._producer: Producer | None = None
        self._failures: collections.deque[tuple[object, KafkaError]] = collections.deque()

    def append(self, messages: Sequence[tuple[object, bytes | None, bytes]]) -> None:
        """Send (what, key, value) in order. A failure, also one that shows at once, is told by `poll`."""
        producer = self._producer
        if producer is None:
            producer = self._producer = self._producers.take()
        topic, partition = self._topic, self._partition
        for what, key, value in messages:
            try:
                producer.produce(topic, value, key, partition, functools.partial(self._told, what))
            except BufferError:
                self._failures.append((what, KafkaError(KafkaError._QUEUE_FULL)))  # noqa: SLF001  # its only name
            except KafkaException as error:
                first: Any = error.args[0]
                self._failures.append((what, first))
                if refusal_of(first) is Refusal.TOO_LARGE:
                    continue  # what follows it leaves a gap, which readers see; it must not be half-sent
                return

    def claim(self, claimed: LeaderClaimed) -> None:
        """Send a claim."""
        self.append([(_CLAIM, None, DEFAULT_CODEC.encode_record(claimed))])

    def resign(self, resigned: LeaderResigned) -> None:
        """Send a resignation."""
        self.append([(RESIGNATION, None, DEFAULT_CODEC.encode_record(resigned))])

    def poll(self, failed: Failed) -> None:
        """Tell of failures."""
        if self._producer is not None:
            self._producer.poll(0)
        while self._failures:
            what, error = self._failures.popleft()
            doing = f"appending to {self._topic} [{self._partition}]"
            failed(what, refusal_of(error), translated(error, doing, self._clients.trouble))

    def destroy(self) -> None:
        """Throw the producer away, with what it has not sent. What is on its way may still arrive."""
        producer, self._producer = self._producer, None
        self._failures.clear()
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)

    def flush(self, timeout_s: float) -> None:
        """Wait until everything was sent, for at most so long."""
        producer = self._producer
        if producer is not None:
            producer.flush(timeout_s)

    def _told(self, what: object, error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            self._failures.append((what, error))
