"""The state log: which grant went where, and why; the same as the directory holds."""

import random
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.projections.state_log import agent_text, content_audit_entry, state_log_entry
from ccs_stream.projections.transitions import Transition, Transitions, TransitionTrigger
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.decide import Decision
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event, RefusalReason
from ccs_stream.protocol.ids import ArtifactId, Micros, ParticipantNumber, SequenceNumber, Version
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.given_when_then import Story

RECOVERING = WorkspaceSettings(
    crash_recovery=True,
    maximum_sessions=4,
    heartbeat_interval_us=Micros(2 * SECOND_US),
    session_timeout_us=Micros(6 * SECOND_US),
    maximum_hold_us=Micros(20 * SECOND_US),
)


class Told(Story):
    """A story whose decisions are folded into transitions as well."""

    def __init__(self, settings: WorkspaceSettings | None = None) -> None:
        self.fold = Transitions()
        self.last: list[Transition] = []
        self.all: list[Transition] = []
        self.decisions: list[tuple[SequenceNumber, Micros, list[Event]]] = []
        super().__init__(settings)

    def _perform(self, command: Command) -> Decision:
        first = SequenceNumber(self.state.sequence + 1)
        decision = super()._perform(command)
        self.decisions.append((first, self.now, decision.events))
        self.last = self.fold.decision(*self.decisions[-1])
        self.all.extend(self.last)
        return decision

    def shown(self) -> list[str]:
        """The transitions of the last command, as one line each."""
        return [line(each) for each in self.last]


def line(each: Transition) -> str:
    mark = " hash" if each.content_hash else ""
    return f"{each.agent} {each.from_state}>{each.to_state} {each.trigger} v{each.version}{mark}"


def test_the_reference_trace_comes_in_its_order_with_versions_one_lower() -> None:
    story = Told()
    story.given(story.write("planner", "plan"))
    assert story.shown() == ["planner I>E fetch v0", "planner E>E write v0", "planner E>M commit v1 hash"]
    story.given(story.read("reviewer", "plan"))
    assert story.shown() == ["planner M>S fetch v1", "reviewer I>S fetch v1"]
    story.given(story.read("reviewer", "plan"))
    assert story.shown() == []
    story.given(story.read("planner", "plan"))
    assert story.shown() == []
    story.given(story.write("planner", "plan"))
    assert story.shown() == [
        "reviewer S>I write v1",
        "planner S>E write v1",
        "planner E>M commit v2 hash",
        "reviewer I>I invalidate v2",
    ]


def test_the_owner_writes_again() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.write("a", "k"))
    assert story.shown() == ["a M>E write v1", "a E>M commit v2 hash"]


def test_a_writer_that_held_nothing_takes_the_copy_of_the_owner() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.write("b", "k"))
    assert story.shown() == ["a M>I write v1", "b I>E write v1", "b E>M commit v2 hash", "a I>I invalidate v2"]


def test_a_write_after_the_first_is_no_fetch_even_without_any_holder() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.delete("a", "k"), story.write("b", "k"))
    assert story.shown() == ["b I>E write v2", "b E>M commit v3 hash"]


def test_a_lone_reader_is_exclusive_and_the_next_one_makes_it_shared() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.leave("a"), story.read("b", "k"))
    assert story.shown() == ["b I>E fetch v1"]
    story.given(story.read("c", "k"))
    assert story.shown() == ["b E>S fetch v1", "c I>S fetch v1"]
    story.given(story.read("d", "k"))
    assert story.shown() == ["d I>S fetch v1"]


def test_a_delete_takes_every_copy_that_of_its_author_too() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.read("b", "k"), story.delete("b", "k"))
    assert story.shown() == ["a S>I invalidate v2", "b S>I invalidate v2"]


def test_an_expiry_takes_every_copy_whichever_command_meets_it() -> None:
    story = Told()
    story.given(story.write("a", "k", ttl_s=5)).after(6).given(story.write("b", "k"))
    assert story.shown() == ["a M>I invalidate v2", "b I>E write v2", "b E>M commit v3 hash"]
    story.given(story.write("b", "j", ttl_s=5)).after(6).when(story.sweep())
    assert story.shown() == ["b M>I invalidate v2"]


def test_the_end_of_a_session_takes_the_copies_of_all_its_participants() -> None:
    story = Told()
    story.given(story.write("a@one", "k"), story.read("b@one", "k"), story.read("c", "k"), story.leave("a@one"))
    assert story.shown() == ["a S>I invalidate v1", "b S>I invalidate v1"]
    story.given(story.leave("c"))
    assert story.shown() == ["c S>I invalidate v1"]


def test_a_reclaim_says_why() -> None:
    story = Told(RECOVERING)
    story.given(story.write("silent", "k"))
    story.after(7).when(story.sweep())
    assert story.shown() == ["silent M>I reclaim_heartbeat v1"]
    story.given(story.write("greedy", "j"))
    for _ in range(5):
        story.after(5).given(story.heartbeat("greedy"))
    story.when(story.sweep())
    assert story.shown() == ["greedy M>I reclaim_max_hold v1"]


def test_the_same_name_in_two_sessions_is_two_participants() -> None:
    story = Told()
    story.given(story.write("a@one", "k"), story.write("a@two", "k"))
    assert story.shown() == ["a M>I write v1", "a I>E write v1", "a E>M commit v2 hash", "a I>I invalidate v2"]
    assert len({each.participant for each in story.last}) == 2


def test_events_that_change_no_grant_are_not_shown() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.acquire("a", "k"))
    assert story.shown() == []
    story.when(story.write("b", "k"))
    assert story.refusal.reason is RefusalReason.RESERVED
    assert story.shown() == []


@pytest.mark.parametrize("sharers", [8, 64])
def test_a_write_tells_each_holder_twice_and_not_each_of_each_other(sharers: int) -> None:
    story = Told()
    story.given(story.write("a", "k"), *(story.read(f"r{each}", "k") for each in range(sharers)))
    story.given(story.write("a", "k"))
    assert len(story.last) == 2 * sharers + 2


def test_each_names_the_event_it_is_due_to_and_its_time() -> None:
    story = Told()
    story.given(story.write("a", "k"), story.read("b", "k")).after(3)
    story.given(story.join("c"), story.write("a", "k"))
    last = story.state.sequence
    assert [each.sequence for each in story.last] == [last - 1, last - 1, last - 1, last]
    assert {each.recorded_at for each in story.last} == {story.now}
    sequences = [each.sequence for each in story.all]
    assert sequences == sorted(sequences)


def commands(story: Told, chance: random.Random) -> Command:
    """Whatever may be asked for."""
    who, key = chance.choice(["a", "b@1", "c@1", "b@2", "d"]), chance.choice(["k", "j", "l"])
    alive = story._who(who)[1] in story.state.sessions
    choice = chance.random()
    if choice < 0.35:
        return story.read(who, key)
    if choice < 0.65:
        return story.write(who, key, ttl_s=chance.choice([None, None, 3]))
    if choice < 0.72:
        return story.commit(who, story.change("k"), story.erase("j"), story.change("l"))
    if choice < 0.80:
        return story.delete(who, key)
    if choice < 0.84:
        return story.acquire(who, key, 2)
    if choice < 0.88 and alive:
        return story.leave(who)
    return story.sweep(chance.randint(1, 5))


Grants = dict[tuple[ArtifactId, ParticipantNumber], GrantState]


def held(state: Directory) -> Grants:
    """The grants of a directory."""
    return {
        (artifact.artifact, number): artifact.state_of(number)
        for artifact in state.artifacts.values()
        for number in (artifact.owner, *artifact.sharers)
        if number
    }


def apply(grants: Grants, transitions: list[Transition]) -> None:
    for each in transitions:
        where = (each.artifact, each.participant)
        assert grants.get(where, GrantState.INVALID) is each.from_state, line(each)
        if each.to_state is GrantState.INVALID:
            grants.pop(where, None)
        else:
            grants[where] = each.to_state


@given(st.integers(0, 2**32))
def test_transitions_lead_to_the_grants_of_the_directory(seed: int) -> None:
    chance = random.Random(seed)
    story = Told(RECOVERING)
    grants: Grants = {}
    for _ in range(120):
        before = len(story.all)
        story.after(chance.choice([0, 0, 1, 4])).when(commands(story, chance))
        apply(grants, story.all[before:])
        assert grants == held(story.state)
        assert all(each.trigger is not TransitionTrigger.UNKNOWN for each in story.last)


@given(st.integers(0, 2**32))
def test_starting_in_the_middle_tells_the_same_from_there_on(seed: int) -> None:
    chance = random.Random(seed)
    story = Told(RECOVERING)
    for _ in range(60):
        story.after(chance.choice([0, 1, 4])).when(commands(story, chance))
    begun, done, before = Transitions.from_directory(story.state), len(story.decisions), len(story.all)
    for _ in range(60):
        story.after(chance.choice([0, 1, 4])).when(commands(story, chance))
    later = [each for decision in story.decisions[done:] for each in begun.decision(*decision)]
    assert later == story.all[before:]
    assert {id_: vars_of(each) for id_, each in story.fold._artifacts.items()} == {
        id_: vars_of(each) for id_, each in begun._artifacts.items()
    }


def vars_of(slotted: Any) -> dict[str, Any]:
    return {name: getattr(slotted, name) for name in slotted.__slots__}


def test_memory_is_bounded_by_the_grants_that_are_held() -> None:
    story = Told()
    for number in range(50):
        story.given(story.write(f"a{number}", f"k{number}"), story.leave(f"a{number}"))
    assert not story.fold._artifacts
    assert not story.fold._holders
    assert not story.fold._sessions


def test_a_line_of_the_state_log_has_exactly_the_keys_its_users_know() -> None:
    story = Told()
    story.given(story.write("planner", "plan", "text"))
    entry = state_log_entry(story.last[-1], sequence_number=3, instance_id="one")
    assert entry == {
        "tick": 4,
        "artifact_id": str(uuid.UUID(bytes=story.id("plan"))),
        "agent_id": str(uuid.uuid5(uuid.NAMESPACE_URL, "ccs-agent:planner")),
        "agent_name": "planner",
        "from_state": "EXCLUSIVE",
        "to_state": "MODIFIED",
        "trigger": "commit",
        "version": 1,
        "content_hash": story.artifact("plan").content_hash.hex(),
        "sequence_number": 3,
        "instance_id": "one",
        "schema_version": "ccs.state_log.v2",
    }
    assert type(entry["trigger"]) is str
    assert state_log_entry(story.last[0], sequence_number=1, instance_id="one")["content_hash"] is None


def test_a_line_of_the_content_audit_has_exactly_the_keys_its_users_know() -> None:
    artifact = ArtifactId(bytes(range(16)))
    entry = content_audit_entry(
        agent="planner",
        artifact=artifact,
        version=Version(2),
        content_hash="ab" * 32,
        source="fetch",
        outcome="content",
        sequence=SequenceNumber(9),
        sequence_number=1,
        instance_id="one",
    )
    assert entry == {
        "tick": 9,
        "agent_id": agent_text("planner"),
        "agent_name": "planner",
        "artifact_id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "version": 2,
        "content_hash": "ab" * 32,
        "source": "fetch",
        "outcome": "content",
        "sequence_number": 1,
        "instance_id": "one",
        "schema_version": "ccs.content_audit.v1",
    }
