"""Logs whose leaders claim, without a broker: what is void is ordinary, what is missing is not; one leads at a time."""

import dataclasses
from pathlib import Path

import pytest

from ccs_stream.log.archive import Anchor
from ccs_stream.log.archive_writer import write_archive
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import StoredRecord
from ccs_stream.log.reader import LogEntry
from ccs_stream.projections.invariants import FindingKind, Invariants
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.ids import GENESIS_HASH, DecisionIndex, Epoch, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned, Record
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay.epochs import LeadershipChecks
from ccs_stream.replay.source import Source, decision_of
from ccs_stream.replay.verify import VerifyOptions, check
from tests.log.led import FIRST, OTHER, SECOND, SECRET, VOID, LedLog, play_led
from tests.log.scenario import LOG_ID, WORKSPACE
from tests.replay.conftest import Run, read_json

QUICK = VerifyOptions(bodies=False)


@pytest.fixture(scope="module")
def led() -> LedLog:
    return play_led()


@pytest.fixture
def archived(led: LedLog, tmp_path: Path) -> Path:
    end = led.cursor.end(WORKSPACE)
    anchor = Anchor(
        workspace=WORKSPACE,
        log_id=LOG_ID,
        offset=led.end(WORKSPACE),
        sequence=end.sequence,
        hash=end.hash,
        state_hash=state_hash(led.states[WORKSPACE]),
    )
    write_archive(led, WORKSPACE, tmp_path / "led.avro", anchor=anchor)
    return tmp_path / "led.avro"


def records(log: LedLog, workspace: str = WORKSPACE) -> list[Record]:
    """What was admitted, of one workspace."""
    entries = Source(log, workspace).reader().read()
    return [each.record for each in entries if each.verdict is Verdict.ADMITTED]  # type: ignore[misc]


def without(log: LedLog, *offsets: int) -> LedLog:
    """The same with records cut out."""
    cut = LedLog()
    kept = [each for each in log.read("", -1) if each.offset not in offsets]
    cut._shard("").records = [StoredRecord(at, each.head, tail=each.tail) for at, each in enumerate(kept)]
    return cut


def judged(changed: list[Record]) -> dict[FindingKind, int]:
    """What the check of terms says of records that somebody admitted."""
    found = Invariants()
    terms = LeadershipChecks(found, claimed=True)
    for offset, record in enumerate(changed):
        terms.take(LogEntry(StoredRecord(offset, b""), record, Verdict.ADMITTED, [], GENESIS_HASH))
    return found.counts


def test_info_counts_the_shard_and_the_workspace(archived: Path, run: Run) -> None:
    info = read_json(run("file:led.avro", "info", "--json"))
    assert info["void_records"] == VOID
    first, second = info["epochs"]
    assert (first["leader_id"], second["leader_id"]) == (FIRST.hex(), SECOND.hex())
    assert (first["resigned"], second["resigned"], info["leader"]) == (True, False, SECOND.hex())
    assert (first["decisions"], first["shard_decisions"]) == (14, 28)
    assert first["decisions"] + second["decisions"] == info["decisions"]
    # What is admitted is what opened the log, decisions, two claims and a resignation.
    assert first["shard_decisions"] + second["shard_decisions"] + 4 + sum(VOID.values()) == info["records"]


def test_a_log_without_claims_has_no_epochs(path: Path, run: Run) -> None:
    info = read_json(run(f"sqlite:///{path}", "info", "--json"))
    assert (info["epochs"], info["epoch"], info["leader"]) == ([], 0, None)
    assert "claimed at" not in run(f"sqlite:///{path}", "info").stdout


def test_void_records_are_counted_and_shown_on_request(archived: Path, run: Run) -> None:
    plain = run("file:led.avro", "timeline")
    assert plain.stderr == f"{sum(VOID.values())} void records not shown; --include-void shows them\n"
    assert "epoch 2 claimed by b2b2b2b2 (ccs-stream 0.1.0)" in plain.stdout
    assert "epoch 1 ended: a1a1a1a1 resigned" in plain.stdout
    shown = run("file:led.avro", "timeline", "--include-void")
    assert shown.stderr == ""
    assert shown.stdout.count("void (") == sum(VOID.values())
    assert "void (not_leader)" in shown.stdout
    assert f"commit of {OTHER}" in shown.stdout
    assert "17 bytes that are no record" in shown.stdout
    assert SECRET not in shown.stdout


def test_positions_skip_records_of_other_workspaces(led: LedLog) -> None:
    source = Source(led, WORKSPACE)
    decisions = [(each.offset, record) for each in source.reader().read() if (record := decision_of(each))]
    last = decisions[-1][1].first_sequence + len(decisions[-1][1].events) - 1
    assert source.offset("-1") == source.offset(str(last)) == decisions[-1][0] < led.end(WORKSPACE)
    for offset, record in decisions:
        assert source.offset(str(record.first_sequence)) == offset
        same = [at for at, each in decisions if each.recorded_at <= record.recorded_at]
        assert source._pass_to(record.recorded_at) == same[-1]
    assert source._pass_to(0) == 0


def test_verify_does_not_report_void_records(led: LedLog) -> None:
    for workspace in (WORKSPACE, OTHER):
        checked = check(Source(led, workspace), QUICK)
        assert checked.found.violations == 0
        assert checked.epochs.void == VOID
        assert checked.records == led.end("") + 1


def test_a_record_cut_out_of_an_epoch_that_ended_is_found(led: LedLog) -> None:
    reader = Source(led, WORKSPACE).reader()
    offsets = [each.offset for each in reader.read() if (record := decision_of(each)) and record.epoch == 1]
    found = check(Source(without(led, offsets[-1], offsets[-1] + 1), WORKSPACE), QUICK).found
    assert found.counts[FindingKind.VOID_RECORD] > 0


def test_the_log_of_another_partition_is_found(led: LedLog) -> None:
    class Mixed(LedLog):
        """Says that it is another log than its shard."""

        log_id = MemoryLog().log_id

    mixed = Mixed()
    mixed._shards = led._shards
    assert check(Source(mixed, WORKSPACE), QUICK).found.counts[FindingKind.DIVERGED] == 1


def test_epochs_are_those_of_the_log(led: LedLog) -> None:
    assert judged(records(led)) == {}


@pytest.mark.parametrize("what", ["unled", "other_epoch", "other_leader", "resigned", "index", "sequence", "twice"])
def test_each_break_of_leadership_is_found(led: LedLog, what: str) -> None:
    changed = records(led)
    at = next(n for n, each in enumerate(changed) if isinstance(each, DecisionRecord) and each.epoch == 2)
    claim = next(n for n, each in enumerate(changed) if isinstance(each, LeaderClaimed) and each.epoch == 2)
    record = changed[at]
    assert isinstance(record, DecisionRecord)
    match what:
        case "unled":
            changed = [each for each in changed if isinstance(each, DecisionRecord)]
        case "other_epoch":
            changed[at] = dataclasses.replace(record, epoch=Epoch(1))
        case "other_leader":
            changed[at] = dataclasses.replace(record, leader_id=FIRST)
        case "resigned":
            changed.insert(at, LeaderResigned(epoch=Epoch(2), leader_id=SECOND))
        case "index":
            after = changed[at + 1]
            assert isinstance(after, DecisionRecord)
            changed[at + 1] = dataclasses.replace(after, index=DecisionIndex(1))
        case "sequence":
            changed[at] = dataclasses.replace(record, first_sequence=SequenceNumber(record.first_sequence + 1))
        case _:
            claimed = changed[claim]
            assert isinstance(claimed, LeaderClaimed)
            changed[claim] = dataclasses.replace(claimed, leader_id=FIRST)
    counts = judged(changed)
    assert set(counts) == {FindingKind.HASH_CHAIN if what == "sequence" else FindingKind.SINGLE_WRITER}
