"""The checker itself: a sound run passes, and each violation planted in one is found.

A checker that finds nothing proves nothing; what it is relied on for is broken here, once each.
"""

import pytest

from tests.faults.checker import Report, check, facts_of, longest_gap_s
from tests.faults.crafted import Run, fields_of

pytestmark = pytest.mark.faults


@pytest.fixture
def run() -> Run:
    """Two writes and two increments, and reads between them."""
    run = Run()
    run.read(None)
    first = run.write()
    run.read(first)
    run.increment(1)
    second = run.write()
    run.read(second, freshness="latest")
    run.read(second, freshness="at_least", asked=first.sequence)
    run.increment(2)
    return run


def judged(run: Run) -> Report:
    return check(facts_of([run.log.raws]), run.operations)


def found(run: Run, what: str) -> Report:
    report = judged(run)
    assert any(what in each for each in report.violations), report.violations
    return report


def test_a_sound_run_passes(run: Run) -> None:
    report = judged(run)
    assert report.violations == []
    assert (report.acknowledged, report.reads, report.lost, report.twice, report.unknown) == (4, 4, 0, 0, 0)


def test_an_acknowledged_write_that_is_not_in_the_log(run: Run) -> None:
    run.call("write", "k", version=3, sequence=9, value={"op": "o8"})
    assert found(run, "is lost").lost == 1


def test_an_acknowledged_write_cut_out_of_the_log(run: Run) -> None:
    del run.log.values[-1]
    assert found(run, "is lost").lost == 1


def test_a_record_missing_in_the_middle_of_an_epoch_voids_those_behind_it(run: Run) -> None:
    del run.log.values[3]
    report = found(run, "is lost")
    assert report.lost == 3
    assert report.void == {"index_gap": 2}


def test_a_write_applied_twice(run: Run) -> None:
    run.log.write("w", "k", run.operations[1].value)
    assert found(run, "was applied 2 times").twice == 1


def test_a_command_decided_twice(run: Run) -> None:
    operation = run.write()
    run.log.number -= 1
    again = run.write()
    assert operation.value != again.value
    found(run, "was decided twice")


def test_versions_that_do_not_follow_each_other(run: Run) -> None:
    operation = run.call("write", "k", value={"op": "o8"}, version=7)
    _, operation.sequence = run.log.write("w", "k", operation.value, version=7)
    found(run, "version 7 of 'k' follows 2")


def test_two_acknowledgements_that_are_swapped(run: Run) -> None:
    one, two = run.operations[1], run.operations[4]
    one.version, two.version = two.version, one.version
    found(run, "was acknowledged as")


def test_an_acknowledgement_at_another_sequence(run: Run) -> None:
    operation = run.operations[1]
    assert operation.sequence is not None
    operation.sequence += 1
    found(run, "was acknowledged as")


def test_a_write_in_another_ones_name(run: Run) -> None:
    run.operations[1].agent = "b"
    found(run, "was acknowledged as")


def test_a_failed_write_that_is_in_the_log(run: Run) -> None:
    run.operations[1].outcome = "fail"
    found(run, "failed (None) and is in the log")


def test_a_write_without_a_command(run: Run) -> None:
    run.log.write("w", "k", {"op": "nobody's"})
    found(run, "no history asks for")


def test_an_unknown_outcome_may_be_there_once_or_not_at_all(run: Run) -> None:
    landed = run.write(outcome="unknown", ended_at=None)
    landed.version, landed.sequence = 0, None
    run.call("write", "k", value={"op": "o9"}, outcome="unknown", ended_at=None)
    report = judged(run)
    assert report.violations == []
    assert (report.unknown, report.landed) == (2, 1)
    run.log.write("w", "k", landed.value)
    assert found(run, "was applied 2 times").twice == 1


def test_an_error_that_is_none_of_ours(run: Run) -> None:
    run.call("read", "k", outcome="bug", error="KeyError")
    found(run, "raised KeyError")


def test_a_lost_update_of_a_guarded_counter(run: Run) -> None:
    run.increment(2)
    found(run, "a lost update")


def test_two_leaders_in_one_epoch(run: Run) -> None:
    other = run.log.claim(epoch=1)
    run.log.decide("w", [], leader_id=other)
    found(run, "two leaders in epoch 1")
    assert judged(run).void == {"epoch_not_next": 1, "not_leader": 1}


def test_a_leader_that_comes_back_under_its_old_id(run: Run) -> None:
    first = run.log.leader
    run.log.claim()
    run.log.claim()
    assert run.log.values[-1] is not None
    run.log.values[-1] = run.log.values[-1].replace(run.log.leader, first)
    found(run, "has led before")


def test_records_of_an_old_epochs_leader_are_void_and_no_violation(run: Run) -> None:
    old = run.log.leader
    run.log.claim()
    run.log.decide("w", [], epoch=1, leader_id=old, index=5)
    run.write()
    report = judged(run)
    assert report.violations == []
    assert report.void == {"old_epoch": 1}


def test_records_of_a_leader_after_its_resignation_are_void(run: Run) -> None:
    run.log.resign()
    operation = run.write()
    assert found(run, "is lost").void == {"not_leader": 1}
    assert operation.outcome == "ok"


def test_a_gap_in_a_workspaces_sequences(run: Run) -> None:
    run.log.decide("w", [], first_sequence=99)
    found(run, "left a gap in a workspace's sequences")


def test_a_broken_hash_chain(run: Run) -> None:
    run.log.hashes["w"] = b"x" * 32
    run.write()
    found(run, "the hash chain breaks")


def test_an_event_that_cannot_be_read(run: Run) -> None:
    run.log.decide("w", [("ArtifactRegistered", {"artifact": bytes(16), "scope": [], "key": "x"})])
    last = run.log.values[-1]
    assert last is not None
    event = fields_of(last)["events"][0]
    run.log.values[-1] = last.replace(event, b"\0" * len(event))
    found(run, "cannot be read")


def test_a_log_without_its_head(run: Run) -> None:
    del run.log.values[0]
    found(run, "the log begins with a LeaderClaimed")


def test_garbage_is_void_and_no_violation(run: Run) -> None:
    run.log.values += [None, b"", b"garbage", b"\xc3\x01 garbage of a length"]
    report = judged(run)
    assert report.violations == []
    assert report.void == {"foreign": 4}


def test_a_stale_read_of_ones_own_write(run: Run) -> None:
    run.read(run.operations[1])
    found(run, "its own process had written version 2 before")


def test_a_read_that_goes_back_in_a_session(run: Run) -> None:
    run.read(run.operations[1], freshness="local")
    found(run, "its session had seen version 2 before")


def test_a_stale_read_by_another_process_is_allowed_unless_it_asked_for_more(run: Run) -> None:
    run.read(run.operations[1], process="q")
    assert judged(run).violations == []
    run.read(run.operations[1], process="r", freshness="latest")
    found(run, "version 2 was in the log before it began")


def test_a_read_below_the_position_it_asked_for(run: Run) -> None:
    run.read(run.operations[1], process="q", freshness="at_least", asked=run.operations[4].sequence)
    found(run, "which was asked for")


def test_a_read_of_nothing_below_the_position_it_asked_for(run: Run) -> None:
    run.read(None, process="q", freshness="at_least", asked=run.operations[1].sequence)
    found(run, "which was asked for")


def test_a_read_of_a_value_that_its_version_never_had(run: Run) -> None:
    run.read(run.operations[4]).seen = {"op": "o1"}
    found(run, "not the value of that version")


def test_a_read_that_claims_a_position_at_which_there_was_another_version(run: Run) -> None:
    read = run.read(run.operations[1], process="q")
    read.sequence = run.operations[4].sequence
    found(run, "which it says it is valid at, there was version 2")


def test_reads_that_overlap_a_write_may_see_either(run: Run) -> None:
    write = run.write()
    read = run.read(run.operations[4])
    read.invoked_at = write.invoked_at + 0.1
    assert judged(run).violations == []


def test_the_longest_gap_is_of_one_workspace(run: Run) -> None:
    run.now = 100.0
    run.write(workspace="v")
    assert longest_gap_s(run.operations) == pytest.approx(4.0, abs=1.1)
    run.now = 200.0
    run.write()
    assert longest_gap_s(run.operations) > 100
