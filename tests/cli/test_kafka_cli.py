"""`ccs-stream doctor` on logs that are as they must be, and on those that are not."""

import contextlib
import dataclasses
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

import ccs_stream
from ccs_stream.cli import main
from ccs_stream.cli.kafka import doctor_broker, doctor_checks
from ccs_stream.cli.kafka.doctor_report import Level
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.broker_versions import broker_release, is_unsupported
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import Position
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.protocol.commands import Open
from ccs_stream.protocol.ids import CommandNumber, SessionId
from ccs_stream.protocol.settings import DEFAULT_SETTINGS
from ccs_stream.testing.broker import Broker
from tests.kafka import CoordinatorProcess, make_topics


@dataclasses.dataclass
class Found:
    """What doctor printed as JSON."""

    exit_code: int
    document: dict[str, Any]

    def of(self, check: str, level: str | None = None) -> list[str]:
        return [
            f"{each['found']} {each['advice']}"
            for each in self.document["checks"]
            if each["check"] == check and level in (None, each["level"])
        ]

    @property
    def failed(self) -> set[str]:
        return {each["check"] for each in self.document["checks"] if each["level"] == "FAILED"}


def examine(url: str, *options: str) -> Found:
    done = CliRunner().invoke(main, ["doctor", url, "--json", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Found(done.exit_code, json.loads(done.stdout))


@pytest.fixture
def url(kafka_broker: Broker, kafka_prefix: str) -> str:
    url = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}"
    make_topics(url, 2)
    return url


def store_of(url: str) -> KafkaLog:
    return KafkaLog(KafkaSettings.parse(url))


def wait_command(url: str) -> int:
    """Put a command in the topic that nobody decides; the partition it waits in."""
    store = store_of(url)
    command = Open(session_id=SessionId(uuid.uuid4().bytes), number=CommandNumber(1), settings=DEFAULT_SETTINGS)
    partition = store.partition("w")
    Appender(store.clients).append(store.names.commands, partition, [(b"w", encode_command("w", command))])
    return partition


@contextlib.contextmanager
def coordinated_log(broker: Broker) -> Iterator[str]:
    """A log with a dedicated coordinator and something in it."""
    url = f"kafka://{broker.bootstrap_servers}?prefix=doctor-{uuid.uuid4().hex[:8]}"
    make_topics(url, 2)
    coordinator = CoordinatorProcess(url).wait_ready()
    with ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace:
        for number in range(10):
            workspace.agent("a").write(f"k{number % 3}", number)
    yield url
    coordinator.stop()


@pytest.fixture(scope="module")
def coordinated(kafka_broker: Broker) -> Iterator[str]:
    with coordinated_log(kafka_broker) as url:
        yield url


@pytest.fixture
def coordinated_alone(kafka_broker: Broker) -> Iterator[str]:
    with coordinated_log(kafka_broker) as url:
        yield url


@pytest.mark.kafka
class TestOnABroker:
    def test_doctor_finds_nothing_wrong_with_a_healthy_log(self, coordinated: str) -> None:
        found = examine(coordinated)
        assert found.exit_code == 0
        assert found.document["ok"] is True
        assert found.failed == set()
        assert "1 broker, cluster " in found.of("connection", "ok")[0]
        assert "this user can be: reader" in found.of("rights", "ok")[0]
        assert "session time-outs of 6 to 1800 s" in found.of("broker limits", "ok")[0]
        assert "Kafka 4.1 or newer" in found.of("broker version", "ok")[0]
        assert "2 partitions" in found.of("log", "ok")[0]
        assert "2 of 2 partitions are led; 1 dedicated coordinators, 0 embedded" in found.of("leadership", "ok")[0]
        assert found.of("commands") == ["every command is decided "]
        assert "s ago by this machine's clock" in found.of("clock", "ok")[0]
        assert "no snapshots yet" in found.of("state", "ok")[0]
        rows = found.document["partitions"]
        assert [each["epoch"] for each in rows] == [1, 1]
        assert all("ccs-coordinator" in each["offered_by"][0] for each in rows)
        assert sum(each["workspaces"] for each in rows) == 1
        # One broker cannot hold three copies: said once, for all topics.
        assert len([said for said in found.of("topics", "warning") if said.startswith("replication is '1'")]) == 1

    def test_doctor_writes_nothing_and_joins_no_group(self, coordinated: str) -> None:
        store = store_of(coordinated)

        def all_of_it() -> object:
            ends = [store.bounds(name, partition) for name in store.names.all for partition in range(2)]
            groups = store.clients.admin.list_consumer_groups().result().valid
            theirs = sorted(each.group_id for each in groups if store.settings.prefix in each.group_id)
            described = store.clients.admin.describe_consumer_groups(theirs)
            return ends, [(name, len(each.result().members)) for name, each in described.items()]

        before = all_of_it()
        examine(coordinated)
        assert all_of_it() == before

    def test_doctor_prints_a_table_for_people(self, coordinated: str) -> None:
        done = CliRunner().invoke(main, ["doctor", coordinated])
        assert done.exit_code == 0
        assert "what to do" in done.output
        assert "every command is decided" in done.output
        assert "offered by" in done.output
        assert " warning" in done.output.splitlines()[-1]

    def test_a_log_that_is_not_there(self, kafka_broker: Broker, kafka_prefix: str) -> None:
        found = examine(f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}")
        assert found.exit_code == 1
        assert found.failed == {"topics", "log"}
        assert "run `ccs-stream topics create URL`" in found.of("topics", "FAILED")[0]
        assert "make the topics first" in found.of("rights", "warning")[0]

    def test_doctor_warns_when_nobody_leads(self, url: str) -> None:
        found = examine(url, "--quick")
        assert found.exit_code == 0
        assert "nobody offers to lead partitions 0-1; no command waits there" in found.of("leadership", "warning")[0]
        assert found.of("state") == ["not compared (--quick) "]
        partition = wait_command(url)
        found = examine(url, "--quick")
        assert found.exit_code == 1
        assert found.failed == {"leadership"}
        assert f"nobody offers to lead partition {partition}, and commands wait" in found.of("leadership", "FAILED")[0]
        assert f"not decided within 2 s: 1 in partition {partition}" in found.of("commands", "warning")[0]
        assert found.document["partitions"][partition]["undecided"] == 1

    def test_a_log_that_its_broker_will_cut(self, url: str) -> None:
        store = store_of(url)
        short = ConfigEntry("retention.ms", "1000000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, store.names.log, incremental_configs=[short])
        store.clients.admin.incremental_alter_configs([resource])[resource].result()
        found = examine(url, "--quick")
        assert found.failed == {"topics"}
        assert f"retention.ms is '1000000', should be '-1': {store.names.log}" in found.of("topics", "FAILED")[0]

    def test_a_session_time_out_that_brokers_do_not_allow(self, url: str) -> None:
        found = examine(f"{url}&session_timeout_s=2", "--quick")
        assert found.failed == {"broker limits"}
        assert "session_timeout_s is 2, and brokers allow 6 to 1800" in found.of("broker limits", "FAILED")[0]

    @pytest.mark.parametrize(("behind_s", "level"), [(10, "warning"), (100, "FAILED")])
    def test_a_clock_that_is_behind(
        self, coordinated: str, behind_s: int, level: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ccs_stream.connect(f"{coordinated}&coordinator=remote", workspace="w") as workspace:
            workspace.agent("a").write("k0", "now")
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - behind_s)
        found = examine(coordinated, "--quick")
        monkeypatch.undo()
        assert "in the future of this machine's clock" in found.of("clock", level)[0]
        assert found.exit_code == (1 if level == "FAILED" else 0)

    def test_something_that_is_no_record_of_this_release(self, url: str) -> None:
        store = store_of(url)
        later = b"\xc3\x01" + bytes(8) + b"x"
        Appender(store.clients).append(store.names.log, 1, [(None, later)])
        found = examine(url)
        assert found.failed == {"log"}
        assert "partition 1: " in found.of("log", "FAILED")[0]
        assert "later release" in found.of("log", "FAILED")[0]

    def test_snapshots_that_hold_and_one_that_does_not(self, coordinated_alone: str) -> None:
        service = CoordinatorService(store_of(coordinated_alone))
        try:
            service.start()
            store = service.store
            shard = service.follower.shards[store.partition("w")]
            with ccs_stream.connect(f"{coordinated_alone}&coordinator=remote", workspace="w") as workspace:
                workspace.agent("a").write("k", "behind it a snapshot may be taken")
                deadline = time.monotonic() + 10
                while not service.follower._snapshots.keep(shard):
                    assert time.monotonic() < deadline
                found = examine(coordinated_alone)
                assert found.failed == set()
                assert "1 workspaces: the state from the snapshots is the state computed" in found.of("state", "ok")[0]
                # A state with one artifact less, at the same place, and with its own hash right.
                workspace.agent("a").write("k", "again")
                end = store.end("w")
                while shard.reader.offset < end:
                    time.sleep(0.02)
                with shard.lock:
                    state = shard.states["w"]
                    dropped = next(iter(state.artifacts))
                    artifact = state.artifacts.pop(dropped)
                    cursor = shard.reader.cursor
                    here = cursor.end("w")
                    place = Position(store.log_id, "w", shard.reader.offset, here.sequence, here.hash)
                    for keys in state.existing.values():
                        keys.pop(artifact.key, None)
                    forged = take_snapshot(state, place, cursor=cursor)
                store.save_snapshot("w", forged)
        finally:
            service.close()
        found = examine(coordinated_alone)
        assert found.failed == {"state"}
        assert "'w': the state from a snapshot is not the state computed" in found.of("state", "FAILED")[0]
        assert examine(coordinated_alone, "--quick").exit_code == 0


# Without a broker.


def test_wrong_usage() -> None:
    done = CliRunner().invoke(main, ["doctor", "kafka://h?workspce=w"])
    assert done.exit_code == 2
    assert "did you mean 'workspace'" in done.output
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 2
    assert CliRunner().invoke(main, ["doctor", "sqlite:///team.db"]).exit_code == 2


def test_no_broker() -> None:
    found = examine("kafka://127.0.0.1:1?timeout_s=1")
    assert found.exit_code == 1
    assert [each["check"] for each in found.document["checks"]] == ["connection"]
    assert "no broker answers" in found.of("connection", "FAILED")[0]


def limits(brokers: int = 3, **found: str) -> list[tuple[str, str]]:
    settings = KafkaSettings.parse("kafka://h")
    named = {name.replace("_", "."): value for name, value in found.items()}
    return [(each.level, each.found) for each in doctor_broker._limits_in(named, settings, brokers=brokers)]


def test_the_limits_of_brokers_are_checked() -> None:
    assert [level for level, _ in limits()] == [Level.OK]
    assert limits(message_max_bytes="1000") == [(Level.WARNING, "message.max.bytes is 1000")]
    assert limits(auto_create_topics_enable="true") == [(Level.WARNING, "auto.create.topics.enable is true")]
    assert limits(group_initial_rebalance_delay_ms="3000")[0][0] == Level.OK
    assert limits(group_initial_rebalance_delay_ms="9000")[0][0] == Level.WARNING
    assert limits(offsets_topic_replication_factor="1")[0][0] == Level.WARNING
    assert limits(1, offsets_topic_replication_factor="1")[0][0] == Level.OK
    assert limits(group_max_session_timeout_ms="5000")[0][0] == Level.FAILED


def test_the_brokers_version_is_reported_only_if_known() -> None:
    fetch, describe_cluster, list_transactions, streams_heartbeat = 1, 60, 66, 88
    assert broker_release({}) is None
    assert broker_release({fetch: (0, 11)}) == "older than 2.8"
    assert broker_release({fetch: (0, 12), describe_cluster: (0, 0)}) == "2.8"
    assert broker_release({fetch: (0, 13), describe_cluster: (0, 0), list_transactions: (0, 0)}) == "3.0 to 3.6"
    assert broker_release({fetch: (0, 17), describe_cluster: (0, 1), list_transactions: (0, 1)}) == "3.7 to 3.9"
    assert broker_release({fetch: (4, 17), describe_cluster: (0, 2), list_transactions: (0, 1)}) == "4.0 or newer"
    assert broker_release({fetch: (4, 18), streams_heartbeat: (0, 0)}) == "4.1 or newer"
    assert [is_unsupported(each) for each in ("older than 2.8", "2.8", "3.0 to 3.6", "4.0 or newer")] == [
        True,
        True,
        False,
        False,
    ]


def test_partitions_are_named_in_runs() -> None:
    followed: Any = [dataclasses.make_dataclass("F", ["partition"])(number) for number in (0, 1, 2, 5, 7, 8)]
    assert doctor_checks._named(followed) == "partitions 0-2, 5, 7-8"
    assert doctor_checks._named(followed[:1]) == "partition 0"


def test_a_malformed_properties_file_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("hunter2\n")
    done = CliRunner().invoke(main, ["doctor", f"kafka://h?config={file}"])
    assert done.exit_code == 2
    assert "line 1 of" in done.output
    assert "hunter2" not in done.output
