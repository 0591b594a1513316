"""The topics of a log: describing them, and making those of a new log.

The Kafka store, `ccs-stream topics` and `ccs-stream doctor` use it; `topic_check` compares what is described.

Guarantees: making is idempotent and finishes what an interrupted one began; a log that was deleted while its other
topics still stand is not replaced by an empty one. Does not: change or delete a topic that exists.

A log is opened by one record (`LogOpened`) in each of its partitions. Its id is the id that the broker gave the log's
topic, so that two processes that open it at the same moment write the same id.
"""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]  # it is public

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.errors import translated
from ccs_stream.log.kafka.names import PARTITIONER
from ccs_stream.log.kafka.settings import DEFAULT_PARTITIONS
from ccs_stream.log.kafka.topic_reader import TopicReader
from ccs_stream.log.port import LOG_FORMAT
from ccs_stream.protocol.errors import (
    CorruptRecord,
    LogDiverged,
    LogMissing,
    NewerFormat,
    NotAuthorised,
    UsageError,
)
from ccs_stream.protocol.ids import LogId, Micros
from ccs_stream.protocol.records import LogOpened

MESSAGE_BYTES: Final = 1_048_588
"""Kafka's own default of `max.message.bytes`: decisions and chunks are kept below it."""
REPLICATION: Final = 3
"""Copies of each record that a log needs to survive the loss of a broker."""
FOREVER: Final = "-1"


@dataclasses.dataclass(frozen=True, slots=True)
class TopicRequirement:
    """Requirements on one topic of a log."""

    name: str
    purpose: str
    compacted: bool = False
    partitions_of_log: bool = True
    """True if it must have as many partitions as the log."""

    def config(self, replication: int) -> dict[str, str]:
        """Its settings at the broker."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": FOREVER,
            "retention.bytes": FOREVER,
            "max.message.bytes": str(MESSAGE_BYTES),
            "min.insync.replicas": str(2 if replication >= REPLICATION else 1),
            "unclean.leader.election.enable": "false",
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker describes it."""

    name: str
    topic_id: bytes
    partitions: int
    replication: int
    config: Mapping[str, str]
    """Its settings; empty if they were not requested, or if this user may not see them."""


def required_topics(clients: Clients) -> tuple[TopicRequirement, ...]:
    """The topics of a log."""
    names = clients.names
    return (
        TopicRequirement(names.commands, "commands of participants"),
        TopicRequirement(names.snapshots, "folded states, for opening quickly", compacted=True),
        TopicRequirement(names.content, "bodies too large to travel in their decision", partitions_of_log=False),
        TopicRequirement(names.deliveries, "which agent was given which version"),
        TopicRequirement(names.log, "the log: every decision and claim"),
    )


def describe(clients: Clients, *, settings: bool = True) -> dict[str, Topic]:
    """Describe the topics that exist, by name; with `settings`, with those that this user may see.

    Raises `LogUnavailable`, and `NotAuthorised` for a topic that this user may not describe.
    """
    names = [each.name for each in required_topics(clients)]
    described = clients.admin.describe_topics(TopicCollection(names), request_timeout=clients.settings.timeout_s)
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = clients.wait_for(f"describing {name}", described[name])
        except LogMissing:
            continue
    config = settings_of(clients, list(found)) if settings and found else {}
    return {
        name: Topic(
            name,
            _uuid_bytes(topic.topic_id),
            len(topic.partitions),
            min(len(each.replicas) for each in topic.partitions),
            config.get(name, {}),
        )
        for name, topic in found.items()
    }


def settings_of(clients: Clients, names: list[str]) -> dict[str, dict[str, str]]:
    """The settings of topics at the broker. Those that this user may not see (without DescribeConfigs) are left out."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configured = clients.admin.describe_configs(resources, request_timeout=clients.settings.timeout_s)
    found: dict[str, dict[str, str]] = {}
    for each in resources:
        try:
            entries = clients.wait_for(f"describing the settings of {each.name}", configured[each])
        except NotAuthorised:
            continue
        found[each.name] = {key: str(entry.value) for key, entry in entries.items()}
    return found


def largest_message(clients: Clients, topic: str) -> int:
    """Bytes of the largest batch that a topic takes; Kafka's default if this user may not see it."""
    return int(settings_of(clients, [topic]).get(topic, {}).get("max.message.bytes", MESSAGE_BYTES))


def create(clients: Clients, *, partitions: int | None = None, replication: int | None = None) -> list[str]:
    """Make the topics that are missing, and open the log; returns a sentence for each step that was done.

    `partitions` of a new log (12 unless given) cannot be changed later. `replication` is 3, or the number of brokers.
    Raises `UsageError` for arguments that contradict existing topics, `LogDiverged` if the log was deleted.
    """
    there = describe(clients, settings=False)
    names = clients.names
    count = _partitions(clients, there, partitions)
    brokers = _brokers(clients)
    copies = replication or min(REPLICATION, brokers)
    if not 1 <= copies <= brokers:
        raise UsageError(f"replication {copies} needs as many brokers, there are {brokers}")
    reader = TopicReader(clients)
    try:
        if names.log not in there and names.commands in there:
            _refuse_lost_log(clients, reader, range(there[names.commands].partitions))
        done = _create(clients, [each for each in required_topics(clients) if each.name not in there], count, copies)
        log = _until_described(clients)[names.log]
        opened = _open_log(clients, reader, log)
    finally:
        reader.close()
    if opened:
        done.append(f"opened the log in {opened} of {log.partitions} partitions of {names.log}")
    return done


def read_opened(reader: TopicReader, topic: str, partition: int) -> LogOpened:
    """The record that opens a partition of the log. Raises `LogMissing`, `LogDiverged`, `NewerFormat`."""
    low, high = reader.bounds(topic, partition)
    if high == 0:
        raise LogMissing(
            f"{topic} [{partition}] holds no record: the log was never opened, or its topic was made anew. Run "
            "`ccs-stream topics create URL`; where there was a log before, restore it from a copy"
        )
    if low > 0:
        raise LogDiverged(
            f"{topic} [{partition}] begins at offset {low}: its head was deleted, by retention or by hand. Restore it "
            "from a copy; the topic's retention.ms must be -1"
        )
    message = next(iter(reader.read(topic, partition, -1, 0)), None)
    value = None if message is None else message.value()
    try:
        record = None if value is None else DEFAULT_CODEC.decode_record(value)[0]
    except CorruptRecord:
        record = None
    if type(record) is not LogOpened:
        raise LogDiverged(
            f"{topic} [{partition}] does not begin with the record that opens a log: something else writes to this "
            "topic, or its head was cut off; choose another prefix, or restore it from a copy"
        )
    if record.format > LOG_FORMAT:
        raise NewerFormat(
            f"{topic} [{partition}] has log format {record.format}, this release reads up to {LOG_FORMAT}: upgrade "
            "ccs-stream"
        )
    return record


def _partitions(clients: Clients, there: Mapping[str, Topic], wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise UsageError(f"a log has at least one partition, not {wanted}")
    for each in (clients.names.log, clients.names.commands):
        if each in there:
            have = there[each].partitions
            if wanted is not None and wanted != have:
                raise UsageError(
                    f"{each} has {have} partitions, and {wanted} were asked for: the number cannot change, because a "
                    "workspace's partition follows from it. Make a new log under another prefix instead"
                )
            return have
    return wanted or DEFAULT_PARTITIONS


def _brokers(clients: Clients) -> int:
    """The number of brokers. `describe_cluster` tells it too, but aborts the process while a broker is starting."""
    try:
        return len(clients.admin.list_topics(timeout=_timeout(clients)).brokers)
    except KafkaException as error:
        clients.raise_if_permanent("asking which brokers there are")
        raise translated(error, "asking which brokers there are", clients.connection) from error


def _refuse_lost_log(clients: Clients, reader: TopicReader, partitions: Iterable[int]) -> None:
    commands = clients.names.commands
    if any(reader.bounds(commands, partition)[1] for partition in partitions):
        raise LogDiverged(
            f"{clients.names.log} holds nothing, and {commands} holds commands of a log that was: it was deleted. "
            "Restore it from a copy, or delete all topics of this prefix to begin anew"
        )


def _create(clients: Clients, missing: list[TopicRequirement], partitions: int, replication: int) -> list[str]:
    if not missing:
        return []
    made = [NewTopic(each.name, partitions, replication, config=each.config(replication)) for each in missing]
    futures = clients.admin.create_topics(made, operation_timeout=_timeout(clients))
    done: list[str] = []
    for each in missing:
        try:
            futures[each.name].result()
        except KafkaException as error:
            first: Any = error.args[0]
            if first.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise translated(error, f"making {each.name}", clients.connection) from error
            done.append(f"found {each.name}, made by another process meanwhile")
        else:
            done.append(f"made {each.name}: {partitions} partitions, {replication} copies ({each.purpose})")
    return done


def _until_described(clients: Clients) -> dict[str, Topic]:
    """Wait until the broker describes all topics; it does not know them at once when they have been made."""
    deadline = time.monotonic() + _timeout(clients)
    while True:
        there = describe(clients, settings=False)
        if len(there) == len(required_topics(clients)):
            return there
        if time.monotonic() > deadline:
            missing = ", ".join(each.name for each in required_topics(clients) if each.name not in there)
            raise LogMissing(f"the broker does not know topics that were just made: {missing}; ask again in a moment")
        time.sleep(0.1)


def _open_log(clients: Clients, reader: TopicReader, log: Topic) -> int:
    opened = LogOpened(
        log_id=LogId(log.topic_id),
        shards=log.partitions,
        partitioner=PARTITIONER,
        format=LOG_FORMAT,
        opened_at=Micros(time.time_ns() // 1_000),
    )
    value = DEFAULT_CODEC.encode_record(opened)
    appender, count = Appender(clients), 0
    try:
        for partition in range(log.partitions):
            if reader.bounds(log.name, partition)[1] == 0:
                _refuse_lost_log(clients, reader, [partition])
                appender.append(log.name, partition, [(None, value)])
                count += 1
    finally:
        appender.close()
    return count


def _uuid_bytes(topic_id: Any) -> bytes:
    high, low = topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits()
    return int(high % (1 << 64)).to_bytes(8, "big") + int(low % (1 << 64)).to_bytes(8, "big")


def _timeout(clients: Clients) -> float:
    return clients.settings.timeout_s
