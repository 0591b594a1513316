"""Faults of records: lost, too large, repeated, out of order, foreign; and snapshots that cannot be trusted.

Guarantees: as for leaders. Where the fault needs a hand inside a coordinator, that one runs in this process; clients
and the other coordinators do not.
"""

import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from confluent_kafka import Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

import ccs_stream
from ccs_stream import Workspace
from ccs_stream.coordinator import batch
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import SnapshotBlob
from ccs_stream.protocol.commands import Command, Commit, Heartbeat
from ccs_stream.protocol.decide import Decision
from ccs_stream.protocol.errors import Refused, TooLarge
from ccs_stream.protocol.ids import CommandNumber, Micros, SequenceNumber, SessionId
from ccs_stream.protocol.leadership import Role
from ccs_stream.protocol.statehash import state_hash
from tests.faults.checker import encode
from tests.faults.cluster import Cluster, fold_from_zero
from tests.faults.environment import Environment
from tests.faults.table import NOTHING, Row
from tests.waiting import until

_RESIGNED: Final = {"epoch": 1, "leader_id": bytes(16)}
_FOREIGN: Final = (b"", b"garbage", None, b"\xc3\x01" + bytes(3), encode("LeaderResigned", _RESIGNED)[:-1])
"""Bytes that are no record. With a whole unknown fingerprint they would be of a later release: a reason to stop."""


def _leading(cluster: Cluster) -> CoordinatorService:
    service = cluster.start_service()
    until("the service leads", lambda: service.follower.shards[0].loop.role is Role.LEADING)
    return service


# One record of a batch is lost.


class Losing:
    """Loses one message of what a leader in this process appends, each time it is armed."""

    def __init__(self, service: CoordinatorService, env: Environment) -> None:
        self.lost = 0
        self._armed: str | None = None
        self._env = env
        log = service.follower.shards[0]._log
        original = log.append

        def append(messages: Sequence[tuple[object, bytes | None, bytes]]) -> None:
            original(self._without_one(list(messages)))

        log.append = append  # type: ignore[method-assign]

    def once(self, which: str) -> None:
        """Lose one message: of the `middle` of a batch, or the `last` one."""
        count, self._armed = self.lost, which
        until(f"the {which} message of a batch is lost", lambda: self.lost > count)

    def _without_one(self, messages: list[tuple[object, bytes | None, bytes]]) -> Any:
        if self._armed is None or messages[0][1] is None or len(messages) < (2 if self._armed == "middle" else 1):
            return messages
        del messages[self._env.choose.randrange(len(messages) - 1) if self._armed == "middle" else -1]
        self._armed = None
        self.lost += 1
        return messages


def lost(env: Environment) -> Row:
    """One record of a batch is lost and what stands behind it is appended, or the last one is lost."""
    row = Row("a record of a batch lost")
    with env.cluster(session_timeout_s=env.session_s, timeout_s=10, delivery_timeout_s=2) as cluster:
        service = _leading(cluster)
        losing = Losing(service, env)
        cluster.start_coordinators(1)
        cluster.start_workers(env.size(2, 4), env.workspaces, agents=4, pause_s=0.0, kinds=["write", "increment"])
        shard = service.follower.shards[0]
        for which in ("middle", "last") * env.size(1, 10):
            cluster.progress(10)
            until("the service leads", lambda: shard.loop.role is Role.LEADING)
            epoch = shard.reader.cursor.epoch
            losing.once(which)
            cluster.progress(10)
            row.expect(shard.reader.cursor.epoch > epoch, "the epoch went on behind its gap")
            row.rounds += 1
        outcome = cluster.finish()
    row.add(outcome, rounds=0)
    row.expect(row.void["index_gap"] >= row.rounds // 2, f"nothing stood behind a gap: {row.void}")
    row.expect_told(outcome, NOTHING)
    return row


# What the broker or the code will not take.


def refused(env: Environment) -> Row:
    """A decision larger than the broker takes, and a command whose decision raises: refused, and on it goes."""
    row = Row("too large, or raising")
    with env.cluster(session_timeout_s=6, timeout_s=10) as cluster, _poisoned():
        service = _leading(cluster)
        shard = service.follower.shards[0]
        cluster.start_workers(1, env.workspaces)
        with ccs_stream.connect(cluster.client_url, workspace="large") as workspace:
            for settings in (True, False):
                _refuse(row, workspace, service, raises=True)
                if settings:
                    _limit(cluster, 30_000)
                for _ in range(env.size(2, 10)):
                    _refuse(row, workspace, service, raises=False)
                cluster.progress(10)
                row.rounds += 1
                if settings:  # from now on the coordinator knows the limit before it sends
                    cluster.services.remove(service)
                    service.close()
                    service = _leading(cluster)
                    shard = service.follower.shards[0]
        outcome = cluster.finish()
        row.expect(service.follower.error is None and shard.loop.role is Role.LEADING, "the leader fell")
    outcome.findings = [each for each in outcome.findings if "no history asks for" not in each]
    row.add(outcome, rounds=0)
    row.expect_told(outcome, NOTHING)
    return row


def _refuse(row: Row, workspace: Workspace, service: CoordinatorService, *, raises: bool) -> None:
    led = service.follower.shards[0].counts.led
    agent = workspace.agent("a")
    try:
        if raises:
            agent.write("poison", 1)
        else:
            agent.write("big", "x" * 50_000)
    except TooLarge as error:
        row.expect(not raises, f"what raises is refused as {error!r}")
    except Refused as error:
        row.expect(raises and error.reason == "internal_error", f"refused as {error!r}")
    else:
        row.expect(False, "what is too large or raises was accepted")
    before = agent.read("small")
    version = agent.write("small", 1).version
    row.expect(version == (0 if before is None else before.version) + 1, f"the next command made version {version}")
    again = service.follower.shards[0].counts.led - led
    row.expect(again <= (0 if raises else 1), f"the leader led {again} times anew for one command")


@contextlib.contextmanager
def _poisoned() -> Iterator[None]:
    """In this process, deciding a write of the key `poison` raises."""
    original = vars(batch)["decide"]

    def decide(view: Any, command: Command, now: Micros) -> Decision:
        if isinstance(command, Commit) and any(getattr(change, "key", "") == "poison" for change in command.changes):
            raise ZeroDivisionError("planted")
        decision: Decision = original(view, command, now)
        return decision

    vars(batch)["decide"] = decide
    logging.getLogger("ccs_stream.coordinator.batch").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        vars(batch)["decide"] = original
        logging.getLogger("ccs_stream.coordinator.batch").setLevel(logging.NOTSET)


def _limit(cluster: Cluster, size: int) -> None:
    """From now on the log's topic takes no batch above this size."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, cluster.log_topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": cluster.broker.bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result()


# Commands that come twice, late, in another order; what is no record of ours.


def garbled(env: Environment) -> Row:
    """Commands duplicated, delayed and reordered, and foreign records in every topic, under load."""
    row = Row("commands repeated and reordered, garbage in all topics")
    with env.cluster(session_timeout_s=6, timeout_s=10) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 6), env.workspaces)
        cluster.progress()
        copier = Copier(cluster, env)
        for _ in range(env.size(2, 20)):
            for topic in ("commands", "log", "snapshots", "content", "deliveries"):
                records = [(b"w0", value) for value in _FOREIGN]
                cluster.produce(f"{cluster.prefix}.{topic}.v1", records)
            cluster.produce(cluster.commands_topic, [(b"w0", each) for each in _misplaced(env)])
            cluster.progress(20)
            row.rounds += 1
        copied = copier.stop()
        garbage = row.rounds * (len(_FOREIGN) + len(list(_misplaced(env))))
        leader = cluster.leader()
        until("all garbage is counted", lambda: leader.status()["garbage_commands"] >= garbage)
        cluster.start_coordinators(1)  # one that starts reads all of it, too
        outcome = cluster.finish()
        said = [each.status() for each in cluster.coordinators]
    row.add(outcome, rounds=0)
    row.notes.append(f"{copied} commands were sent again, late and in another order")
    row.expect(copied > 0, "no command was sent again")
    row.expect(outcome.report.void == {"foreign": row.rounds * len(_FOREIGN)}, f"void: {outcome.report.void}")
    row.expect(
        all(each["partitions"][0]["void"] == outcome.report.void for each in said), "a coordinator counts otherwise"
    )
    row.expect(all(each["partitions"][0]["epoch"] == 1 for each in said), "a leader fell")
    row.expect_told(outcome, NOTHING)
    return row


def _misplaced(env: Environment) -> Iterator[bytes]:
    """Commands that decode and that no client of ours would send."""
    session = SessionId(uuid.uuid4().bytes)
    for number in (0, -1, -8_193, -(2**62)):
        yield encode_command("w0", Heartbeat(session_id=session, number=CommandNumber(number)))


class Copier:
    """Goes on sending commands again that were sent before: some twice, all late, in another order."""

    def __init__(self, cluster: Cluster, env: Environment) -> None:
        self._cluster = cluster
        self._env = env
        self._stop = threading.Event()
        self._copied = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        choose = self._env.choose
        seen = 0
        while not self._stop.wait(0.2):
            (records,) = self._cluster.read(self._cluster.commands_topic)
            new = [raw.value for raw in records[seen:] if raw.value not in _FOREIGN]
            seen = len(records)
            picked = choose.sample(new, len(new) // 2) + choose.sample(new, len(new) // 4)
            self._cluster.produce(self._cluster.commands_topic, [(b"w0", value) for value in picked])
            self._copied += len(picked)
            seen += len(picked)

    def stop(self) -> int:
        """How many were sent again."""
        self._stop.set()
        self._thread.join()
        return self._copied


# Snapshots.


def snapshots(env: Environment) -> Row:
    """Snapshots cut short, altered, of another log, newer than the log: none is used, and it is said."""
    row = Row("snapshots that cannot be trusted")
    with env.cluster() as other, env.cluster() as cluster:
        foreign, sound = _snapshot(other, row), _snapshot(cluster, row)
        whole = sound.data
        cases = {
            "whole": whole,
            "cut short": whole[: len(whole) * 2 // 3],
            "empty": b"",
            "altered": whole[:-20] + bytes(each ^ 0x55 for each in whole[-20:]),
            "of another log": foreign.data,
            **{f"altered at random, {number}": _altered(whole, env) for number in range(env.size(3, 100))},
        }
        for case, data in cases.items():
            _start_beside(cluster.url, row, case, data, used=case == "whole")
        # The log, restored from a copy that was made before the snapshot was.
        (records,) = cluster.read()
        other.make_anew(other.log_topic)
        other.produce(other.log_topic, [(b"w", raw.value) for raw in records[: len(records) // 2]])
        _start_beside(other.url, row, "newer than the log", whole, used=False)
    return row


def _snapshot(cluster: Cluster, row: Row) -> SnapshotBlob:
    """Some writes, a snapshot behind them, and one more write."""
    service = _leading(cluster)
    with ccs_stream.connect(cluster.client_url, workspace="w") as workspace:
        for number in range(20):
            workspace.agent("a").write(f"k{number % 5}", number)
            row.acknowledged += 1
        until("a snapshot", lambda: service.follower._snapshots.keep(service.follower.shards[0]))
        (blob,) = service.store.snapshots("w")
        workspace.agent("a").write("k0", "behind it")
    cluster.services.remove(service)
    service.close()
    return blob


def _altered(data: bytes, env: Environment) -> bytes:
    """With some bytes changed, or cut at some place."""
    if env.choose.random() < 0.2:
        return data[: env.choose.randrange(len(data))]
    altered = bytearray(data)
    for _ in range(env.choose.randrange(1, 4)):
        altered[env.choose.randrange(len(altered))] ^= env.choose.randrange(1, 256)
    return bytes(altered)


def _start_beside(url: str, row: Row, case: str, data: bytes, *, used: bool) -> None:
    """Start a coordinator where this is the newest snapshot there is."""
    store = KafkaLog(KafkaSettings.parse(url))
    newest = SequenceNumber(1_000_000 + row.rounds)
    for old in list(store.snapshots("w")):
        if old.data != data:  # those of cases before are recognised by their data: only this one counts
            _bury(store, old)
    store.save_snapshot("w", SnapshotBlob(snapshot_id=uuid.uuid4().hex, sequence=newest, data=data))
    service = CoordinatorService(store)
    taken = _taken(service)
    with Said() as said:
        try:
            service.start()
            shard = service.follower.shards[0]
            with shard.lock:  # the coordinator may append meanwhile
                state = shard.states["w"]
                sequence, held = state.sequence, state_hash(state)
            row.expect(
                fold_from_zero(url, "w", {sequence})[sequence] == held,
                f"a snapshot {case}: another state than the log's",
            )
        finally:
            service.close()
    row.expect((min(taken) > 0) == used, f"a snapshot {case}: the log was read from offset {min(taken)}")
    row.expect(used or "is not used" in said.text, f"a snapshot {case}: it was not said that it is not used")
    row.rounds += 1


def _taken(service: CoordinatorService) -> list[int]:
    """Offsets of the log that a coordinator takes from now on."""
    taken: list[int] = []
    original = service.follower._take

    def take(messages: list[Message]) -> None:
        taken.extend(each.offset() or 0 for each in messages)
        original(messages)

    service.follower._take = take  # type: ignore[method-assign]
    return taken


def _bury(store: KafkaLog, blob: SnapshotBlob) -> None:
    """Let compaction remove a snapshot, as newer ones would."""
    key = json.dumps(["w", blob.snapshot_id, None], separators=(",", ":")).encode()
    store._appender.append(store.names.snapshots, store.partition("w"), [(key, None)])


class Said(logging.Handler):
    """The messages that the product logs meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._level = logging.NOTSET

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"

    def __enter__(self) -> Self:
        logger = logging.getLogger("ccs_stream")
        self._level = logger.level
        logger.setLevel(logging.WARNING)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("ccs_stream")
        logger.removeHandler(self)
        logger.setLevel(self._level)
