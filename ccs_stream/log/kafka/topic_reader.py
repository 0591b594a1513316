"""Reading partitions of topics: where they begin and end, ranges of records, single records.

The Kafka store uses it for all of its topics.

Guarantees: a range holds the records of the partition in order, up to the end that the partition had when the read
began; a reader whose place was deleted raises. Does not: follow new records; followers have a consumer of their own.

How: consumers are pooled, because opening one costs a dozen round trips, and assigning one anew costs one. A read
blocks the calling thread for at most `timeout_s` without a record.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import all_away, timed_out, transient, translated, unknown_topic
from ccs_stream.protocol.errors import LogDiverged, LogUnavailable

BATCH_RECORDS: Final = 1_000
"""Records fetched at once."""
_IDLE_MAX: Final = 4
"""Consumers kept for the next range."""
_FETCH_WAIT_MS: Final = 5
"""A range ends where a partition does: the next one must not wait behind a fetch for what comes after it."""
_RETRY_S: Final = 0.05
"""Pause before asking again while a partition has no leader."""
_FIRST_ANSWER_S: Final = 1.0
"""Wait for the first answer, before the connection is checked for a permanent failure."""
_AWAY_S: Final = 2.0
"""On a busy machine brokers may seem to be away for so long; after that, the error is raised."""
_UNKNOWN_S: Final = 5.0
"""How long a topic may be unknown before it is missing: a broker serves a moment before it knows all of its topics."""
_STALL_S: Final = 0.5
"""Wait for more records, before the deadline is checked again."""


class TopicReader:
    """Reads partitions of any topics of one log; one object for all threads."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._idle: list[Consumer] = []
        self._lock = threading.Lock()
        self._closed = False

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Offset of the first record kept, and of the one that will come next. Raises `LogUnavailable` and others."""
        began = time.monotonic()
        deadline = began + self._clients.settings.timeout_s
        doing, patience = f"asking where {topic} [{partition}] ends", _FIRST_ANSWER_S
        with self._consumer(doing) as consumer:
            while True:
                left = min(max(deadline - time.monotonic(), 0.001), patience)
                try:
                    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=left)
                except KafkaException as error:
                    consumer.poll(0)  # runs the error callback; a message of an earlier range is dropped
                    self._clients.raise_if_permanent(doing)
                    if not self._may_pass(error, topic, time.monotonic() - began):
                        raise
                    if time.monotonic() > deadline:
                        if unknown_topic(error):
                            raise LogUnavailable(
                                f"{doing}: the partition has no leader now, or does not exist"
                            ) from error
                        raise
                    patience *= 2  # give a slow broker the time to answer
                    time.sleep(_RETRY_S)
                else:
                    self._clients.connection.recovered()
                    return int(low), int(high)

    def _may_pass(self, error: KafkaException, topic: str, waited_s: float) -> bool:
        """True if asking again may help. Raises `NotAuthorised` if a topic is hidden from this user."""
        if unknown_topic(error):
            # The broker says this too of a partition without a leader, and just after it has started.
            return waited_s < _UNKNOWN_S or self._clients.has_topic(topic, _FIRST_ANSWER_S)
        return transient(error) or timed_out(error) or (all_away(error) and waited_s < _AWAY_S)

    def read(self, topic: str, partition: int, after: int, until: int | None = None) -> Iterator[Message]:
        """Messages with offsets above `after`, to `until` or the end as it is now.

        Raises `LogDiverged` where they begin later than that, `LogUnavailable` where none comes for `timeout_s`.
        """
        low, high = self.bounds(topic, partition)
        begin, end = max(after + 1, 0), high if until is None else min(high, until + 1)
        if after >= 0 and begin < low:
            raise LogDiverged(
                f"{topic} [{partition}] now begins at offset {low}, and offset {begin} is needed: its head was "
                "deleted, or the topic was made anew; look with `ccs-stream topics check URL`"
            )
        begin = max(begin, low)
        if begin >= end:
            return
        with self._consumer(f"reading {topic} [{partition}]") as consumer:
            consumer.assign([TopicPartition(topic, partition, begin)])
            try:
                yield from self._take(consumer, topic, partition, begin, end)
            finally:
                consumer.unassign()

    def _take(self, consumer: Consumer, topic: str, partition: int, begin: int, end: int) -> Iterator[Message]:
        deadline = time.monotonic() + self._clients.settings.timeout_s
        while begin < end:
            messages = consumer.consume(min(BATCH_RECORDS, end - begin), _STALL_S)
            for message in messages:
                error = message.error()
                if error is not None:
                    if transient(error):
                        continue
                    raise translated(error, f"reading {topic} [{partition}]", self._clients.connection)
                offset = message.offset()
                if offset is None or offset >= end:
                    return
                yield message
                begin = offset + 1
            if messages:
                deadline = time.monotonic() + self._clients.settings.timeout_s
            elif time.monotonic() > deadline:
                raise LogUnavailable(
                    f"reading {topic} [{partition}] stands still at offset {begin} of {end} for "
                    f"{self._clients.settings.timeout_s:g} s: check the brokers"
                )

    def close(self) -> None:
        """Let go of the consumers."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for consumer in idle:
            consumer.close()

    @contextlib.contextmanager
    def _consumer(self, doing: str) -> Iterator[Consumer]:
        self._clients.check_process()
        with self._lock:
            consumer = self._idle.pop() if self._idle else None
        if consumer is None:
            consumer = self._clients.reader(fetch_wait_ms=_FETCH_WAIT_MS)
        sound = False
        try:
            yield consumer
            sound = True
        except GeneratorExit:
            sound = True  # the caller has read enough
            raise
        except KafkaException as error:
            raise translated(error, doing, self._clients.connection) from error
        finally:
            with self._lock:
                keep = sound and not self._closed and len(self._idle) < _IDLE_MAX
                if keep:
                    self._idle.append(consumer)
            if not keep:
                consumer.close()
