"""Who was given what: recorded aside, numbered without gaps, and never in anybody's way."""

import hashlib
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Put, VersionConflict, Workspace
from ccs_stream.client.observers import delivery_log
from ccs_stream.client.observers.delivery_log import DeliveryLog
from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import LogStore
from ccs_stream.protocol import evolve
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.errors import LogBusy, UsageError
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version
from tests.waiting import until

Connect = Callable[..., Workspace]
HASH = hashlib.sha256(b'{"n":1}').digest()


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Opens workspaces that record deliveries."""
    opened: list[Workspace] = []
    name = uuid.uuid4().hex

    def open_one(**options: Any) -> Workspace:
        options = {"deliveries": True, **options}
        url: str | None = None
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/log.db"
        elif request.param == "kafka":
            url = request.getfixturevalue("kafka_log")
            options = {"workspace": name, "freshness": "latest", **options}
        opened.append(ccs_stream.connect(url, **options))
        return opened[-1]

    yield open_one
    for workspace in opened:
        workspace.close()


def said(workspace: Workspace) -> list[tuple[str, int, str, str]]:
    """Agent, version, source and outcome of each delivery."""
    return [(each.agent, each.version, each.source.value, each.outcome.value) for each in workspace.deliveries()]


def test_every_reading_and_writing_is_a_delivery(connect: Connect) -> None:
    workspace = connect()
    a, b = workspace.agent("a"), workspace.agent("b")
    b.read("k")
    a.write("k", {"n": 1})
    b.read("k")
    b.read("k")
    workspace.read_all(["k", "none"], agent="b")
    a.delete("k")
    b.read("k")
    assert said(workspace) == [
        ("b", 0, "fetch", "empty"),
        ("a", 1, "write", "content"),
        ("b", 1, "fetch", "content"),
        ("b", 1, "cache_hit", "content"),
        ("b", 1, "cache_hit", "content"),
        ("b", 0, "fetch", "empty"),
        ("b", 2, "fetch", "empty"),
    ]


def test_a_delivery_names_what_it_was_and_where_in_the_log_it_was_so(connect: Connect) -> None:
    workspace = connect()
    written = workspace.agent("a").write("k", {"n": 1})
    reading = workspace.agent("b", conversation="thread-7", generation=2).read("k", at_least=written.position)
    assert reading is not None
    write, read = workspace.deliveries()
    assert (write.form, write.base_version) == (DeliveryForm.OWN_WRITE, None)
    assert write.valid_at_sequence == written.position.sequence
    assert read.content_hash == write.content_hash == HASH
    assert read.valid_at_sequence == reading.position.sequence > write.valid_at_sequence
    assert (read.conversation, read.generation, read.form) == ("thread-7", 2, DeliveryForm.FULL)
    assert read.freshness is DeliveryFreshness.AT_LEAST
    assert read.artifact == write.artifact
    assert read.at >= write.at


def test_numbers_have_no_gaps_in_their_session(connect: Connect) -> None:
    one, other = connect(), connect()
    for workspace in (one, other):
        for number in range(50):
            workspace.agent("a").write(f"k{number}", number)
            workspace.agent("b").read(f"k{number}")
        workspace.close()
    seen: dict[bytes, list[int]] = {}
    if one._store.display_url == "memory:":
        return  # what was closed there is gone
    for each in connect().deliveries():
        seen.setdefault(each.session_id, []).append(each.number)
    assert [sorted(numbers) for numbers in seen.values()] == [list(range(1, 101))] * 2


def test_the_value_in_a_conflict_is_a_delivery_too(connect: Connect) -> None:
    workspace = connect()
    workspace.agent("a").write("k", {"n": 1})
    with pytest.raises(VersionConflict):
        workspace.agent("b").compare_and_set("k", {"n": 2}, expected=None)
    assert said(workspace)[-1] == ("b", 1, "fetch", "content")


def test_write_all_gives_each_to_its_author(connect: Connect) -> None:
    workspace = connect()
    workspace.write_all([Put("x", 1), Put("y", 2)], agent="a")
    assert said(workspace) == [("a", 1, "write", "content")] * 2


def test_in_memory_nothing_is_recorded_unless_asked() -> None:
    with ccs_stream.connect() as workspace:
        workspace.agent("a").write("k", 1)
        assert list(workspace.deliveries()) == []


def test_a_file_records_unless_told_not_to(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, deliveries=False) as workspace:
        workspace.agent("a").write("k", 1)
        assert list(workspace.deliveries()) == []
    with ccs_stream.connect(url) as workspace:
        workspace.agent("a").write("k", 1)
        assert len(list(workspace.deliveries())) == 1


class Refusing(MemoryLog):
    """A log that keeps no deliveries until it is told to."""

    refuses = True

    def append_deliveries(self, shard: str, deliveries: Any) -> None:
        if self.refuses:
            raise LogBusy("planted")
        super().append_deliveries(shard, deliveries)


def given(number: int, session: bytes = b"s" * 16) -> Any:
    return (
        SessionId(session),
        f"agent {number}",
        ArtifactId(b"a" * 16),
        Version(1),
        HASH,
        DeliverySource.CACHE_HIT,
        DeliveryFreshness.LATEST,
        SequenceNumber(number),
        Micros(number),
        None,
    )


def kept(store: LogStore) -> list[DeliveryRecorded]:
    return [decode_delivery(each) for each in store.read_deliveries("w")]


def test_what_cannot_be_kept_waits_and_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_log, "RETRY_S", 0.01)
    monkeypatch.setattr(delivery_log, "GATHER_S", 0.01)
    store = Refusing()
    deliveries = DeliveryLog(store, "w")
    for number in range(5):
        deliveries.record(given(number))
    until("an append has failed", lambda: deliveries.health().failures)
    deliveries.record(given(5))
    store.refuses = False
    assert deliveries.flush(30)
    assert [(each.number, each.agent) for each in kept(store)] == [(n + 1, f"agent {n}") for n in range(6)]
    assert deliveries.close(30)


def test_a_loss_leaves_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_log, "RETRY_S", 0.01)
    monkeypatch.setattr(delivery_log, "GATHER_S", 0.01)
    monkeypatch.setattr(delivery_log, "HURRY_AT", 2)
    monkeypatch.setattr(delivery_log, "WAITING_MAX", 3)
    monkeypatch.setattr(delivery_log, "BATCH_MAX", 1)
    store = Refusing()
    deliveries = DeliveryLog(store, "w")
    deliveries.record(given(0))
    until("an append has failed", lambda: deliveries.health().failures)
    for number in range(1, 9):
        deliveries.record(given(number))
    assert deliveries.health().dropped == 5
    store.refuses = False
    assert deliveries.flush(30)
    numbers = [each.number for each in kept(store)]
    assert numbers[0] == 1
    assert numbers[-1] == 4 + 5, "five numbers are missing"
    assert len(numbers) == 4
    deliveries.close(30)


def test_a_bad_option_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="True or False"):
        ccs_stream.connect(deliveries=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"delivery.*did you mean 'deliveries'"):
        ccs_stream.connect(delivery=True)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="deliveries=False turns them off"):
        ccs_stream.connect(content_audit_log=True, deliveries=False)
    with ccs_stream.connect() as workspace, pytest.raises(UsageError, match="whole number"):
        workspace.agent("a", generation=-1)


KILLED = """
import ccs_stream, os, signal, sys
workspace = ccs_stream.connect(sys.argv[1])
workspace.agent("a").write("k", 1)
for _ in range(100):
    workspace.agent("b").read("k")
list(workspace.deliveries())
for _ in range(3):
    workspace.agent("b").read("k")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_only_what_was_given_last(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    died = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert died.returncode == -signal.SIGKILL
    with ccs_stream.connect(url) as workspace:
        numbers = [each.number for each in workspace.deliveries()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 101 <= len(numbers) <= 104


# The content audit, which tells the same to a function or a file.


def test_the_content_audit_of_the_reference_trace() -> None:
    told: list[dict[str, Any]] = []
    with ccs_stream.connect(content_audit_log=told.append) as workspace:
        planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
        planner.write("plan", {"step": 1})
        for agent in (reviewer, reviewer, planner):
            agent.read("plan")
        planner.write("plan", {"step": 2})
    assert [(each["agent_name"], each["source"], each["outcome"], each["version"]) for each in told] == [
        ("planner", "write", "content", 1),
        ("reviewer", "fetch", "content", 1),
        ("reviewer", "cache_hit", "content", 1),
        ("planner", "cache_hit", "content", 1),
        ("planner", "write", "content", 2),
    ]
    assert [each["sequence_number"] for each in told] == [1, 2, 3, 4, 5]
    assert {each["instance_id"] for each in told} == {workspace.instance_id}
    assert told[0]["content_hash"] == hashlib.sha256(b'{"step":1}').hexdigest()


def test_the_content_audit_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with ccs_stream.connect(content_audit_log=path) as workspace:
        workspace.agent("a").write("k", 1)
        for _ in range(2_500):
            workspace.agent("a").read("k")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["sequence_number"] for line in lines] == list(range(1, 2_502))


def test_c7_an_audit_that_raises_loses_and_breaks_nothing() -> None:
    def raising(entry: dict[str, Any]) -> None:
        raise RuntimeError("planted")

    with ccs_stream.connect(content_audit_log=raising, state_log=raising) as workspace:
        written = workspace.agent("a").write("k", 1)
        reading = workspace.agent("a").read("k")
        assert reading is not None
        assert (written.version, reading.value) == (1, 1)
        reading = workspace.agent("b").read("k")
        assert reading is not None
        assert reading.value == 1


def test_an_audit_that_calls_the_workspace_back_deadlocks_nothing() -> None:
    seen: list[Any] = []

    def calls_back(entry: dict[str, Any]) -> None:
        if entry["agent_name"] == "a":
            reading = workspace.agent("watcher").read("k")
            seen.append(None if reading is None else reading.value)

    workspace = ccs_stream.connect(content_audit_log=calls_back)
    workspace.agent("a").write("k", 1)
    until("it was told", lambda: seen)
    workspace.close()
    assert seen == [1]


# Reads take no lock: what others do in between must not make a delivery say what was not so.


def test_a_copy_given_while_its_replacement_is_folded_is_not_said_to_be_valid_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ccs_stream.connect(deliveries=True) as workspace:
        a, b = workspace.agent("a"), workspace.agent("b")
        a.write("k", 1)
        b.read("k")
        fold_one = evolve.evolve

        def reading_in_between(state: Any, event: Any) -> None:
            if type(event) is WriteCommitted and state is workspace.engine.state:
                b.read("k", freshness="local")
            fold_one(state, event)

        monkeypatch.setattr(evolve, "evolve", reading_in_between)
        replaced_at = a.write("k", 2).answer.first_sequence
        given = [each for each in workspace.deliveries() if each.agent == "b"][-1]
        assert (given.version, given.source) == (1, DeliverySource.CACHE_HIT)
        assert given.valid_at_sequence < replaced_at


def test_a_copy_that_came_while_it_was_looked_for_is_not_said_to_be_older_than_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ccs_stream.connect(deliveries=True) as workspace:
        a = workspace.agent("a")
        a.write("k", 1)
        look = workspace.engine.reader.servable
        written: list[int] = []

        def writing_in_between(*arguments: Any) -> Any:
            if not written:
                written.append(0)
                written[0] = workspace.agent("a").write("k", 2).answer.first_sequence
            return look(*arguments)

        monkeypatch.setattr(workspace.engine.reader, "servable", writing_in_between)
        a.read("k")
        given = list(workspace.deliveries())[-1]
        assert (given.version, given.source) == (2, DeliverySource.CACHE_HIT)
        assert given.valid_at_sequence >= written[0]
