"""Old logs, new code: every released file is read, to the same state, for ever."""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.log.archive import ArchiveLog
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.fold import fold_entry, fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import Draft, SnapshotBlob
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import open_at_snapshot, read_snapshot
from ccs_stream.projections.invariants import FindingKind, Invariants
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import EVENT_TYPES, CommandAnswered, WriteCommitted
from ccs_stream.protocol.ids import SequenceNumber, artifact_id
from ccs_stream.protocol.reclaims import ReclaimReason
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed
from ccs_stream.protocol.statehash import state_hash
from tests.log.led import FIRST, SECOND, SECRET, VOID
from tests.log.samples import EVENTS, RECORDS, TRACE_PARENT
from tests.log.scenario import IDENTITY, SWEPT_S, play

GOLDEN = Path(__file__).parent / "golden" / "v1"
RECORDED: dict[str, str] = {
    name: data
    for file in ("records.json", "records-2.json", "records-3.json")
    for name, data in json.loads((GOLDEN / file).read_text("utf-8")).items()
}
LOGS: dict[str, dict[str, Any]] = {
    name: json.loads((GOLDEN / name).read_text("utf-8"))
    for name in ("log.json", "log-2.json", "log-3.json", "log-4.json")
}
"""One history; since the second, a refusal says why and when something was reclaimed. In the third, writes carry a
trace, and in the fourth joins say which process they come from; both change nothing in the state they lead to."""
LOG, LATEST, TRACED, IDENTIFIED = (LOGS[f"log{part}.json"] for part in ("", "-2", "-3", "-4"))
every_log = pytest.mark.parametrize("golden", LOGS.values(), ids=LOGS)


class GoldenLog(MemoryLog):
    """A log in memory that begins with the golden first record instead of one of its own."""

    def __init__(self, golden: dict[str, Any] = LOG) -> None:
        heads = [
            (bytes.fromhex(head), tuple(bytes.fromhex(body) for body in bodies)) for head, bodies in golden["records"]
        ]
        opened, _ = DEFAULT_CODEC.decode_record(heads[0][0])
        super().__init__(log_id=opened.log_id)  # type: ignore[union-attr]
        shard = self._shard(golden["workspace"])
        shard.records[0].head = heads[0][0]
        for offset, (head, bodies) in enumerate(heads[1:]):
            record, _ = DEFAULT_CODEC.decode_record(head)
            assert isinstance(record, DecisionRecord)
            last = record.first_sequence + len(record.events) - 1
            self.append(golden["workspace"], [Draft(head, bodies, record.first_sequence, last)], offset)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_golden_event_decodes_to_what_was_written_and_encodes_to_the_same_bytes(name: str) -> None:
    assert DEFAULT_CODEC.decode_event(bytes.fromhex(RECORDED[name])) == EVENTS[name]
    assert DEFAULT_CODEC.encode_event(EVENTS[name]).hex() == RECORDED[name]


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_golden_record_decodes_to_what_was_written_and_encodes_to_the_same_bytes(name: str) -> None:
    assert DEFAULT_CODEC.decode_record(bytes.fromhex(RECORDED[name]))[0] == RECORDS[name]
    assert DEFAULT_CODEC.encode_record(RECORDS[name]).hex() == RECORDED[name]


def test_every_event_has_a_golden_file() -> None:
    assert {event.__name__ for event in EVENT_TYPES} == {name.partition("-")[0] for name in EVENTS}
    assert set(RECORDED) == set(EVENTS) | set(RECORDS)


@every_log
def test_the_golden_logs_fold_to_their_golden_state(golden: dict[str, Any]) -> None:
    reader, state = ShardReader(GoldenLog(golden), LOG["workspace"]), Directory()
    entries = list(fold_log(reader, state))
    assert {entry.verdict for entry in entries} == {Verdict.ADMITTED}
    assert reader.position(LOG["workspace"]).hash.hex() == golden["chain_hash"]
    assert (state.sequence, state_hash(state)) == (golden["sequence"], golden["state_hash"])
    assert golden["state_hash"] == LOG["state_hash"]


@every_log
def test_every_event_occurs_in_the_golden_log(golden: dict[str, Any]) -> None:
    reader = ShardReader(GoldenLog(golden), LOG["workspace"])
    occurring = {type(event) for entry in reader.read() for event in entry.events}
    assert set(EVENT_TYPES) - occurring == {CommandAnswered}  # only a log with a commands topic holds that one


@every_log
def test_the_golden_log_breaks_no_invariant(golden: dict[str, Any]) -> None:
    found = Invariants()
    for entry in ShardReader(GoldenLog(golden), LOG["workspace"]).read():
        if isinstance(entry.record, DecisionRecord):
            found.decision(entry.record, entry.events)
    assert set(found.counts) == {FindingKind.LOST_UPDATE}
    assert found.losses == 1


@pytest.mark.parametrize(
    ("said", "golden"), [({}, LATEST), ({"trace_parent": TRACE_PARENT}, TRACED), ({"identity": IDENTITY}, IDENTIFIED)]
)
def test_the_same_history_still_leads_to_the_same_bytes(said: dict[str, Any], golden: dict[str, Any]) -> None:
    drafts, state, _ = play(**said)
    assert [draft.head.hex() for draft in drafts] == [head for head, _ in golden["records"]]
    assert state_hash(state) == LOG["state_hash"]


@pytest.mark.parametrize(("golden", "carried"), [(LATEST, None), (TRACED, TRACE_PARENT)])
def test_every_write_of_a_traced_log_carries_its_trace(golden: dict[str, Any], carried: str | None) -> None:
    reader = ShardReader(GoldenLog(golden), LOG["workspace"])
    writes = [event for entry in reader.read() for event in entry.events if isinstance(event, WriteCommitted)]
    assert len(writes) == 9
    assert {each.options.trace_parent if each.options is not None else None for each in writes} == {carried}


@pytest.mark.parametrize("name", ["snapshot.hex", "snapshot-2.hex"])
def test_the_golden_snapshots_are_that_state(name: str) -> None:
    data = bytes.fromhex((GOLDEN / name).read_text("utf-8"))
    blob = SnapshotBlob(snapshot_id="golden", sequence=SequenceNumber(LOG["sequence"]), data=data)
    read = read_snapshot(blob)
    state, position, said = read.state, read.position, read.state_hash
    assert (position.sequence, said, state_hash(state)) == (LOG["sequence"], LOG["state_hash"], LOG["state_hash"])
    store = GoldenLog()
    store.save_snapshot(LOG["workspace"], blob)
    reader = ShardReader(store, LOG["workspace"])
    opened = open_at_snapshot(store, LOG["workspace"], reader)
    assert reader.offset == store.end(LOG["workspace"])
    assert opened.existing.keys() == state.existing.keys()


@pytest.mark.parametrize(("name", "until_s", "golden"), [("-2", math.inf, LOG), ("-3", SWEPT_S, LATEST)])
def test_the_golden_cursor_is_where_the_golden_log_stood(name: str, until_s: float, golden: dict[str, Any]) -> None:
    read = read_snapshot(golden_snapshot(f"snapshot{name}.hex"))
    _, state, cursor = play(until_s)
    reader = ShardReader(GoldenLog(golden), LOG["workspace"])
    while reader.cursor.end(LOG["workspace"]).sequence < state.sequence:
        next(reader.read())
    assert read.cursor is not None
    assert read.cursor.workspaces == reader.cursor.workspaces
    assert read.cursor == dataclasses.replace(cursor, workspaces=reader.cursor.workspaces)
    assert read.body_offsets == {each.sequence: each.sequence * 2 for each in state.artifacts.values()}


def golden_snapshot(name: str) -> SnapshotBlob:
    """A snapshot as it was kept."""
    data = bytes.fromhex((GOLDEN / name).read_text("utf-8"))
    return SnapshotBlob(snapshot_id="golden", sequence=SequenceNumber(LOG["sequence"]), data=data)


def test_a_golden_snapshot_knows_why_and_when_something_was_reclaimed() -> None:
    _, state, _ = play(SWEPT_S)
    told = {reclaim for each in state.participants.values() for reclaim in each.reclaimed.values()}
    assert {each.reason for each in told if each is not None} == {ReclaimReason.HEARTBEAT}
    read = read_snapshot(golden_snapshot("snapshot-3.hex")).state
    assert state_hash(read) == state_hash(state)
    assert read.participants == state.participants
    store = GoldenLog(LATEST)
    store.save_snapshot(LOG["workspace"], golden_snapshot("snapshot-3.hex"))
    reader = ShardReader(store, LOG["workspace"])
    assert open_at_snapshot(store, LOG["workspace"], reader).sequence == state.sequence
    assert reader.offset < store.end(LOG["workspace"])


def test_a_golden_snapshot_knows_the_processes_of_live_sessions() -> None:
    _, state, _ = play(SWEPT_S, identity=IDENTITY)
    read = read_snapshot(golden_snapshot("snapshot-4.hex")).state
    assert state_hash(read) == state_hash(state) == state_hash(play(SWEPT_S)[1])
    assert read.sessions == state.sessions
    assert [each.process for each in read.sessions.values()] == [IDENTITY] * len(read.sessions)
    silent = read_snapshot(golden_snapshot("snapshot-3.hex")).state
    assert [each.process for each in silent.sessions.values()] == [None] * len(read.sessions)


def golden_archive(name: str, folder: Path) -> ArchiveLog:
    """A golden archive as the file it was."""
    path = folder / "golden.avro"
    path.write_bytes(bytes.fromhex((GOLDEN / name).read_text("utf-8")))
    return ArchiveLog(path)


@pytest.mark.parametrize(("name", "alone"), [("archive.hex", True), ("archive-2.hex", False)])
def test_the_golden_archives_are_that_state(name: str, alone: bool, tmp_path: Path) -> None:
    archive = golden_archive(name, tmp_path)
    assert archive.serialises_writers is alone
    reader, state = ShardReader(archive, LOG["workspace"]), Directory()
    entries = list(reader.read())
    for entry in entries:
        fold_entry(state, entry)
    assert state_hash(state) == archive.anchor.state_hash == LOG["state_hash"]
    assert reader.position(LOG["workspace"]).hash == archive.anchor.hash
    void = Counter(entry.verdict.value for entry in entries if entry.verdict is not Verdict.ADMITTED)
    assert void == ({} if alone else VOID)
    claims = [
        entry.record.leader_id
        for entry in entries
        if entry.verdict is Verdict.ADMITTED and isinstance(entry.record, LeaderClaimed)
    ]
    assert claims == ([] if alone else [FIRST, SECOND])
    assert archive.workspaces() == [LOG["workspace"]]
    for entry in entries:
        if entry.verdict is Verdict.ADMITTED and isinstance(entry.record, DecisionRecord):
            found = archive.find(LOG["workspace"], entry.record.first_sequence)
            assert found is not None
            assert (found.offset, found.contents) == (entry.offset, entry.stored.contents)


def test_a_golden_archive_holds_no_body_of_another_workspace(tmp_path: Path) -> None:
    archive = golden_archive("archive-2.hex", tmp_path)
    theirs = [stored for stored in archive.read(LOG["workspace"], -1) if b"other" in stored.head]
    assert len(theirs) > 20
    assert not any(SECRET.encode() in stored.head + stored.tail for stored in theirs)


def test_a_snapshot_of_another_log_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    data = bytes.fromhex((GOLDEN / "snapshot.hex").read_text("utf-8"))
    store = MemoryLog()
    store.save_snapshot("golden", SnapshotBlob(snapshot_id="golden", sequence=SequenceNumber(46), data=data))
    reader = ShardReader(store, "golden")
    assert open_at_snapshot(store, "golden", reader).sequence == 0
    assert "is not used" in caplog.text


def test_derived_indexes_are_what_a_scan_says() -> None:
    _, state, _ = play()
    held = {number: set(each.held) for number, each in state.participants.items()}
    existing = {scope: dict(keys) for scope, keys in state.existing.items()}
    state.rebuild_indexes()
    assert {number: each.held for number, each in state.participants.items()} == held
    assert state.existing == existing


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("w", ("a:b",), "k"), "1"),
        (("w", ("a", "b"), "k"), "2"),
        (("w", ("a",), "b:k"), "3"),
        (("w", (), "k"), "4"),
        (("ü", ("[",), '"]'), "5"),
    ],
)
def test_artifact_ids_are_golden(address: tuple[str, tuple[str, ...], str], expected: str) -> None:
    assert artifact_id(*address).hex() == json.loads((GOLDEN / "artifact_ids.json").read_text("utf-8"))[expected]


def test_the_golden_files_are_those_that_were_released() -> None:
    """Whoever changes one changes this list too, and is asked why."""
    digests = json.loads((GOLDEN / "SHA256.json").read_text("utf-8"))
    found = {
        str(path.relative_to(GOLDEN)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(GOLDEN.rglob("*"))
        if path.is_file() and path.name != "SHA256.json"
    }
    assert found == digests
