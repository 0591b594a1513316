"""Coordinators on a real broker: taking over, handing over, embedding, restoring."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Message

import ccs_stream
from ccs_stream import OutcomeUnknown
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.kafka.commands.in_flight import InFlightCommand
from ccs_stream.coordinator.kafka.group.description import describe_group
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.coordinator.port import LEAST_SHARE_OF_TIMEOUT
from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.snapshot import read_snapshot
from ccs_stream.protocol.commands import Join
from ccs_stream.protocol.errors import UnknownSchema
from ccs_stream.protocol.ids import CommandNumber, SessionId
from ccs_stream.testing.broker import Broker
from tests.kafka import CoordinatorProcess, as_another_host, coordinator_of, make_topics
from tests.waiting import until

pytestmark = pytest.mark.kafka


class Counting:
    """Writes 1, 2, 3, ... from a thread, and remembers what was acknowledged and when."""

    def __init__(self, url: str, workspace: str, agent: str) -> None:
        self.acknowledged: list[tuple[int, float]] = []
        self.unknown: list[int] = []
        self._workspace = ccs_stream.connect(f"{url}&coordinator=remote", workspace=workspace)
        self._agent = self._workspace.agent(agent)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            try:
                self._agent.write(f"n-{self._agent.name}", number)
            except OutcomeUnknown:
                self.unknown.append(number)
            else:
                self.acknowledged.append((number, time.monotonic()))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self._workspace.close()

    @property
    def longest_gap_s(self) -> float:
        times = [at for _, at in self.acknowledged]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.fixture
def coordinators(log: str) -> Iterator[list[CoordinatorProcess]]:
    started = [CoordinatorProcess(log).wait_ready() for _ in range(2)]
    yield started
    for each in started:
        each.stop()


def leader_of(coordinators: list[CoordinatorProcess]) -> CoordinatorProcess:
    for each in coordinators:
        if each.process.poll() is None and each.leads():
            return each
    raise AssertionError("no process leads")


def history_of(url: str, workspace: str, key: str) -> list[int]:
    with ccs_stream.connect(f"{url}&coordinator=remote", workspace=workspace) as reader:
        changes = reader.agent("reader").history(key)
        values = [change.value for change in reversed(changes)]
        assert reader.as_of(reader.position).state_hash() == reader.state_hash()
    return values


def test_a_coordinator_that_crashes_soon_after_each_start_takes_no_partition_from_a_healthy_one(
    kafka_broker: Broker, kafka_prefix: str
) -> None:
    log = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}crash"
    make_topics(log, 6)
    healthy = CoordinatorProcess(log).wait_ready()
    writers = [Counting(log, f"w{number}", "a") for number in range(4)]
    try:
        for _ in range(3):
            crashing = CoordinatorProcess(log)
            time.sleep(3.5)
            crashing.process.kill()
            crashing.process.wait()
    finally:
        for each in writers:
            each.stop()
        healthy.stop()
    assert [each.unknown for each in writers] == [[]] * 4
    assert max(each.longest_gap_s for each in writers) < 2


def test_a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost(
    log: str, coordinators: list[CoordinatorProcess]
) -> None:
    clients = [Counting(log, "w", name) for name in ("a", "b")]
    until("writes", lambda: all(len(each.acknowledged) > 20 for each in clients))
    leader_of(coordinators).process.kill()
    before = [len(each.acknowledged) for each in clients]
    until(
        "writes after the kill",
        lambda: all(len(each.acknowledged) > count + 20 for each, count in zip(clients, before, strict=True)),
    )
    for each in clients:
        each.stop()
    print(f"longest gap {max(each.longest_gap_s for each in clients):.2f} s")  # noqa: T201
    for each, name in zip(clients, "ab", strict=True):
        assert each.longest_gap_s < 6 + 3
        values = history_of(log, "w", f"n-{name}")
        written = [number for number, _ in each.acknowledged]
        assert [value for value in values if value in set(written)] == written
        assert len(values) == len(set(values))


def test_a_stopped_leader_hands_over_without_an_error(log: str, coordinators: list[CoordinatorProcess]) -> None:
    client = Counting(log, "w", "a")
    until("writes", lambda: len(client.acknowledged) > 20)
    leader = leader_of(coordinators)
    before = len(client.acknowledged)
    assert leader.stop() == 0
    until("writes after the stop", lambda: len(client.acknowledged) > before + 20)
    client.stop()
    print(f"longest gap {client.longest_gap_s:.2f} s")  # noqa: T201
    assert client.unknown == []
    assert client.longest_gap_s < 3
    assert history_of(log, "w", "n-a") == [number for number, _ in client.acknowledged]


def test_an_embedded_coordinator_withdraws_when_a_dedicated_one_joins_and_offers_itself_again(log: str) -> None:
    with ccs_stream.connect(log, workspace="w") as workspace:
        agent = workspace.agent("a")
        agent.write("k", 1)
        assert coordinator_of(workspace).leads
        dedicated = CoordinatorProcess(log).wait_ready()
        until("withdrawn", lambda: not coordinator_of(workspace).leads)
        assert agent.write("k", 2).version == 2
        assert describe_group(KafkaLog(KafkaSettings.parse(log))).dedicated == 1
        assert dedicated.leads()
        assert dedicated.stop() == 0
        until("leads again", lambda: coordinator_of(workspace).leads)
        assert agent.write("k", 3).version == 3
        reading = agent.read("k")
        assert reading is not None
        assert reading.value == 3


def test_an_unknown_outcome_becomes_known_when_the_log_shows_the_decision(log: str) -> None:
    with ccs_stream.connect(log, workspace="w") as opener:
        opener.agent("a").write("k", 0)
    with ccs_stream.connect(f"{log}&coordinator=remote&timeout_s=1", workspace="w") as workspace:
        agent = workspace.agent("b")
        with pytest.raises(OutcomeUnknown) as unknown:  # there is no leader
            agent.write("k", 1)
        assert unknown.value.outcome(0.1) is None
        coordinator = CoordinatorProcess(log).wait_ready()
        try:
            answer = unknown.value.outcome(30)
            assert isinstance(answer, Answer)
            assert answer.refusal is None
            assert [change.agent for change in agent.history("k", limit=1)] in (["a"], ["b"])
        finally:
            coordinator.stop()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_read_waits_for_the_end_of_the_log_and_its_grant_no_longer_than_one_time_out(
    log: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with ccs_stream.connect(log, workspace="w") as opener:
        opener.agent("a").write("k", 0)
    with ccs_stream.connect(f"{log}&coordinator=remote&timeout_s=2", workspace="w") as workspace:
        coordinator = coordinator_of(workspace)
        end, asked = coordinator.store.end, coordinator._commands.submit
        limits: list[float] = []

        def late(workspace: str) -> int:
            time.sleep(1.5)
            return end(workspace)

        def noted(pending: InFlightCommand) -> None:
            limits.append(pending.timeout_s)
            asked(pending)

        monkeypatch.setattr(coordinator.store, "end", late)
        monkeypatch.setattr(coordinator._commands, "submit", noted)
        agent = workspace.agent("b")
        read = agent.read if kind == "sync" else lambda *a, **k: asyncio.run(agent.aread(*a, **k))
        with pytest.raises(OutcomeUnknown):  # there is no leader
            read("k", freshness="latest")
        assert len(limits) == 1
        assert 2 * LEAST_SHARE_OF_TIMEOUT <= limits[0] <= 0.5
        monkeypatch.undo()


def test_two_embedded_coordinators_share_a_log(log: str) -> None:
    with (
        ccs_stream.connect(log, workspace="w") as one,
        ccs_stream.connect(as_another_host(log), workspace="w") as two,
    ):
        one.agent("a").write("k", 1)
        written = two.agent("b").write("k", 2)
        assert written.version == 2
        reading = one.agent("a").read("k", at_least=str(written.position))
        assert reading is not None
        assert reading.value == 2
        assert one.state_hash() == two.state_hash()
        assert [coordinator_of(each).leads for each in (one, two)].count(True) == 1


def test_a_coordinator_starts_from_snapshots_and_reads_the_records_behind_them(log: str) -> None:
    with ccs_stream.connect(log, workspace="w") as one, ccs_stream.connect(log, workspace="other") as two:
        for number in range(50):
            one.agent("a").write(f"k{number % 7}", number)
            two.agent("b").write(f"k{number % 3}", number)
        follower = coordinator_of(one).follower
        shard = follower.shards[0]
        until("a decision last", lambda: follower._snapshots.keep(shard) == 2)
        at = read_snapshot(next(follower.store.snapshots("w"))).position.offset
        one.agent("a").write("k0", "after")
        hashes = one.state_hash(), two.state_hash()
    service = CoordinatorService(KafkaLog(KafkaSettings.parse(log)))
    taken: list[int] = []
    original = service.follower._take

    def counting(messages: list[Message]) -> None:
        taken.extend(message.offset() or 0 for message in messages)
        original(messages)

    service.follower._take = counting  # type: ignore[method-assign]
    try:
        service.start()
        found = set(service.follower.shards[0].states)
        assert min(taken) == at + 1
        assert found == {"w", "other"}
    finally:
        service.close()
    with ccs_stream.connect(log, workspace="w") as again, ccs_stream.connect(log, workspace="other") as other:
        # The sessions of before have ended since, so the states are compared with a fold from zero.
        assert again.as_of(again.position).state_hash() == again.state_hash()
        assert other.as_of(other.position).state_hash() == other.state_hash()
        reading = again.agent("x").read("k3")
        assert reading is not None
        assert reading.value == 45
    assert hashes[0] != hashes[1]


def test_a_record_of_a_later_release_stops_a_coordinator_and_its_clients(log: str) -> None:
    with ccs_stream.connect(log, workspace="w") as workspace:
        workspace.agent("a").write("k", 1)
        store = KafkaLog(KafkaSettings.parse(log))
        producer = store.clients.producer()
        producer.produce(store.names.log, b"\xc3\x01" + bytes(8) + b"x", key=b"w", partition=0)
        producer.flush(10)
        until("stopped", lambda: coordinator_of(workspace).follower.error is not None)
        with pytest.raises(UnknownSchema, match="later release"):
            workspace.agent("a").write("k", 2)


def test_a_message_that_is_no_command_is_counted_and_passed_over(log: str) -> None:
    store = KafkaLog(KafkaSettings.parse(log))
    producer = store.clients.producer()
    later_release = b"\xc3\x01" + bytes(8) + b"x"
    for garbage in (b"", b"garbage", later_release, None):
        producer.produce(store.names.commands, garbage, key=b"w", partition=0)
    for garbage in (b"", b"garbage", b"\xc3\x01", None):
        producer.produce(store.names.log, garbage, key=b"w", partition=0)
    producer.flush(10)
    coordinator = CoordinatorProcess(log).wait_ready()
    try:
        with ccs_stream.connect(f"{log}&coordinator=remote", workspace="w") as workspace:
            assert workspace.agent("a").write("k", 1).version == 1
            status = json.loads(coordinator.get("/status"))
            assert status["garbage_commands"] == 4
            assert status["partitions"][0]["void"] == {"foreign": 4}
            assert workspace.coordinator.void_records == 4
            metrics = coordinator.get("/metrics")
            assert 'ccs_void_records_total{partition="0",reason="foreign"} 4' in metrics
            assert metrics.endswith("# EOF\n")
    finally:
        coordinator.stop()


def test_commands_for_a_workspace_that_was_never_opened_are_counted_by_reason(log: str) -> None:
    """Nothing may come before its sequence 1, so no record can tell of them: the coordinator's numbers do."""
    store = KafkaLog(KafkaSettings.parse(log))
    session = SessionId(b"s" * 16)
    producer = store.clients.producer()
    for number in (1, 2):
        joining = encode_command("never", Join(session_id=session, number=CommandNumber(number), agent="a"))
        producer.produce(store.names.commands, joining, key=b"never", partition=0)
    producer.flush(10)
    coordinator = CoordinatorProcess(log).wait_ready()
    try:
        with ccs_stream.connect(f"{log}&coordinator=remote", workspace="w") as workspace:
            assert workspace.agent("a").write("k", 1).version == 1
        (partition,) = json.loads(coordinator.get("/status"))["partitions"]
        assert partition["dropped"] == {"never_opened": 2}
        assert partition["workspaces"] == 1
        metrics = coordinator.get("/metrics")
        assert 'ccs_commands_dropped_total{partition="0",reason="never_opened"} 2' in metrics
        assert f"session {session.hex()}, number 2, for 'never' is not decided: never_opened" in coordinator.said
        # and once it is opened, its commands are decided
        with ccs_stream.connect(f"{log}&coordinator=remote", workspace="never") as workspace:
            assert workspace.agent("a").write("k", 1).version == 1
    finally:
        coordinator.stop()
    store.close()
