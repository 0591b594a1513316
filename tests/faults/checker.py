"""An independent judge of a run: it compares the raw records of the log with the answers that clients wrote down.

Guarantees: knows nothing of the product but its schemas and the rules written down here, once more: which records are
facts, and what an acknowledged write, a read and an unknown outcome promise. Each violation is a sentence that names
the place. Does not: repair, and does not trust any other reader of the log.
"""

import hashlib
import itertools
import json
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tests.faults.history import Operation

_SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "log"
_MARKER: Final = b"\xc3\x01"
_PREFIX_BYTES: Final = 10
_READ_TIMEOUT_S: Final = 30.0
_WITHOUT_EFFECT: Final = ("CommandAnswered", "CommandRefused")
"""A repeat is answered, or refused once its session has ended: that is no second decision."""
NOBODY: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Raw:
    """One message of the log."""

    offset: int
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One version, as an admitted decision made it."""

    workspace: str
    key: str
    agent: str
    version: int
    sequence: int
    last_sequence: int
    """Of the decision, and so of the position its author was given."""
    offset: int
    value: Any


@dataclass(slots=True)
class Facts:
    """The history of a workspace as the log has it."""

    violations: list[str] = field(default_factory=list)
    void: Counter[str] = field(default_factory=Counter)
    writes: list[Write] = field(default_factory=list)
    admitted: int = 0
    claims: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Last sequence of each workspace."""


@dataclass(slots=True)
class Report:
    """The result of a run."""

    violations: list[str] = field(default_factory=list)
    acknowledged: int = 0
    unknown: int = 0
    landed: int = 0
    """Those of unknown outcome that are in the log."""
    lost: int = 0
    twice: int = 0
    reads: int = 0
    void: Counter[str] = field(default_factory=Counter)


# Bytes.


def _codec() -> dict[bytes, tuple[str, Any]]:
    found: dict[bytes, tuple[str, Any]] = {}
    for path in (*sorted(_SCHEMAS.glob("*.avsc")), *sorted(_SCHEMAS.glob("superseded/*.avsc"))):
        source = json.loads(path.read_text())
        prefix = _MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(source), "CRC-64-AVRO"))
        found[prefix] = (str(source["name"]), fastavro.parse_schema(source, named_schemas={}))
    return found


CODEC: Final = _codec()
_BODIES: Final = fastavro.parse_schema({"type": "array", "items": "bytes"})


def encode(name: str, fields: dict[str, Any]) -> bytes:
    """A record of the log; for tests that craft one."""
    prefix, schema = next((prefix, schema) for prefix, (known, schema) in CODEC.items() if known == name)
    out = BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, schema, fields)
    return out.getvalue()


def decode(value: bytes | None) -> tuple[str, dict[str, Any]] | None:
    """Name and fields of a record; None for what is none."""
    if value is None or value[:_PREFIX_BYTES] not in CODEC:
        return None
    name, schema = CODEC[value[:_PREFIX_BYTES]]
    source = BytesIO(value)
    source.seek(_PREFIX_BYTES)
    try:
        fields: Any = fastavro.schemaless_reader(source, schema, None)
    except Exception:  # noqa: BLE001  # what its C code meets on garbage is of many kinds
        return None
    return (name, fields) if source.tell() == len(value) else None


def chained(value: bytes, contents: Sequence[bytes]) -> bytes:
    """The hash of a decision up to its contents, which the next decision of the workspace must name."""
    tail = BytesIO()
    fastavro.schemaless_writer(tail, _BODIES, list(contents))
    return hashlib.sha256(value[: len(value) - len(tail.getvalue())]).digest()


# Which records are facts.


class Partition:
    """Judges one partition's records, in order."""

    def __init__(self, number: int, facts: Facts) -> None:
        self._where = f"partition {number}"
        self._facts = facts
        self._log_id: bytes | None = None
        self._epoch, self._leader, self._index, self._resigned = 0, NOBODY, 0, False
        self._leaders: dict[int, bytes] = {0: NOBODY}
        self._deciders: dict[int, set[bytes]] = defaultdict(set)
        self._ends: dict[str, int] = {}
        self._hashes: dict[str, bytes] = {}
        self._versions: dict[tuple[str, bytes], int] = {}
        self._keys: dict[tuple[str, bytes], str] = {}
        self._agents: dict[tuple[str, int], str] = {}
        self._decided: dict[tuple[str, bytes, int], int] = {}

    def take(self, raw: Raw) -> str:
        """Judge one record: `admitted`, or why it is void."""
        record = decode(raw.value)
        if record is None:
            verdict = "foreign"
            if self._log_id is None:
                self._say(f"offset {raw.offset} is no record, and the log has not begun")
        else:
            name, fields = record
            verdict = self._judge(name, fields)
            if name == "Decision":
                self._deciders[fields["epoch"]].add(fields["leader_id"])
                if verdict == "admitted":
                    self._decision(raw, fields)
        if verdict == "admitted":
            self._facts.admitted += 1
        else:
            self._facts.void[verdict] += 1
        if verdict == "sequence_gap":
            self._say(f"offset {raw.offset}: the leader of epoch {self._epoch} left a gap in a workspace's sequences")
        return verdict

    def _judge(self, name: str, fields: dict[str, Any]) -> str:
        if self._log_id is None:
            if name != "LogOpened":
                self._say(f"the log begins with a {name}")
            self._log_id = fields.get("log_id", NOBODY)
            return "admitted"
        if name == "LeaderClaimed":
            if fields["log_id"] != self._log_id or fields["epoch"] != self._epoch + 1:
                return "epoch_not_next"
            self._epoch, self._leader, self._index, self._resigned = fields["epoch"], fields["leader_id"], 0, False
            if self._leader in self._leaders.values():
                self._say(f"the leader of epoch {self._epoch} has led before, under the same id")
            self._leaders[self._epoch] = self._leader
            self._facts.claims += 1
            return "admitted"
        current = (fields.get("epoch"), fields.get("leader_id")) == (self._epoch, self._leader) and not self._resigned
        if name == "LeaderResigned":
            self._resigned = self._resigned or current
            return "admitted" if current else "not_leader"
        if name != "Decision":
            return "reopened"
        if not current:
            return "old_epoch" if fields["epoch"] != self._epoch else "not_leader"
        if fields["index"] != self._index + 1:
            return "index_gap"
        return "admitted" if fields["first_sequence"] == self._ends.get(fields["workspace"], 0) + 1 else "sequence_gap"

    def _decision(self, raw: Raw, fields: dict[str, Any]) -> None:
        """Take an admitted decision."""
        assert raw.value is not None
        workspace, first = fields["workspace"], fields["first_sequence"]
        where = f"{workspace} sequence {first} (offset {raw.offset})"
        self._index = fields["index"]
        if fields["prev_hash"] != self._hashes.get(workspace, bytes(32)):
            self._say(f"{where}: the hash chain breaks")
        self._hashes[workspace] = chained(raw.value, fields["contents"])
        events = [decode(each) for each in fields["events"]]
        last = self._ends[workspace] = first + len(events) - 1
        self._facts.ends[workspace] = last
        if fields["number"] and any(event is not None and event[0] not in _WITHOUT_EFFECT for event in events):
            asked = (workspace, fields["session_id"], fields["number"])
            if asked in self._decided:
                self._say(
                    f"{where}: command {asked[2]} of a session was decided twice, first at {self._decided[asked]}"
                )
            self._decided[asked] = first
        for number, event in enumerate(events):
            if event is None:
                self._say(f"{where}: an event that cannot be read")
            else:
                self._event(raw, fields, first + number, event)

    def _event(self, raw: Raw, fields: dict[str, Any], sequence: int, event: tuple[str, dict[str, Any]]) -> None:
        name, said = event
        workspace = fields["workspace"]
        if name == "ParticipantJoined":
            self._agents[workspace, said["participant"]] = said["agent"]
        elif name == "ArtifactRegistered":
            self._keys[workspace, said["artifact"]] = said["key"]
        elif name in ("WriteCommitted", "ArtifactDeleted"):
            artifact = (workspace, said["artifact"])
            if said["version"] != self._versions.get(artifact, 0) + 1:
                self._say(
                    f"{workspace} sequence {sequence}: version {said['version']} of {self._keys.get(artifact)!r} "
                    f"follows {self._versions.get(artifact, 0)}"
                )
            self._versions[artifact] = said["version"]
            if name == "WriteCommitted":
                index = said["content_index"]
                write = Write(
                    workspace=workspace,
                    key=self._keys.get(artifact, "?"),
                    agent=self._agents.get((workspace, said["participant"]), "?"),
                    version=said["version"],
                    sequence=sequence,
                    last_sequence=self._ends[workspace],
                    offset=raw.offset,
                    value=None if index is None else _parsed(fields["contents"][index]),
                )
                self._facts.writes.append(write)

    def end(self) -> None:
        """All records were taken: what can be said only now."""
        for epoch, deciders in self._deciders.items():
            strangers = deciders - {self._leaders.get(epoch)}
            if strangers:
                self._say(f"two leaders in epoch {epoch}: {len(strangers)} decided in it and did not lead it")

    def _say(self, violation: str) -> None:
        self._facts.violations.append(f"{self._where}: {violation}")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def facts_of(partitions: Iterable[Sequence[Raw]]) -> Facts:
    """The histories in the records of all partitions."""
    facts = Facts()
    for number, records in enumerate(partitions):
        partition = Partition(number, facts)
        for raw in records:
            partition.take(raw)
        partition.end()
    return facts


def read_topic(bootstrap_servers: str, topic: str) -> list[list[Raw]]:
    """Every message of every partition, to where it ends now."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "checker", "auto.offset.reset": "error", "log_level": 3}
    )
    try:
        known = consumer.list_topics(topic, timeout=_READ_TIMEOUT_S).topics[topic].partitions
        found: list[list[Raw]] = []
        for number in sorted(known):
            low, high = _bounds(consumer, TopicPartition(topic, number))
            records: list[Raw] = []
            if low < high:
                consumer.assign([TopicPartition(topic, number, low)])
            at = low
            while at < high:
                messages = consumer.consume(min(high - at, 1_000), _READ_TIMEOUT_S)
                assert messages, f"{topic} [{number}] cannot be read beyond offset {at} of {high}"
                for message in messages:
                    assert message.error() is None, message.error()
                    at = (message.offset() or 0) + 1
                    if at <= high:
                        value: Any = message.value()
                        records.append(Raw(at - 1, value))
            found.append(records)
        return found
    finally:
        consumer.close()


def _bounds(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Where a partition begins and ends; a broker that has just come back may not know it for a moment."""
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=_READ_TIMEOUT_S)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return int(low), int(high)


# What was promised.


class _Versions:
    """Which version of an artifact there was at a sequence."""

    def __init__(self, writes: Iterable[Write]) -> None:
        self._sequences: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._writes: dict[tuple[str, str], list[Write]] = defaultdict(list)
        for write in sorted(writes, key=lambda each: each.sequence):
            self._sequences[write.workspace, write.key].append(write.sequence)
            self._writes[write.workspace, write.key].append(write)

    def at(self, workspace: str, key: str, sequence: int) -> int:
        """The version then; 0 for none."""
        place = bisect_right(self._sequences[workspace, key], sequence)
        return self._writes[workspace, key][place - 1].version if place else 0

    def value(self, workspace: str, key: str, version: int) -> Any:
        writes = self._writes[workspace, key]
        return writes[version - 1].value if 0 < version <= len(writes) else None


class _Floor:
    """The highest version that any client knew when a call began."""

    def __init__(self) -> None:
        self._known: list[tuple[float, int]] = []
        self._times: list[float] = []
        self._highest: list[int] = []

    def add(self, at: float, version: int) -> None:
        self._known.append((at, version))

    def before(self, at: float) -> int:
        if len(self._times) != len(self._known):
            self._known.sort()
            self._times = [time for time, _ in self._known]
            self._highest = list(itertools.accumulate((version for _, version in self._known), max))
        place = bisect_left(self._times, at)
        return self._highest[place - 1] if place else 0


def check(facts: Facts, operations: Sequence[Operation]) -> Report:
    """Hold a log against the histories of all clients that used it."""
    report = Report(violations=list(facts.violations), void=facts.void)
    by_operation: dict[str, list[Write]] = defaultdict(list)
    for write in facts.writes:
        by_operation[write.value["op"] if isinstance(write.value, dict) and "op" in write.value else "?"].append(write)
    for operation in operations:
        if operation.outcome == "bug":
            report.violations.append(f"{_name(operation)} raised {operation.error}: {operation.said}")
        if operation.kind != "read":
            _check_write(report, operation, by_operation.get(operation.id, []))
    known = {operation.id for operation in operations}
    for stranger in by_operation.keys() - known:
        report.violations.append(f"{len(by_operation[stranger])} writes of {stranger!r} that no history asks for")
    _check_counters(report, facts, operations)
    _check_reads(report, facts, operations)
    return report


def _name(operation: Operation) -> str:
    return f"{operation.kind} {operation.id} of {operation.key!r} in {operation.workspace}"


def _check_write(report: Report, operation: Operation, found: Sequence[Write]) -> None:
    if len(found) > 1:
        report.twice += 1
        places = ", ".join(str(each.sequence) for each in found)
        report.violations.append(f"{_name(operation)} was applied {len(found)} times, at {places}")
    if operation.outcome == "ok":
        report.acknowledged += 1
        if not found:
            report.lost += 1
            report.violations.append(f"{_name(operation)} was acknowledged as version {operation.version} and is lost")
        for write in found[:1]:
            have = (write.key, write.version, write.last_sequence, write.agent)
            said = (operation.key, operation.version, operation.sequence, operation.agent)
            if have != said:
                report.violations.append(f"{_name(operation)} was acknowledged as {said} and is in the log as {have}")
    elif operation.outcome == "fail":
        if found:
            report.violations.append(f"{_name(operation)} failed ({operation.error}) and is in the log")
    else:
        report.unknown += 1
        report.landed += len(found) > 0


def _check_counters(report: Report, facts: Facts, operations: Sequence[Operation]) -> None:
    """Guarded increments lose nothing: the counter is as high as there were increments that reached the log."""
    counters = {(each.workspace, each.key) for each in operations if each.kind == "increment"}
    counted: dict[tuple[str, str], list[int]] = defaultdict(list)
    for write in sorted(facts.writes, key=lambda each: each.sequence):
        if (write.workspace, write.key) in counters:
            counted[write.workspace, write.key].append(write.value["n"])
    for (workspace, key), numbers in counted.items():
        if numbers != list(range(1, len(numbers) + 1)):
            at = next(place for place, number in enumerate(numbers) if number != place + 1)
            report.violations.append(f"{workspace}: increment {at + 1} of {key!r} made it {numbers[at]}: a lost update")


def _check_reads(report: Report, facts: Facts, operations: Sequence[Operation]) -> None:
    versions = _Versions(facts.writes)
    session: dict[tuple[str, str, str], _Floor] = defaultdict(_Floor)
    own: dict[tuple[str, str, str], _Floor] = defaultdict(_Floor)
    anybody: dict[tuple[str, str], _Floor] = defaultdict(_Floor)
    done = [each for each in operations if each.outcome == "ok" and each.ended_at is not None]
    for each in done:
        assert each.ended_at is not None
        session[each.process, each.workspace, each.key].add(each.ended_at, each.version)
        anybody[each.workspace, each.key].add(each.ended_at, each.version)
        if each.kind != "read":
            own[each.process, each.workspace, each.key].add(each.ended_at, each.version)
    for read in done:
        if read.kind != "read":
            continue
        report.reads += 1
        where = (read.process, read.workspace, read.key)

        def say(what: str, read: Operation = read) -> None:
            report.violations.append(f"{_name(read)} ({read.freshness}) gave version {read.version}: {what}")

        if read.version and versions.value(read.workspace, read.key, read.version) != read.seen:
            say("not the value of that version in the log")
        if read.sequence is not None:
            there = versions.at(read.workspace, read.key, read.sequence)
            if there != read.version:
                say(f"at sequence {read.sequence}, which it says it is valid at, there was version {there}")
        if read.version < (floor := session[where].before(read.invoked_at)):
            say(f"its session had seen version {floor} before")
        if read.freshness != "local" and read.version < (floor := own[where].before(read.invoked_at)):
            say(f"its own process had written version {floor} before")
        if read.freshness == "latest" and read.version < (floor := anybody[where[1:]].before(read.invoked_at)):
            say(f"version {floor} was in the log before it began")
        if read.asked is not None:
            if read.version < (floor := versions.at(read.workspace, read.key, read.asked)):
                say(f"version {floor} was there at sequence {read.asked}, which was asked for")
            if read.sequence is not None and read.sequence < read.asked:
                say(f"it is valid at sequence {read.sequence}, and {read.asked} was asked for")


# How long.


def longest_gap_s(operations: Iterable[Operation]) -> float:
    """The longest time in which some workspace took no write."""
    times: dict[str, list[float]] = defaultdict(list)
    for each in operations:
        if each.kind != "read" and each.outcome == "ok" and each.ended_at is not None:
            times[each.workspace].append(each.ended_at)
    gaps = [later - earlier for those in times.values() for earlier, later in itertools.pairwise(sorted(those))]
    return max(gaps, default=0.0)
