"""Reading one partition: its bounds, ranges of it, single records.

Guarantees: a range is what the partition holds of it, in order, to where it ended when it was asked for; a reader whose
place is gone raises. Does not: follow; whoever follows has a consumer of its own.

Consumers are pooled: opening one costs a dozen round trips, assigning one anew costs one.
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
"""Records taken at once."""
_IDLE_MAX: Final = 4
"""Consumers kept for the next range."""
_FETCH_WAIT_MS: Final = 5
"""A range ends where a partition does: the next one must not wait behind a fetch for what comes after it."""
_AGAIN_S: Final = 0.05
"""Pause before asking again while a partition has no leader."""
_LISTEN_S: Final = 1.0
"""How long the first answer is waited for before it is asked whether one can still come."""
_AWAY_S: Final = 2.0
"""For how long a busy machine's brokers may seem to be away before that is said."""
_UNKNOWN_S: Final = 5.0
"""How long a topic may be unknown before it is missing: a broker serves a moment before it knows all of its topics."""
_STALL_S: Final = 0.5
"""How long one look for more records waits before it asks whether the deadline is over."""


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
        doing, patience = f"asking where {topic} [{partition}] ends", _LISTEN_S
        with self._consumer(doing) as consumer:
            while True:
                left = min(max(deadline - time.monotonic(), 0.001), patience)
                try:
                    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=left)
                except KafkaException as error:
                    consumer.poll(0)  # hears what is wrong; a message of an earlier range is of no use to anybody
                    self._clients.raise_if_permanent(doing)
                    if not self._may_pass(error, topic, time.monotonic() - began):
                        raise
                    if time.monotonic() > deadline:
                        if unknown_topic(error):
                            raise LogUnavailable(f"{doing}: nobody leads it now, or it is not there") from error
                        raise
                    patience *= 2  # a slow broker must come to answer
                    time.sleep(_AGAIN_S)
                else:
                    self._clients.connection.recovered()
                    return int(low), int(high)

    def _may_pass(self, error: KafkaException, topic: str, waited_s: float) -> bool:
        """Whether asking again helps. Raises `NotAuthorised` where a topic is unknown because we may not know of it."""
        if unknown_topic(error):
            # Said as well of a partition that nobody leads, and by a broker that has only just started.
            return waited_s < _UNKNOWN_S or self._clients.has_topic(topic, _LISTEN_S)
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
            sound = True  # whoever read had read enough
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
