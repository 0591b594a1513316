"""Shared parts of the Kafka benchmarks: new logs, coordinators in processes of their own, and the floor.

Guarantees: the floor is confluent-kafka alone: a message produced, acknowledged by all in-sync replicas, and read back
by another client. Does not: measure.
"""

import contextlib
import functools
import json
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.report import Row, at_most, duration
from benchmarks.run import Run
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.testing.broker import NoBroker, start_broker

BODY: Final = "x" * 280
"""With its key and quotes this is a value of 300 bytes."""
RECORD_BYTES: Final = 640
"""Bytes of a decision with one such write, as a message."""


def on_broker(rows: Callable[[Run, str], Iterator[Row]]) -> Callable[[Run], Iterator[Row]]:
    """Measure rows on a broker of their own. Without a broker there are no rows, and a message says why."""

    @functools.wraps(rows)
    def section(run: Run) -> Iterator[Row]:
        try:
            broker = start_broker()
        except NoBroker as error:
            sys.stderr.write(f"THE KAFKA BENCHMARKS DID NOT RUN: {error}\n")
            return
        with broker:
            yield from rows(run, broker.bootstrap_servers)

    return section


def new_log(servers: str, partitions: int = 1) -> str:
    """The URL of a new log."""
    url = f"kafka://{servers}?prefix=bench-{uuid.uuid4().hex[:12]}"
    topics.create(Clients(KafkaSettings.parse(url)), partitions=partitions)
    return url


def _producer(servers: str) -> Producer:
    return Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0})


def _consumer(servers: str, topic: str) -> Consumer:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "floor", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    return consumer


def relay(servers: str, source: str, target: str) -> None:
    """Move messages from one topic to another, until an empty one comes."""
    consumer, producer = _consumer(servers, source), _producer(servers)
    print("ready", flush=True)
    value = b"something"
    while value:
        message = consumer.poll(60.0)
        if message is None or message.error() is not None:
            raise AssertionError("nothing comes to be moved on")
        value = message.value() or b""
        producer.produce(target, value, partition=0)
        producer.poll(0)
    producer.flush(10)


class Floor:
    """A message produced, acknowledged by all in-sync replicas, and read back by another client.

    With `moved_on` another process moves it from the first topic to a second, and it is read back from there: the way
    of a command that another process decides.
    """

    def __init__(self, servers: str, *, moved_on: bool = False) -> None:
        prefix = KafkaSettings.parse(new_log(servers)).prefix  # topics that nobody else writes to
        back, self._topic = f"{prefix}.deliveries.v1", f"{prefix}.{'content' if moved_on else 'deliveries'}.v1"
        self._relay: subprocess.Popen[str] | None = None
        if moved_on:
            command = [sys.executable, "-m", "benchmarks.children", "relay", servers, self._topic, back]
            self._relay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            if self._relay.stdout is None or self._relay.stdout.readline().strip() != "ready":
                raise AssertionError("the relay does not begin")
        self._producer = _producer(servers)
        self._consumer = _consumer(servers, back)
        self._number = 0
        self.round_trip([b"warm"])

    def round_trip(self, messages: list[bytes]) -> list[Any]:
        """Produce, wait until all were read back; the messages read."""
        for each in messages:
            self._producer.produce(self._topic, each, partition=0)
        self._producer.poll(0)
        read: list[Any] = []
        while len(read) < len(messages):
            first = self._consumer.poll(5.0)
            if first is None:
                raise AssertionError("the broker does not answer")
            read.append(first)
            if len(read) < len(messages):
                read.extend(self._consumer.consume(len(messages) - len(read), 0))
        return read

    def one(self) -> None:
        """One message of the size of a decision."""
        self._number += 1
        self.round_trip([b"%08d" % self._number + b"x" * (RECORD_BYTES - 8)])

    def close(self) -> None:
        """Close the clients."""
        if self._relay is not None:
            self.round_trip([b""])
            self._relay.communicate()
        self._consumer.close()


def quantiles(call: Callable[[], object], count: int, *, pause_s: float = 0.0) -> list[float]:
    """Quantiles of the seconds that each call takes, with a pause after each."""
    taken: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
        if pause_s:
            time.sleep(pause_s)
    return taken


def quantile_of(taken: list[float], quantile: float) -> float:
    ordered = sorted(taken)
    return ordered[min(int(len(ordered) * quantile), len(ordered) - 1)]


def in_turns(calls: dict[str, Callable[[], object]], turns: int, count: int) -> dict[str, list[list[float]]]:
    taken: dict[str, list[list[float]]] = {name: [] for name in calls}
    for call in calls.values():
        quantiles(call, max(count // 10, 5))
    for _ in range(turns):
        for name, call in calls.items():
            taken[name].append(quantiles(call, count))
    return taken


def compare(
    what: str,
    ours: list[list[float]],
    floor: list[list[float]],
    quantile: float,
    bound: float | None,
    against: str = "produce and read back",
) -> Row:
    """The median, over the turns, of a quantile's ratio."""
    ratio = statistics.median(
        quantile_of(one, quantile) / quantile_of(other, quantile) for one, other in zip(ours, floor, strict=True)
    )
    mine = statistics.median(quantile_of(each, quantile) for each in ours)
    theirs = statistics.median(quantile_of(each, quantile) for each in floor)
    label = f"{what}, p{round(quantile * 100)}"
    target = None if bound is None else at_most(bound)
    return Row(label, duration(mine), against, duration(theirs), ratio, "x the time", target)


@contextlib.contextmanager
def coordinator_process(url: str) -> Iterator[subprocess.Popen[str]]:
    """`ccs-stream coordinator` in a process of its own, ready."""
    command = [sys.executable, "-m", "ccs_stream.cli", "coordinator", url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if process.stderr is None:
            raise AssertionError("no stderr")
        health = process.stderr.readline().rpartition("health at ")[2].strip()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(health):
                break
            time.sleep(0.05)
        _until_led(health.removesuffix("/readyz") + "/status")
        yield process
    finally:
        process.terminate()
        process.communicate()


def _until_led(status: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(status) as answer:
            if all(each["role"] == "leading" for each in json.load(answer)["partitions"]):
                return
        time.sleep(0.02)
    raise AssertionError("nobody leads")
