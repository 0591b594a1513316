"""Sessions, participants, numbers: who may act, and commands that come twice."""

import random

import pytest

from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.decide import DropReason, decide, refusal_for_bug
from ccs_stream.protocol.dedupe import subject_of_command, subject_of_events
from ccs_stream.protocol.events import (
    CommandRefused,
    ParticipantJoined,
    RefusalReason,
    SessionEnded,
    WriteCommitted,
)
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber
from ccs_stream.protocol.overlay import Overlay
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.testing.given_when_then import Story
from tests.log.test_snapshot import any_command


def test_an_agent_joins_once_in_a_session() -> None:
    story = Story()
    story.when(story.join("a@1")).then(ParticipantJoined)
    story.when(story.join("a@1")).nothing()
    story.when(story.join("b@1")).then(ParticipantJoined)
    story.when(story.join("a@2")).then(ParticipantJoined)
    assert [story.participant(who) for who in ("a@1", "b@1", "a@2")] == [1, 2, 3]


def test_leaving_ends_grants_and_reservations_of_the_whole_session() -> None:
    story = Story()
    story.given(story.write("a@1", "k"), story.write("b@1", "j"), story.acquire("b@1", "j"))
    story.when(story.leave("a@1")).then(SessionEnded)
    assert (story.artifact("k").owner, story.artifact("j").owner, story.artifact("j").reserved_by) == (0, 0, 0)
    story.when(story.write("c", "j")).then(WriteCommitted)


def test_commands_of_an_ended_session_are_refused_and_do_not_revive_it() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.leave("a"))
    story.when(story.write("a", "k")).refused(RefusalReason.SESSION_ENDED)
    story.when(story.read("a", "k")).refused(RefusalReason.SESSION_ENDED)
    story.when(story.join("a")).refused(RefusalReason.SESSION_ENDED)
    assert story.state.session_count() == 0


def test_an_unknown_session_is_refused_never_created() -> None:
    story = Story()
    command = story.write("a", "k")
    fresh = Story()
    fresh.when(command).refused(RefusalReason.UNKNOWN_SESSION)
    assert fresh.state.session_count() == 0
    story.given(story.join("a@1"))
    other = story.read("b@1", "k")
    other.agent = "never joined"
    story.when(other).refused(RefusalReason.UNKNOWN_PARTICIPANT)


def test_evicting_ends_another_session() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.join("operator"))
    story.when(story.evict("operator", "a")).then(SessionEnded)
    story.when(story.evict("operator", "a")).nothing()


def test_a_workspace_is_opened_once_and_with_one_set_of_settings() -> None:
    story = Story()
    story.when(Open(session_id=NO_SESSION, number=CommandNumber(0), settings=WorkspaceSettings())).nothing()
    other = Open(session_id=NO_SESSION, number=CommandNumber(0), settings=WorkspaceSettings(dedupe_window=7))
    story.when(other).refused(RefusalReason.SETTINGS_DIFFER)
    assert "dedupe_window is 256, not 7" in story.refusal.detail


def test_a_repeated_command_is_recognised_and_points_to_its_decision() -> None:
    story = Story()
    command = story.write("a", "k")
    story.given(command)
    made = story.state.sequence
    story.given(story.write("b", "k"))
    story.when(command).nothing()
    assert story.decision is not None
    assert story.decision.repeats == made


def test_a_repeated_refusal_is_not_decided_again() -> None:
    story = Story()
    story.given(story.write("a", "k"))
    late = story.write("b", "k", base=9, cas=True)
    story.when(late).refused(RefusalReason.VERSION_CONFLICT)
    made = story.state.sequence
    story.when(late).nothing()
    assert story.decision is not None
    assert story.decision.repeats == made


def test_whatever_is_asked_for_again_under_its_number_gets_its_first_answer() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    repeated = set()
    for _ in range(40):
        story = Story(WorkspaceSettings(dedupe_window=256))
        for _ in range(60):
            story.after(chance.choice([0, 0, 0.5, 3, 20]))
            command = any_command(story, chance)
            before = story.state.sequence
            story.when(command)
            made = story.state.sequence
            if made == before or story.state.sessions.get(command.session_id) is None or not command.number:
                continue
            story.after(chance.choice([0, 20]))
            story.when(command)
            assert story.decision is not None
            assert (story.events, story.decision.repeats) == ([], made), f"seed {seed}: {command}"
            repeated.add((command.KIND, story.decision.repeats == made))
    assert len(repeated) >= 7


def test_a_command_that_met_only_what_had_expired_is_recognised() -> None:
    for ask in (Story.delete, Story.read, Story.refresh):
        story = Story()
        story.given(story.write("a", "k", ttl_s=1), story.join("b"))
        story.after(2)
        command = ask(story, "b", "k")
        story.when(command)
        made = story.state.sequence
        story.when(command)
        assert story.decision is not None
        assert (story.events, story.decision.repeats) == ([], made), command.KIND


def test_the_same_number_with_another_command_is_an_error() -> None:
    story = Story()
    story.given(story.write("a", "k", "one", number=5))
    story.when(story.write("a", "k", "two", number=5)).refused(RefusalReason.NUMBER_REUSED)
    story.when(story.read("a", "k", number=5)).refused(RefusalReason.NUMBER_REUSED)
    story.when(story.write("a", "k", "one", number=5)).nothing()  # still the first command's


def test_numbers_may_have_gaps_and_come_in_any_order() -> None:
    story = Story(WorkspaceSettings(dedupe_window=8))
    commands = [story.write("a", f"k{number}", number=number) for number in (3, 10, 5, 7, 4)]
    for command in commands:
        story.when(command)
        assert story.decision is not None
        assert story.decision.refusal is None
        assert story.decision.repeats is None
    for command in commands:
        story.when(command).nothing()


def test_a_copy_older_than_the_window_is_dropped_and_never_answered_refused() -> None:
    story = Story(WorkspaceSettings(dedupe_window=4))
    first = story.write("a", "k", number=2)
    story.given(first)
    for number in range(3, 12):
        story.given(story.write("a", "k", number=number))
    story.when(first).nothing()
    assert story.decision is not None
    assert story.decision.dropped is DropReason.STALE_NUMBER
    assert len(story.state.sessions[first.session_id].window) <= 4


def test_the_window_stays_small_however_numbers_jump() -> None:
    story = Story(WorkspaceSettings(dedupe_window=4))
    for number in (1, 2, 1_000_000_000, 1_000_000_002, 999_999_999):
        story.when(story.write("a", "k", number=number))
    window = story.state.sessions[story.write("a", "k").session_id].window
    assert sorted(window) == [999_999_999, 1_000_000_000, 1_000_000_002]


def test_the_fold_remembers_of_a_command_exactly_the_fingerprint_that_decide_compares() -> None:
    story = Story()
    story.given(story.write("a", "k"), story.write("a", "gone"))
    commands: list[Command] = [
        story.join("b"),
        story.write("a", "k"),
        story.read("c", "k"),
        story.commit("a", story.change("x"), story.change("y"), story.erase("absent")),
        story.delete("a", "gone"),
        story.acquire("a", "k"),
        story.release("a", "k", 1),
        story.write("a", "k", base=77, cas=True),
    ]
    for command in commands:
        story.when(command)
        assert story.events
        assert subject_of_events(command.KIND, story.events) == subject_of_command(command)


def test_a_batch_on_an_overlay_is_decided_as_one_by_one_and_leaves_no_trace() -> None:
    chance = random.Random(7)
    story, twin = Story(), Story()
    for each in (story, twin):
        each.given(*(each.join(name) for name in "abc"))
    for _ in range(40):
        batch: list[Command] = []
        for _ in range(chance.randint(1, 6)):
            who, key = chance.choice("abc"), chance.choice("kj")
            batch.append(chance.choice([story.write, story.read, story.delete, story.acquire])(who, key))  # type: ignore[operator]
        before = state_hash(story.state)
        overlay = Overlay(story.state)
        decided = []
        for command in batch:
            decision = decide(overlay, command, story.now)
            decided.append(decision.events)
            if decision.events:
                fold(
                    overlay,
                    decision.events,
                    recorded_at=story.now,
                    session_id=command.session_id,
                    number=command.number,
                    kind=command.KIND,
                )
        assert state_hash(story.state) == before
        for command, events in zip(batch, decided, strict=True):
            twin.when(command)
            assert twin.events == events
            story.when(command)
        assert state_hash(twin.state) == state_hash(story.state)


def test_a_repeat_is_recognised_on_the_overlay() -> None:
    story = Story()
    story.given(story.join("a"))
    command = story.write("a", "k")
    overlay = Overlay(story.state)
    decision = decide(overlay, command, story.now)
    fold(
        overlay,
        decision.events,
        recorded_at=story.now,
        session_id=command.session_id,
        number=command.number,
        kind=command.KIND,
    )
    assert decide(overlay, command, story.now).repeats == overlay.sequence
    assert decide(story.state, command, story.now).repeats is None


def test_a_command_that_kills_every_leader_in_turn() -> None:
    refusal = refusal_for_bug(ZeroDivisionError()).events[0]
    assert isinstance(refusal, CommandRefused)
    assert refusal.reason is RefusalReason.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dedupe_window": 0}, "from 1 to"),
        ({"heartbeat_interval_us": 50_000_000}, "below session_timeout"),
        ({"inline_content_bytes": 10_000_000}, "below maximum_decision"),
    ],
)
def test_settings_that_cannot_hold_together_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WorkspaceSettings(**options)  # type: ignore[arg-type]
