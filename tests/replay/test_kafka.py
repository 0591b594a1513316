"""`ccs-replay` on Kafka: two workspaces in one partition, two leaders, a zombie and garbage; every command on it."""

import contextlib
import io
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

import ccs_stream
from ccs_stream import Workspace
from ccs_stream.log.envelope import chain_hash, encode_head
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.names import TopicNames
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.ids import DecisionIndex, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay import main
from ccs_stream.testing.broker import Broker
from tests.kafka import CoordinatorProcess, coordinated_log, make_topics
from tests.replay.conftest import Run, read_json
from tests.replay.test_follow import Following

pytestmark = pytest.mark.kafka

GARBAGE = b"something else writes here"
SECRET = "what only the other workspace knows"
COMMANDS: list[list[str]] = [
    ["info"],
    ["timeline", "--include-void", "--from", "-5"],
    ["state", "--at", "@2030-01-01"],
    ["artifact", "shared/plan"],
    ["verify"],
    ["export", "-o", "touched.avro"],
]


class Log:
    """What was made, and what came of it."""

    def __init__(self, broker: Broker) -> None:
        self.prefix = f"replay-{uuid.uuid4().hex[:12]}"
        self.url = f"kafka://{broker.bootstrap_servers}?prefix={self.prefix}"
        self.topic = TopicNames(self.prefix).log
        self.settings: dict[str, str | int | float | bool] = {"bootstrap.servers": broker.bootstrap_servers}
        self.state_hash = self.other_hash = ""
        make_topics(self.url, partitions=1)
        with contextlib.ExitStack() as stack:
            self._play(stack)
        # The shard ends with what is no decision of `w`.
        self.append(b"other", GARBAGE)

    def _coordinator(self, stack: contextlib.ExitStack) -> CoordinatorProcess:
        made = CoordinatorProcess(self.url)
        stack.callback(made.process.wait)
        stack.callback(made.process.kill)
        return made.wait_ready().wait_leading()

    def _play(self, stack: contextlib.ExitStack) -> None:
        first = self._coordinator(stack)
        with self.connect("w") as workspace, self.connect("other") as other:
            self._begin(workspace, other)
            first.stop()
            self._zombie("w")
            second = self._coordinator(stack)
            self.append(b"w", GARBAGE)
            self.append(None, b"")
            self._zombie("other")
            self._go_on(workspace, other)
            second.process.kill()  # before anybody leaves: what was hashed is the end
            second.process.wait()

    def connect(self, name: str) -> Workspace:
        return ccs_stream.connect(f"{self.url}&coordinator=remote", workspace=name, freshness="latest")

    def source(self, name: str = "w") -> str:
        return f"{self.url}&workspace={name}"

    def append(self, key: bytes | None, value: bytes) -> None:
        """As anybody can who may write to the topic."""
        producer = Producer(self.settings)
        producer.produce(self.topic, value, key, 0)
        assert producer.flush(10) == 0

    def _begin(self, workspace: Workspace, other: Workspace) -> None:
        planner, reviewer, stranger = workspace.agent("planner"), workspace.agent("reviewer"), other.agent("stranger")
        planner.write("plan", {"step": 1}, scope=("shared",), reason="a first plan")
        stranger.write("theirs", SECRET)
        reviewer.read("plan", scope=("shared",))
        planner.write("plan", {"step": 2}, scope=("shared",))
        stranger.write("theirs", 2)
        reviewer.write("plan", {"step": 3}, scope=("shared",))

    def _go_on(self, workspace: Workspace, other: Workspace) -> None:
        planner, stranger = workspace.agent("planner"), other.agent("stranger")
        for number in range(3):
            planner.write("x", number)
            stranger.write("theirs", number)
        planner.write("x", {"large": "z" * 100_000})
        self.state_hash = workspace.state_hash()
        stranger.write("theirs", "last")
        self.other_hash = other.state_hash()

    def _zombie(self, name: str) -> None:
        """The leader that was sends one more decision, which would have been its next."""
        store = KafkaLog(KafkaSettings.parse(self.url))
        reader = ShardReader(store, "", all_workspaces=True)
        entries = [each for each in reader.read() if each.verdict is Verdict.ADMITTED]
        decisions = [each for each in entries if isinstance(each.record, DecisionRecord)]
        last = next(each for each in reversed(decisions) if each.record.workspace == name)  # type: ignore[union-attr]
        record = last.record
        assert isinstance(record, DecisionRecord)
        record.index = DecisionIndex(max(each.record.index for each in decisions) + 1)  # type: ignore[union-attr]
        record.first_sequence = SequenceNumber(record.first_sequence + len(record.events))
        record.prev_hash = chain_hash(last.stored.head)
        self.append(name.encode(), encode_head(record) + last.stored.tail)
        store.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `ccs-replay` in this process: to begin one anew takes longer than most commands."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["ccs-replay", *map(str, arguments)])
        printed = [io.BytesIO(), io.BytesIO()]
        out, said = (io.TextIOWrapper(each, write_through=True) for each in printed)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as left:
            main()
        return subprocess.CompletedProcess(
            sys.argv, int(left.value.code or 0), *(each.getvalue().decode() for each in printed)
        )

    return call


@pytest.fixture(scope="module")
def log(kafka_broker: Broker) -> Log:
    return Log(kafka_broker)


def test_info_shows_who_led_and_what_was_void(log: Log, run: Run) -> None:
    info = read_json(run(log.source(), "info", "--json"))
    assert info["void_records"] == {"foreign": 3, "not_leader": 1, "old_epoch": 1}
    assert info["workspaces"] == ["other", "w"]
    assert (info["state_hash"], info["epoch"], info["claims"]) == (log.state_hash, 2, 2)
    first, second = info["epochs"]
    assert (first["epoch"], first["resigned"], second["epoch"], second["resigned"]) == (1, True, 2, False)
    assert info["leader"] == second["leader_id"] != first["leader_id"]
    assert first["build"].startswith("ccs-stream ")
    assert first["decisions"] + second["decisions"] == info["decisions"]
    theirs = read_json(run("-w", "other", log.url, "info", "--json"))
    assert theirs["state_hash"] == log.other_hash
    for ours, other in zip(info["epochs"], theirs["epochs"], strict=True):
        assert ours["shard_decisions"] == other["shard_decisions"] == ours["decisions"] + other["decisions"]
    # What opened the log, two claims, a resignation, and what is void; all decisions are somebody's.
    assert info["records"] == info["decisions"] + theirs["decisions"] + 4 + 5
    text = run(log.source(), "info").stdout
    assert f"1      {first['leader_id'][:8]}" in text
    assert "foreign 3, not_leader 1, old_epoch 1" in text


def test_timeline_shows_claims_and_counts_what_is_void(log: Log, run: Run) -> None:
    shown = run(log.source(), "timeline")
    lines = shown.stdout.splitlines()
    assert shown.stderr == "5 void records not shown; --include-void shows them\n"
    assert sum("claimed by" in line for line in lines) == 2
    assert sum("resigned" in line for line in lines) == 1
    assert sum("LOST UPDATE" in line for line in lines) == 1
    assert not any("theirs" in line or "void" in line for line in lines)
    numbers = [int(line.split()[0]) for line in lines if line.split()[0] != "-"]
    assert numbers == list(range(1, len(numbers) + 1))
    every = read_json(run(log.source(), "timeline", "--include-void", "--json"))
    assert [each["verdict"] for each in every if each["verdict"] != "admitted"] == [
        *("not_leader", "foreign", "foreign", "old_epoch", "foreign")
    ]
    mine = read_json(run(log.source(), "timeline", "--agent", "planner", "--json"))
    assert {each["agent"] for each in mine} == {"planner"}


def test_positions_are_found_between_what_others_wrote(log: Log, run: Run) -> None:
    source = log.source()
    whole = read_json(run(source, "timeline", "--json"))
    events = [line for line in whole if line["sequence"]]
    last = read_json(run(source, "timeline", "--json", "--from", "-2"))
    assert [line for line in last if line["sequence"]][-2:] == events[-2:]
    assert len(last) <= 4
    middle = events[len(events) // 2]
    by_time = read_json(run(source, "state", "--json", "--at", f"@{middle['at']}"))
    by_sequence = read_json(run(source, "state", "--json", "--at", str(by_time["sequence"])))
    by_token = read_json(run(source, "state", "--json", "--at", by_time["position"]))
    assert by_time == by_sequence == by_token
    assert by_time["sequence"] >= middle["sequence"]
    end = read_json(run(source, "state", "--json"))
    assert read_json(run(source, "state", "--json", "--at", "-1")) == end
    assert read_json(run(source, "state", "--json", "--at", "@2100-01-01")) == end
    assert end["state_hash"] == log.state_hash
    beyond = run(source, "state", "--at", "9999")
    assert (beyond.returncode, beyond.stderr.count(f"it ends at {end['sequence']}")) == (2, 1)
    with log.connect("w") as workspace:
        past = workspace.as_of(by_time["position"])
        assert past.state_hash() == by_time["state_hash"]


def test_artifact_shows_versions_and_bodies(log: Log, run: Run) -> None:
    shown = read_json(run(log.source(), "artifact", "shared/plan", "--json"))
    assert [(each["version"], each["agent"]) for each in shown["versions"]] == [
        (3, "reviewer"),
        (2, "planner"),
        (1, "planner"),
    ]
    assert run(log.source(), "artifact", "shared/plan", "--content", "1").stdout == '{"step":1}'
    large = run(log.source(), "artifact", "x", "--content", "4").stdout
    assert json.loads(large) == {"large": "z" * 100_000}


def test_verify_counts_void_records_without_reporting_them(log: Log, run: Run) -> None:
    result = run(log.source(), "verify", "--json", "--allow-loss")
    found = read_json(result)
    assert (result.returncode, found["counts"], found["claims"]) == (0, {"lost_update": 1}, 2)
    assert found["void_records"] == {"foreign": 3, "not_leader": 1, "old_epoch": 1}
    assert run(log.source(), "verify").returncode == 3
    text = run(log.source("other"), "verify").stdout
    assert "3  void: foreign" in text
    assert text.splitlines()[-1].startswith("clean: ")


def test_an_archive_is_read_like_the_log_and_anchors_it(log: Log, run: Run, tmp_path: Path) -> None:
    source = log.source()
    exported = read_json(run(source, "export", "-o", "out.avro", "--json"))
    assert exported["state_hash"] == log.state_hash
    info, copied = (read_json(run(each, "info", "--json")) for each in (source, "file:out.avro"))
    assert exported["records"] == info["records"]
    elsewhere = {"source", "workspaces", "snapshots"}
    assert {key: copied[key] for key in copied.keys() - elsewhere} == {
        key: info[key] for key in info.keys() - elsewhere
    }
    for command in (["timeline", "--include-void", "--json"], ["state", "--json"], ["artifact", "x", "--json"]):
        assert run("file:out.avro", *command).stdout == run(source, *command).stdout
    large = run("file:out.avro", "artifact", "x", "--content", "4").stdout
    assert json.loads(large) == {"large": "z" * 100_000}
    assert read_json(run("file:out.avro", "verify", "--json"))["counts"] == {"lost_update": 1}
    anchored = read_json(run(source, "verify", "--anchor", "out.avro", "--allow-loss", "--json"))
    assert (anchored["exit_code"], anchored["counts"]) == (0, {"lost_update": 1})
    assert run(log.source("other"), "verify", "--anchor", "out.avro").returncode == 2
    again = run("file:out.avro", "export", "-o", "again.avro", "--json")
    assert read_json(again)["state_hash"] == log.state_hash
    assert run("-w", "other", "file:out.avro", "info").returncode == 2


def test_nothing_is_left_behind_at_the_broker(log: Log, run: Run) -> None:
    admin = AdminClient(log.settings)

    def everything() -> tuple[list[str], list[str], dict[str, Any], int]:
        groups = admin.list_consumer_groups().result()
        listed = admin.list_topics(timeout=10).topics
        topics = sorted(name for name in listed if name.startswith((log.prefix, "__")))
        consumer = Consumer({**log.settings, "group.id": "unused"})
        ends = {
            name: consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=10)
            for name in topics
            if name.startswith(log.prefix)
        }
        consumer.close()
        names = sorted(each.group_id for each in groups.valid if each.group_id.startswith(log.prefix))
        return names, topics, ends, len(groups.errors)

    before = everything()
    for command in COMMANDS:
        assert run(log.source(), *command).returncode in (0, 3), command
    assert everything() == before
    assert before[0] in ([], [f"{log.prefix}.coordinators"])


def test_the_workspace_comes_from_one_place(log: Log, run: Run) -> None:
    assert run("-w", "w", log.source(), "state").returncode == 0
    both = run("-w", "other", log.source(), "state")
    assert (both.returncode, both.stdout) == (2, "")
    assert "choose one" in both.stderr
    neither = run(log.url, "state")
    assert neither.returncode == 2
    assert "reading all of" in neither.stderr
    assert "['other', 'w']" in neither.stderr
    for command in (["state"], ["info"], ["timeline"], ["verify"], ["export", "-o", "no.avro"]):
        absent = run(log.source("typo"), *command)
        assert absent.returncode == 2, command
        assert "holds no decision of the workspace 'typo'" in absent.stderr


def test_a_log_whose_head_was_deleted_is_a_finding(kafka_broker: Broker, kafka_prefix: str, run: Run) -> None:
    with coordinated_log(kafka_broker.bootstrap_servers, kafka_prefix, partitions=1) as url:
        with ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace:
            workspace.agent("a").write("k", 1)
        clients = Clients(KafkaSettings.parse(url))
        cut = TopicPartition(clients.names.log, 0, 2)
        clients.admin.delete_records([cut])[cut].result()
        result = run(f"{url}&workspace=w", "verify", "--json")
        assert (result.returncode, read_json(result)["counts"]) == (3, {"missing_head": 1})
        told = run(f"{url}&workspace=w", "info")
        assert (told.returncode, told.stdout) == (1, "")
        assert "head was deleted" in told.stderr


def test_following_prints_what_is_admitted_until_interrupted(kafka_broker: Broker, kafka_prefix: str) -> None:
    with (
        coordinated_log(kafka_broker.bootstrap_servers, kafka_prefix, partitions=1) as url,
        ccs_stream.connect(f"{url}&coordinator=remote", workspace="w") as workspace,
        Following(f"{url}&workspace=w", "--json") as following,
    ):
        agent = workspace.agent("a")
        for number in range(1, 4):
            agent.write("k", number)
            following.until(f"wrote k v{number}")
        assert following.interrupt() == 130
    assert all(json.loads(line)["what"] for line in following.lines)


def test_no_secret_is_printed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCS_KAFKA_SASL_PASSWORD", "hunter2")
    for url in (
        "kafka://localhost:1?sasl.password=hunter2",
        "kafka://me:hunter2@localhost:1",
        "kafka://localhost:1?workspace=w&timeout_s=1",
    ):
        result = run(url, "info")
        assert result.returncode in (1, 2)
        assert "hunter2" not in result.stdout + result.stderr, url
        assert len(result.stderr.strip().splitlines()) <= 4, result.stderr
