"""Reading, reserving, renewing, sweeping: who holds what, and for how long."""

import pytest

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import TRANSITIONS, GrantAct, GrantState
from ccs_stream.testing.given_when_then import Story

M, E, S, I = GrantState.MODIFIED, GrantState.EXCLUSIVE, GrantState.SHARED, GrantState.INVALID  # noqa: E741
RECOVERY = WorkspaceSettings(
    crash_recovery=True,
    heartbeat_interval_us=Micros(5 * SECOND_US),
    session_timeout_us=Micros(30 * SECOND_US),
    maximum_hold_us=Micros(100 * SECOND_US),
)


def test_a_reader_alone_holds_an_exclusive_copy_and_a_second_makes_both_shared() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.leave("a"))
    story.when(story.read("b", "k")).then(ev.GrantIssued)
    assert story.grant("b", "k") is E
    story.when(story.read("c", "k")).then(ev.GrantIssued)
    assert (story.grant("b", "k"), story.grant("c", "k")) == (S, S)


def test_a_reader_makes_a_modified_copy_shared() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.read("b", "k"))
    assert (story.grant("a", "k"), story.grant("b", "k")) == (S, S)


def test_a_reader_that_holds_a_copy_changes_nothing() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.read("b", "k"))
    for who in ("a", "b"):
        story.when(story.read(who, "k")).nothing()
    story.when(story.read("a", "absent")).nothing()


def test_grants_belong_to_participants_not_to_names() -> None:
    story = Story()
    story.given(story.write("a@1", "k"), story.read("a@2", "k"), story.write("a@1", "k"))
    assert (story.grant("a@1", "k"), story.grant("a@2", "k")) == (M, I)


def arrange(story: Story, state: GrantState) -> None:
    """Bring `me` into a state; `other` holds a copy where the state allows."""
    if state is M:
        story.given(story.write("me", "k"))
    elif state is E:
        story.given(story.write("x", "k"), story.leave("x"), story.read("me", "k"))
    elif state is S:
        story.given(story.write("other", "k"), story.read("me", "k"))
    else:
        story.given(story.write("me", "k"), story.write("other", "k"))


@pytest.mark.parametrize("act", GrantAct)
@pytest.mark.parametrize("state", GrantState)
def test_every_cell_of_the_table_agrees_with_decide_and_fold(act: GrantAct, state: GrantState) -> None:
    story = Story(RECOVERY)
    arrange(story, state)
    assert story.grant("me", "k") is state
    me = story.participant("me")
    match act:
        case GrantAct.OWN_READ:
            story.when(story.read("me", "k"))
        case GrantAct.OWN_WRITE:
            story.when(story.write("me", "k"))
        case GrantAct.OWN_DELETE:
            story.when(story.delete("me", "k"))
        case GrantAct.OTHER_READ:
            story.when(story.read("third", "k"))
        case GrantAct.OTHER_WRITE:
            story.when(story.write("third", "k"))
        case GrantAct.OTHER_DELETE:
            story.when(story.delete("third", "k"))
        case GrantAct.RECLAIMED:
            story.after(31).when(story.sweep())
        case GrantAct.SESSION_END:
            story.when(story.leave("me"))
    assert story.artifact("k").state_of(me) in TRANSITIONS[act][state]


def test_an_invalid_reader_becomes_exclusive_only_where_there_is_no_other_copy() -> None:
    alone, together = Story(), Story()
    alone.given(alone.write("x", "k"), alone.leave("x"), alone.read("me", "k"))
    together.given(together.write("x", "k"), together.read("me", "k"))
    assert (alone.grant("me", "k"), together.grant("me", "k")) == (E, S)


def test_fences_rise_at_every_acquire_release_and_reclaim() -> None:
    story = Story()
    fences = []
    story.given(story.acquire("a", "k", 1))
    fences.append(story.artifact("k").fence)
    story.given(story.release("a", "k", 1))
    fences.append(story.artifact("k").fence)
    story.given(story.acquire("b", "k", 1))
    fences.append(story.artifact("k").fence)
    story.after(2).given(story.acquire("a", "k", 1))
    fences.append(story.artifact("k").fence)
    story.after(2).given(story.sweep())
    fences.append(story.artifact("k").fence)
    story.given(story.acquire("b", "k", 1), story.leave("b"))
    fences.append(story.artifact("k").fence)
    assert fences == [1, 2, 3, 5, 6, 8]


def test_acquiring_an_artifact_that_never_existed_makes_nothing_to_read() -> None:
    story = Story()
    story.when(story.acquire("a", "k")).then(ev.ArtifactRegistered, ev.ReservationAcquired)
    story.when(story.read("b", "k")).nothing()
    assert not story.artifact("k").exists


def test_during_a_reservation_only_its_fence_passes() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k"))
    story.when(story.write("b", "k")).refused(ev.RefusalReason.RESERVED)
    story.when(story.delete("b", "k")).refused(ev.RefusalReason.RESERVED)
    story.when(story.write("a", "k")).refused(ev.RefusalReason.RESERVED)  # another thread of the holder
    story.when(story.write("a", "k", fence=9)).refused(ev.RefusalReason.FENCED)
    story.when(story.write("b", "k", fence=1)).refused(ev.RefusalReason.FENCED)
    story.when(story.write("a", "k", fence=1)).then(ev.WriteCommitted)
    story.when(story.acquire("b", "k")).refused(ev.RefusalReason.RESERVED)
    story.when(story.acquire("a", "k")).refused(ev.RefusalReason.RESERVED)


def test_a_reader_that_cancels_a_writers_reservation() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k"))
    story.when(story.read("b", "k")).then(ev.GrantIssued)
    story.when(story.write("a", "k", fence=1)).then(ev.WriteCommitted, ev.GrantsInvalidated)


def test_a_fence_without_a_standing_reservation_is_refused() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k"), story.release("a", "k", 1))
    story.when(story.write("a", "k", fence=1)).refused(ev.RefusalReason.FENCED)
    story.when(story.write("a", "k")).then(ev.WriteCommitted)


def test_zombie_write_after_a_reclaim() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k", 1))
    story.after(1)
    story.when(story.acquire("b", "k", 10)).then(ev.ReservationEnded, ev.ReservationAcquired)
    story.given(story.write("b", "k", fence=3))
    for late in (story.write("a", "k", fence=1), story.write("a", "k"), story.write("a", "k", base=2, cas=True)):
        story.when(late).refused(ev.RefusalReason.RECLAIMED)
    story.given(story.release("b", "k", 3))
    story.when(story.write("a", "k")).refused(ev.RefusalReason.RECLAIMED)
    story.given(story.read("a", "k"))
    story.when(story.write("a", "k")).then(ev.WriteCommitted, ev.GrantsInvalidated)


def test_a_reservation_that_ran_out_is_reclaimed_even_without_a_successor() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k", 1))
    story.after(1)
    story.when(story.write("a", "k", fence=1)).refused(ev.RefusalReason.RECLAIMED)
    story.when(story.release("a", "k", 1)).refused(ev.RefusalReason.RECLAIMED)
    story.when(story.read("a", "k")).then(ev.ReservationEnded, ev.GrantIssued)
    story.when(story.write("a", "k")).then(ev.WriteCommitted)


def test_a_reclaimed_writer_may_write_again_after_it_has_seen_that_nothing_is_there() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "k", 1))
    story.after(1).given(story.delete("b", "k"))
    story.when(story.write("a", "k")).refused(ev.RefusalReason.RECLAIMED)
    story.when(story.read("a", "k")).then(ev.GrantIssued)
    assert story.grant("a", "k") is I
    story.when(story.write("a", "k")).then(ev.WriteCommitted)


def test_a_release_needs_the_fence_and_the_reservation() -> None:
    story = Story()
    story.given(story.acquire("a", "k"))
    story.when(story.release("b", "k", 1)).refused(ev.RefusalReason.RECLAIMED)
    story.when(story.release("a", "k", 7)).refused(ev.RefusalReason.FENCED)
    story.when(story.release("a", "k", 1)).then(ev.ReservationEnded)
    story.when(story.release("a", "k", 1)).refused(ev.RefusalReason.RECLAIMED)


def test_a_reservation_has_a_longest_time() -> None:
    story = Story(WorkspaceSettings(maximum_reservation_us=Micros(10 * SECOND_US)))
    story.when(story.acquire("a", "k", 11)).refused(ev.RefusalReason.RESERVATION_TOO_LONG)
    story.when(story.acquire("a", "k", 0)).refused(ev.RefusalReason.RESERVATION_TOO_LONG)
    story.when(story.acquire("a", "k", 10)).then(ev.ArtifactRegistered, ev.ReservationAcquired)


def test_a_life_is_extended_at_most_once_per_tenth_of_it() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=100))
    story.after(9).when(story.refresh("b", "k")).nothing()
    story.after(1).when(story.refresh("b", "k")).then(ev.ExpiryExtended)
    story.after(9).when(story.refresh("b", "k")).nothing()
    story.after(90).when(story.refresh("b", "k")).then(ev.ExpiryExtended)
    story.given(story.write("a", "plain"))
    story.when(story.refresh("b", "plain")).nothing()
    story.after(200).when(story.refresh("b", "k")).then(ev.ArtifactDeleted, ev.GrantsInvalidated)


def test_a_session_is_renewed_only_while_it_holds_something_and_once_an_interval() -> None:
    story = Story(RECOVERY)
    story.given(story.join("a"))
    story.when(story.heartbeat("a")).nothing()
    story.given(story.write("a", "k"))
    story.when(story.heartbeat("a")).then(ev.SessionRenewed)
    story.after(4).when(story.heartbeat("a")).nothing()
    story.after(1).when(story.heartbeat("a")).then(ev.SessionRenewed)
    story.when(story.heartbeat("nobody")).refused(ev.RefusalReason.UNKNOWN_SESSION)


def test_without_crash_recovery_silence_costs_nothing() -> None:
    story = Story()
    story.given(story.write("a", "k"))
    story.when(story.heartbeat("a")).nothing()
    story.after(1_000_000).when(story.sweep()).nothing()
    assert story.grant("a", "k") is M


def test_with_crash_recovery_a_silent_owner_loses_its_grant_and_must_read_again() -> None:
    story = Story(RECOVERY)
    story.given(story.write("a", "k"))
    story.after(29).when(story.sweep()).nothing()
    story.after(1).when(story.sweep()).then(ev.GrantReclaimed)
    event = story.events[0]
    assert isinstance(event, ev.GrantReclaimed)
    assert (event.trigger, event.from_state) == (ev.ReclaimTrigger.SESSION_SILENT, M)
    story.given(story.write("b", "k"))
    story.when(story.write("a", "k")).refused(ev.RefusalReason.RECLAIMED)


def test_with_crash_recovery_a_renewed_owner_keeps_its_grant_to_the_maximum() -> None:
    story = Story(RECOVERY)
    story.given(story.write("a", "k"))
    for _ in range(9):
        story.after(11).given(story.heartbeat("a"))
        story.when(story.sweep()).nothing()
    story.after(2).when(story.sweep()).then(ev.GrantReclaimed)
    event = story.events[0]
    assert isinstance(event, ev.GrantReclaimed)
    assert event.trigger is ev.ReclaimTrigger.MAXIMUM_HOLD


def test_a_grant_that_ends_with_its_artifact_is_not_reclaimed_as_well() -> None:
    story = Story(RECOVERY)
    story.given(story.write("a", "k", ttl_s=1))
    story.after(30).when(story.sweep()).then(ev.ArtifactDeleted, ev.GrantsInvalidated)


def test_a_sweep_is_bounded_and_finding_nothing_decides_nothing() -> None:
    story = Story()
    story.when(story.sweep()).nothing()
    for number in range(10):
        story.given(story.write("a", f"k{number}", ttl_s=1))
    story.after(2)
    ended = 0
    for expected in (4, 4, 2):
        story.when(story.sweep(limit=4))
        ended += sum(isinstance(event, ev.ArtifactDeleted) for event in story.events)
        assert len([event for event in story.events if isinstance(event, ev.ArtifactDeleted)]) == expected
    assert ended == 10
    story.when(story.sweep()).nothing()


def test_an_extended_life_is_not_swept_at_its_old_end() -> None:
    story = Story()
    story.given(story.write("a", "k", ttl_s=100))
    story.after(50).given(story.refresh("a", "k"))
    story.after(51).when(story.sweep()).nothing()
    story.after(50).when(story.sweep()).then(ev.ArtifactDeleted, ev.GrantsInvalidated)


def test_surplus_sessions_are_ended_idlest_first() -> None:
    story = Story(WorkspaceSettings(maximum_sessions=2))
    for name in ("a", "b", "c"):
        story.after(1).given(story.write(name, "k"))
    story.after(1).given(story.write("a", "k"))
    story.when(story.sweep()).then(ev.SessionEnded)
    event = story.events[0]
    assert isinstance(event, ev.SessionEnded)
    assert (event.session_id, event.reason) == (story.read("b", "k").session_id, ev.SessionEndReason.EVICTED)


def test_the_kind_of_a_command_is_in_the_envelope_s_words() -> None:
    story = Story()
    assert story.write("a", "k").KIND is CommandKind.COMMIT
    assert story.delete("a", "k").KIND is CommandKind.DELETE
    assert story.commit("a", story.change("k"), story.change("j")).KIND is CommandKind.COMMIT_ALL
