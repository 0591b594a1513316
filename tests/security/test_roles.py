"""Each role of docs/kafka.md with exactly its ACLs: they suffice, and none of them is there for nothing.

The broker is real, and so are its authorizer, its users and their passwords.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AclOperation,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.cli.kafka.doctor import doctor
from ccs_stream.coordinator.kafka.remote import RemoteCoordinator
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.kafka.topic_check import Severity, check_topics
from ccs_stream.log.port import SnapshotBlob
from ccs_stream.protocol.errors import NotAuthorised
from ccs_stream.protocol.ids import SequenceNumber
from ccs_stream.replay.app import cli as replay
from ccs_stream.testing.broker import Broker
from tests.kafka import CoordinatorProcess
from tests.security.secured import (
    CREATE,
    PASSWORD,
    STRANGER,
    TABLE,
    R,
    W,
    add_user,
    allow,
    binding,
    bindings,
    kind_of,
    scram,
)

pytestmark = pytest.mark.kafka

BIG = "x" * 200_000
"""Too large to travel in its decision."""
Log = tuple[Broker, str]
"""A broker, and the prefix of a log on it."""


def url_of(log: Log, options: str = "") -> str:
    broker, prefix = log
    return f"kafka://{broker.listener('SCRAM')}?prefix={prefix}&timeout_s=10{options}"


def config(folder: Path, user: str) -> Path:
    """The properties file of a user."""
    file = folder / f"{user}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in scram(user).items()), "utf-8")
    return file


@pytest.fixture(scope="module")
def log(secured: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log that the admin's user made and the coordinator's user coordinates; every role has its user."""
    prefix = f"roles-{uuid.uuid4().hex[:8]}"
    for role in TABLE:
        allow(secured, bindings(prefix, role, role))
    made = (secured, prefix)
    admin = Clients(KafkaSettings.parse(url_of(made), scram("admin")))
    assert len(topics.create(admin, partitions=1)) == 6
    assert not [each for each in check_topics(admin) if each.severity is Severity.DANGEROUS]
    file = config(tmp_path_factory.mktemp("coordinator"), "coordinator")
    coordinator = CoordinatorProcess(url_of(made, f"&config={file}")).wait_ready()
    yield made
    said = coordinator.said
    assert coordinator.stop() == 0
    assert "WARNING" not in said


@pytest.fixture
def user(secured: Broker) -> str:
    """A user of this test's own."""
    name = f"user-{uuid.uuid4().hex[:8]}"
    add_user(secured, name)
    return name


# What suffices.


def test_a_store_works_as_client(log: Log) -> None:
    store = CoherentStore(url_of(log, "&coordinator=remote"), workspace="w", kafka=scram("client"))
    try:
        store.put(("shared",), "plan", {"step": 1})
        store.put(("shared",), "big", {"text": BIG})
        store.put(("shared",), "plan", {"step": 2})
        found = store.get(("shared",), "big")
        assert found is not None
        assert found.value == {"text": BIG}
        assert len(store.search(("shared",))) == 2
        store.delete(("shared",), "plan")
        assert store.get(("shared",), "plan") is None
    finally:
        store.close()


def test_replay_and_doctor_work_as_reader(log: Log, tmp_path: Path) -> None:
    with ccs_stream.connect(url_of(log, "&coordinator=remote"), workspace="r", kafka=scram("client")) as workspace:
        workspace.agent("a").write("big", BIG)
    url = url_of(log, f"&config={config(tmp_path, 'reader')}")
    verified = CliRunner().invoke(replay, ["-w", "r", url, "verify"])
    assert verified.exit_code == 0, verified.output
    assert "bodies checked" in verified.output
    reading = KafkaLog(KafkaSettings.parse(url), read_only=True)
    assert len(list(reading.read_deliveries("r"))) == 1
    reading.close()
    examined = CliRunner().invoke(doctor, [url])
    assert examined.exit_code == 0, examined.output
    assert "this user can be: reader" in examined.output
    assert "Write on" in examined.output


def test_doctor_says_what_a_stranger_may_not(log: Log, tmp_path: Path) -> None:
    examined = CliRunner().invoke(doctor, [url_of(log, f"&config={config(tmp_path, STRANGER)}"), "--json"])
    assert examined.exit_code == 1
    checks = {(each["check"], each["level"]): each for each in json.loads(examined.stdout)["checks"]}
    assert checks["rights", "FAILED"]["found"] == "this user may not read the log"
    assert checks["rights", "warning"]["found"] == "this user can play no role"
    assert f"as user {STRANGER}" in checks["connection", "ok"]["found"]
    assert f"describing {log[1]}.commands.v1: this user may not" in checks["log", "FAILED"]["found"]


def test_doctor_says_what_a_coordinator_may_and_does_not_see(log: Log, tmp_path: Path) -> None:
    examined = CliRunner().invoke(doctor, [url_of(log, f"&config={config(tmp_path, 'coordinator')}"), "--json"])
    assert examined.exit_code == 0, examined.output
    checks = json.loads(examined.stdout)["checks"]
    said = [each["found"] for each in checks if each["check"] == "rights"]
    assert said[0] == "this user can be: coordinator (ccs-stream coordinator; with client, an embedded one)"
    assert any(f"Write on {log[1]}.commands.v1" in each for each in said)
    assert any("1 dedicated" in each["found"] for each in checks)
    unseen = [each for each in checks if "DescribeConfigs" in each["advice"]]
    assert {each["check"] for each in unseen} == {"topics", "broker limits"}
    assert {each["level"] for each in unseen} == {"warning"}


def test_a_coordinator_keeps_snapshots_and_its_successor_begins_with_them(log: Log) -> None:
    url = url_of(log, "&coordinator=remote")
    offsets = []
    with ccs_stream.connect(url, workspace="s", kafka=scram("client")) as workspace:
        for turn in range(2):
            service = CoordinatorService(KafkaLog(KafkaSettings.parse(url_of(log), scram("coordinator"))))
            service.start()
            shard = service.follower.shards[0]
            offsets.append(shard.reader.offset - shard.unsaved)
            deadline = time.monotonic() + 15
            while not service.follower._snapshots.keep(shard):
                # One is taken behind a decision, and what came last was a claim.
                assert time.monotonic() < deadline
                workspace.agent("a").write("k", turn)
            service.close()
    assert offsets[1] > offsets[0]


def test_an_embedded_coordinator_needs_both(log: Log, user: str) -> None:
    broker, _ = log
    prefix = f"embedded-{uuid.uuid4().hex[:8]}"
    topics.create(Clients(KafkaSettings.parse(f"kafka://{broker.bootstrap_servers}?prefix={prefix}")), partitions=1)
    allow(broker, {*bindings(prefix, user, "client"), *bindings(prefix, user, "coordinator")})
    with ccs_stream.connect(url_of((broker, prefix)), workspace="w", kafka=scram(user)) as workspace:
        workspace.agent("a").write("k", BIG)
        assert isinstance(workspace.coordinator, RemoteCoordinator)
        assert workspace.coordinator.leads


def test_a_warehouse_reads_audit_topics_and_nothing_else(log: Log) -> None:
    broker, prefix = log
    plain = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    plain.create_topics([NewTopic(f"{prefix}.audit.events.v1", 1, 1)])[f"{prefix}.audit.events.v1"].result()
    prefixed = ResourcePatternType.PREFIXED
    allow(
        broker,
        [
            binding("warehouse", AclOperation.READ, ResourceType.TOPIC, f"{prefix}.audit.", prefixed),
            binding("warehouse", AclOperation.READ, ResourceType.GROUP, f"{prefix}.warehouse"),
        ],
    )
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    producer.produce(f"{prefix}.audit.events.v1", b"row")
    assert producer.flush(10) == 0
    assert consumed(broker, "warehouse", f"{prefix}.warehouse", f"{prefix}.audit.events.v1") == b"row"
    assert consumed(broker, "warehouse", f"{prefix}.warehouse", f"{prefix}.log.v1") == denied()


def denied() -> int:
    code: int = KafkaError.TOPIC_AUTHORIZATION_FAILED
    return code


def consumed(broker: Broker, user: str, group: str, topic: str) -> bytes | int | None:
    """What a plain consumer gets: the first message, or the code of an error."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.listener("SCRAM"),
            "group.id": group,
            "auto.offset.reset": "earliest",
            **scram(user),
        }
    )
    consumer.subscribe([topic])
    deadline = time.monotonic() + 20
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            return message.value() if error is None else error.code()
    finally:
        consumer.close()
    return None


# An agent's claim to a name is only as good as these.


@pytest.mark.parametrize(
    ("who", "where"),
    [("client", "log.v1"), ("client", "snapshots.v1"), ("reader", "commands.v1"), ("reader", "log.v1")],
)
def test_who_may_not_write_there_cannot_with_a_producer_of_its_own(log: Log, who: str, where: str) -> None:
    broker, prefix = log
    failed: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": broker.listener("SCRAM"), "message.timeout.ms": 10_000, **scram(who)})
    producer.produce(f"{prefix}.{where}", b"forged", on_delivery=lambda error, _: failed.append(error))
    producer.flush(15)
    assert failed[0] is not None
    assert failed[0].code() == denied()


def test_a_client_cannot_join_the_coordinators(log: Log) -> None:
    broker, prefix = log
    refused = consumed(broker, "client", f"{prefix}.coordinators", f"{prefix}.commands.v1")
    assert refused in (KafkaError.GROUP_AUTHORIZATION_FAILED, denied())


# What is missing is named.


def lacking(role: str) -> list[Any]:
    """Every single ACL of a role."""
    return [
        pytest.param(where, operation, id=f"{role}-{where}-{operation.name}")
        for where, operations in TABLE[role].items()
        for operation in operations
    ]


def allow_all_but(log: Log, user: str, role: str, where: str, operation: AclOperation) -> None:
    broker, prefix = log
    missing = binding(user, operation, kind_of(where), f"{prefix}.{where}")
    rest = [each for each in bindings(prefix, user, role) if each != missing]
    assert len(rest) == len(bindings(prefix, user, role)) - 1
    allow(broker, rest)


def is_refused(log: Log, where: str, do: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(NotAuthorised) as caught:
        do()
    assert f"{log[1]}.{where}" in str(caught.value)
    assert "this user may not" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(("where", "operation"), lacking("client"))
def test_a_client_that_lacks_one(log: Log, user: str, where: str, operation: AclOperation) -> None:
    allow_all_but(log, user, "client", where, operation)

    def work() -> None:
        url = url_of(log, "&coordinator=remote")
        with ccs_stream.connect(url, workspace="lacking", kafka=scram("client")) as allowed:
            allowed.agent("a").write("big", BIG)
        with ccs_stream.connect(url, workspace="lacking", kafka=scram(user)) as workspace:
            workspace.agent("a").read("big")
            workspace.agent("a").write("other", BIG)

    is_refused(log, where, work)


@pytest.mark.parametrize(("where", "operation"), lacking("reader"))
def test_a_reader_that_lacks_one(log: Log, user: str, where: str, operation: AclOperation) -> None:
    allow_all_but(log, user, "reader", where, operation)
    with ccs_stream.connect(url_of(log, "&coordinator=remote"), workspace="x", kafka=scram("client")) as allowed:
        allowed.agent("a").write("big", BIG)

    def read() -> None:
        store = KafkaLog(KafkaSettings.parse(url_of(log), scram(user)), read_only=True)
        assert len(store.workspaces()) > 0
        assert list(store.snapshots("x")) == []
        store.get_content(b"0:0:1:00")

    is_refused(log, where, read)


@pytest.mark.parametrize(("where", "operation"), lacking("coordinator"))
def test_a_coordinator_that_lacks_one(
    log: Log, user: str, where: str, operation: AclOperation, caplog: pytest.LogCaptureFixture
) -> None:
    allow_all_but(log, user, "coordinator", where, operation)
    settings = KafkaSettings.parse(url_of(log), scram(user))
    if (where, operation) == ("snapshots.v1", W):
        blob = SnapshotBlob(snapshot_id="s", sequence=SequenceNumber(1), data=b"")
        is_refused(log, where, lambda: KafkaLog(settings).save_snapshot("w", blob))
        return

    def coordinate() -> None:
        service = CoordinatorService(KafkaLog(settings))
        try:
            service.start()
            deadline = time.monotonic() + 6
            while time.monotonic() < deadline:  # what it hears later, it says in its log
                said = next((each for each in caplog.messages if "this user may not" in each), None)
                if said is not None:
                    raise NotAuthorised(said)
                time.sleep(0.05)
        finally:
            service.close()

    with caplog.at_level(logging.WARNING):
        if (where, operation) == ("log.v1", W):
            alone(log, user, caplog)
        elif where == "coordinators":
            with pytest.raises(NotAuthorised, match=r"this user may not.*Group.*Read on \S+\.coordinators"):
                coordinate()
        else:
            is_refused(log, where, coordinate)


def alone(log: Log, user: str, caplog: pytest.LogCaptureFixture) -> None:
    """To find that it may not write the log, it must be told to lead: nobody else is to be there."""
    broker, _ = log
    prefix = f"alone-{uuid.uuid4().hex[:8]}"
    topics.create(Clients(KafkaSettings.parse(f"kafka://{broker.bootstrap_servers}?prefix={prefix}")), partitions=1)
    other = (broker, prefix)
    allow_all_but(other, user, "coordinator", "log.v1", W)
    service = CoordinatorService(KafkaLog(KafkaSettings.parse(url_of(other), scram(user))))
    try:
        service.start()
        deadline = time.monotonic() + 15
        while "cannot be led from here" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert f"appending to {prefix}.log.v1 [0]: this user may not" in caplog.text
        assert not service.ready
    finally:
        service.close()


@pytest.mark.parametrize(
    ("where", "operation"),
    [
        pytest.param("log.v1", CREATE, id="create a topic"),
        pytest.param("log.v1", W, id="open the log"),
        pytest.param("log.v1", R, id="look at it"),
    ],
)
def test_an_admin_that_lacks_one(secured: Broker, user: str, where: str, operation: AclOperation) -> None:
    log = (secured, f"admin-{uuid.uuid4().hex[:8]}")
    allow_all_but(log, user, "admin", where, operation)
    clients = Clients(KafkaSettings.parse(url_of(log), scram(user)))

    def make() -> None:
        topics.create(clients, partitions=1)
        topics.create(clients)
        KafkaLog(clients.settings)

    is_refused(log, where, make)


def test_a_stranger_is_told_which_topic_it_may_not_see(log: Log) -> None:
    is_refused(log, "commands.v1", lambda: ccs_stream.connect(url_of(log), workspace="w", kafka=scram(STRANGER)))
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": log[0].listener("SCRAM"), **scram("nobody")}).list_topics(timeout=2)
