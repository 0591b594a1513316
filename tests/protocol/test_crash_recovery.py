"""Crash recovery: the grants that a silent session loses and when, its refusals, and its way back."""

import pytest

from ccs_stream.protocol.decide_grants import may_reclaim
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.events import (
    CommandRefused,
    GrantIssued,
    GrantReclaimed,
    GrantsInvalidated,
    ReclaimTrigger,
    RefusalReason,
    ReservationEnded,
    SessionRenewed,
    WriteCommitted,
)
from ccs_stream.protocol.ids import ArtifactId, Micros, ParticipantNumber
from ccs_stream.protocol.overlay import LayeredMap, Overlay
from ccs_stream.protocol.reclaims import Reclaim, ReclaimReason
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.given_when_then import Story

M, E, S, I = GrantState.MODIFIED, GrantState.EXCLUSIVE, GrantState.SHARED, GrantState.INVALID  # noqa: E741
TICK_S = 0.000_001
"""The shortest time there is."""


def recovering(*, timeout_s: float = 30, hold_s: float = 1_000) -> Story:
    """A workspace with crash recovery."""
    return Story(
        WorkspaceSettings(
            crash_recovery=True,
            heartbeat_interval_us=Micros(round(timeout_s * SECOND_US / 5)),
            session_timeout_us=Micros(round(timeout_s * SECOND_US)),
            maximum_hold_us=Micros(round(hold_s * SECOND_US)),
        )
    )


def reclaimed(story: Story, key: str, who: str, from_state: GrantState, trigger: ReclaimTrigger) -> GrantReclaimed:
    """The event that takes a grant back."""
    return GrantReclaimed(
        artifact=story.id(key), participant=story.participant(who), from_state=from_state, trigger=trigger
    )


def test_a_silent_owner_keeps_its_grant_to_the_time_out_and_not_a_moment_longer() -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("a", "k"))
    story.after(30 - TICK_S).when(story.sweep()).nothing()
    assert not may_reclaim(story.state, story.now)
    story.after(TICK_S)
    assert may_reclaim(story.state, story.now)
    story.when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.SESSION_SILENT))
    assert story.grant("a", "k") is I
    assert story.artifact("k").version == 1


@pytest.mark.parametrize("sign", ["heartbeat", "write", "read"])
def test_any_command_that_the_log_records_is_a_sign_of_life(sign: str) -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("a", "k"), story.write("b", "other"))
    story.after(20)
    match sign:
        case "heartbeat":
            story.when(story.heartbeat("a")).then(SessionRenewed)
        case "write":
            story.given(story.write("a", "elsewhere"))
        case _:
            story.when(story.read("a", "other")).then(GrantIssued)
    story.after(30 - TICK_S).when(story.sweep())
    assert story.grant("a", "k") is M
    story.after(TICK_S).when(story.sweep())
    assert story.grant("a", "k") is I


def test_an_agent_that_commits_all_the_time_loses_its_grant_a_maximum_hold_after_it_first_had_it() -> None:
    story = recovering(timeout_s=30, hold_s=100)
    story.given(story.write("a", "k"))
    for _ in range(9):
        story.after(10).given(story.write("a", "k"))
    story.after(10 - TICK_S).given(story.write("a", "k"))
    story.when(story.sweep()).nothing()
    story.after(TICK_S).when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.MAXIMUM_HOLD))


def test_the_maximum_hold_counts_from_an_exclusive_copy_on_whatever_is_made_of_it() -> None:
    story = recovering(timeout_s=300, hold_s=100)
    story.given(story.write("b", "k"), story.leave("b"))
    story.when(story.read("a", "k")).then(GrantIssued)
    assert story.grant("a", "k") is E
    story.after(99).when(story.write("a", "k")).then(WriteCommitted)
    story.after(1 - TICK_S).when(story.sweep()).nothing()
    story.after(TICK_S).when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.MAXIMUM_HOLD))


def test_the_maximum_hold_begins_anew_once_the_grant_was_lost() -> None:
    story = recovering(timeout_s=300, hold_s=100)
    story.given(story.write("a", "k"))
    story.after(60).given(story.read("b", "k"), story.write("a", "k"))
    story.after(99).when(story.sweep()).nothing()
    story.after(1).when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.MAXIMUM_HOLD))


def test_silence_comes_before_the_maximum_hold() -> None:
    story = recovering(timeout_s=30, hold_s=30)
    story.given(story.write("a", "k"))
    story.after(30).when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.SESSION_SILENT))


def test_a_heartbeat_saves_nothing_from_the_maximum_hold() -> None:
    story = recovering(timeout_s=30, hold_s=100)
    story.given(story.write("a", "k"))
    for _ in range(10):
        story.after(10).when(story.heartbeat("a")).then(SessionRenewed)
    story.when(story.sweep()).then(reclaimed(story, "k", "a", M, ReclaimTrigger.MAXIMUM_HOLD))


def test_shared_copies_are_never_reclaimed() -> None:
    story = recovering(timeout_s=30, hold_s=100)
    story.given(story.write("a", "k"), story.read("b", "k"))
    story.after(1_000_000).when(story.sweep()).nothing()
    assert (story.grant("a", "k"), story.grant("b", "k")) == (S, S)
    assert not may_reclaim(story.state, story.now)


def test_an_exclusive_copy_is_reclaimed_as_a_modified_one_is() -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("b", "k"), story.leave("b"), story.read("a", "k"))
    story.after(30).when(story.sweep()).then(reclaimed(story, "k", "a", E, ReclaimTrigger.SESSION_SILENT))


def test_a_session_that_holds_nothing_reclaimable_is_not_renewed() -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("a", "k"), story.read("b", "k"))
    for who in ("a", "b"):
        story.after(10).when(story.heartbeat(who)).nothing()


def test_without_crash_recovery_only_expired_reservations_are_reclaimed() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.acquire("a", "j", 1))
    story.after(1_000_000)
    assert not may_reclaim(story.state, story.now)
    story.when(story.sweep()).then(ReservationEnded)
    assert all(not each.owned for each in story.state.participants.values())


# The refusals of the victim.


def at_of(story: Story, seconds: float) -> str:
    """The time of a story, `seconds` after it began."""
    return Reclaim(ReclaimReason.EXPIRED, Micros(story.now + round(seconds * SECOND_US))).time.isoformat(
        timespec="microseconds"
    )[: -len("+00:00")]


def test_C4_no_zombie_write_after_a_reclaim() -> None:  # noqa: N802
    story = recovering(timeout_s=30)
    at = at_of(story, 31.5)
    story.given(story.write("a", "k", "old"))
    story.after(31.5).given(story.sweep())
    story.given(story.write("b", "k", "new"))
    for late in (
        story.write("a", "k", "late"),
        story.write("a", "k", "late", base=1, cas=True),
        story.write("a", "k", "late", base=2, cas=True),
        story.delete("a", "k"),
        story.commit("a", story.change("elsewhere"), story.change("k", "late")),
    ):
        story.after(5).when(late).refused(RefusalReason.RECLAIMED)
        assert story.refusal.detail == (
            f"your grant was reclaimed (reclaim_heartbeat) at {at}Z: read the artifact again before changing it"
        )
        assert story.refusal.current_version == 2
    story.when(story.read("a", "k")).then(GrantIssued)
    story.when(story.write("a", "k", "merged", base=2, cas=True)).then(WriteCommitted, GrantsInvalidated)
    assert story.artifact("k").version == 3


def test_a_grant_held_for_too_long_is_refused_with_that_reason() -> None:
    story = recovering(timeout_s=300, hold_s=100)
    at = at_of(story, 100)
    story.given(story.write("a", "k"))
    story.after(100).given(story.sweep())
    story.when(story.write("a", "k")).refused(RefusalReason.RECLAIMED)
    assert f"(reclaim_max_hold) at {at}Z" in story.refusal.detail


@pytest.mark.parametrize("swept", [True, False])
def test_a_reservation_that_ran_out_is_refused_with_the_time_it_ended(swept: bool) -> None:
    story = Story()
    at = at_of(story, 10)
    story.given(story.acquire("a", "k", 10))
    story.after(25)
    if swept:
        story.given(story.sweep())
    said = f"your reservation was reclaimed (expired) at {at}Z: read the artifact again before changing it"
    story.when(story.write("a", "k", fence=1)).refused(RefusalReason.RECLAIMED)
    assert story.refusal.detail == said
    story.when(story.release("a", "k", 1)).refused(RefusalReason.RECLAIMED)
    assert said in story.refusal.detail


def test_the_last_loss_is_the_one_that_a_refusal_names() -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("a", "k"), story.acquire("a", "k", 1))
    story.after(2).given(story.sweep())
    story.when(story.write("a", "k")).refused(RefusalReason.RECLAIMED)
    assert "(expired)" in story.refusal.detail
    story.after(60).given(story.sweep())
    story.when(story.write("a", "k")).refused(RefusalReason.RECLAIMED)
    assert "(reclaim_heartbeat)" in story.refusal.detail


def test_a_release_without_a_reservation_names_no_time_of_a_loss() -> None:
    story = Story()
    story.given(story.write("a", "k"))
    story.when(story.release("a", "k", 1)).refused(RefusalReason.RECLAIMED)
    assert "its time had passed before the release" in story.refusal.detail


# Many.


def test_a_sweep_takes_back_a_bounded_number_and_the_next_one_the_rest() -> None:
    story = recovering(timeout_s=30)
    for number in range(7):
        story.given(story.write("a", f"k{number}"), story.write("b", f"j{number}"))
    story.after(30)
    taken = []
    for expected in (6, 6, 2, 0):
        story.when(story.sweep(limit=6))
        assert len(story.events) == expected
        taken += [event.artifact for event in story.events if isinstance(event, GrantReclaimed)]
    assert set(taken) == {story.id(f"{letter}{number}") for letter in "kj" for number in range(7)}
    assert len(taken) == 14


class CountedArtifacts(dict[ArtifactId, ArtifactState]):
    """Artifacts, with a count of how many the rules looked at."""

    looked = 0

    def get(self, key: ArtifactId, default: ArtifactState | None = None) -> ArtifactState | None:  # type: ignore[override]
        self.looked += 1
        return super().get(key, default)


def test_a_sweep_with_nothing_to_take_back_looks_at_no_artifact_however_many_are_held() -> None:
    story = recovering(timeout_s=30, hold_s=100)
    counted = story.state.artifacts = CountedArtifacts()
    for number in range(500):
        story.given(story.write("a", f"k{number}"))
    for number in range(500):
        story.given(story.read("b", f"k{number}"), story.write("c", f"k{number}"))
    counted.looked = 0
    story.after(29).when(story.sweep()).nothing()
    assert not may_reclaim(story.state, story.now)
    story.when(story.heartbeat("c")).then(SessionRenewed)
    story.after(5).when(story.heartbeat("a")).nothing()
    assert counted.looked == 0


def test_a_batch_sees_grants_taken_and_lost_within_it_in_the_order_in_which_they_were_taken() -> None:
    story = recovering(timeout_s=30, hold_s=100)
    story.given(story.write("a", "first"))
    story.after(1).given(story.write("a", "second"))
    below = story.state
    over = story.state = Overlay(below)  # type: ignore[assignment]
    story.after(1).given(story.write("a", "third"), story.write("b", "first"))
    story.after(1).given(story.write("a", "first"))
    number = ParticipantNumber(1)
    participant = over.participants.get(number)
    assert participant is not None
    assert list(participant.owned) == [story.id("second"), story.id("third"), story.id("first")]
    assert list(participant.owned.values()) == sorted(participant.owned.values())
    unchanged = below.participants[number]
    assert list(unchanged.owned) == [story.id("first"), story.id("second")]


def test_a_mapping_laid_over_another_behaves_as_a_copy_of_it_would() -> None:
    below = {"a": 1, "b": 2, "c": 3}
    over, copy = LayeredMap(below), dict(below)
    del over["a"], copy["a"]
    for key in ("a", "nobody"):
        with pytest.raises(KeyError):
            del over[key]
        with pytest.raises(KeyError):
            over[key]
    over["d"] = copy["d"] = 4
    over["a"] = copy["a"] = 5
    assert list(over.items()) == list(copy.items())
    assert len(over) == len(copy)
    del over["d"], over["a"]
    assert dict(over) == {"b": 2, "c": 3}
    assert below == {"a": 1, "b": 2, "c": 3}


def test_a_refusal_does_not_make_the_next_command_pass() -> None:
    story = recovering(timeout_s=30)
    story.given(story.write("a", "k"))
    story.after(30).given(story.sweep())
    for _ in range(2):
        story.when(story.write("a", "k")).then(CommandRefused)
