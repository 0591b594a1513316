"""The rules of the core, each weakened in turn.

Guarantees: each mutation is the real core with one rule taken out, by a change of its inputs or its results. Does not:
change the core itself.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

from ccs_stream.protocol.commands import Acquire, Command, Commit, Read, Release, WriteMode
from ccs_stream.protocol.decide import Decision, decide
from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.events import (
    ArtifactDeleted,
    ArtifactRegistered,
    CommandRefused,
    Event,
    GrantIssued,
    GrantsInvalidated,
    ReservationEnded,
    ReservationEndReason,
)
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import NOBODY, Fence, Micros
from ccs_stream.protocol.states import GrantState
from formal.world import Decide, Fold, World


def real_decide(state: Directory, command: Command, now: Micros) -> Decision:
    """The core."""
    return decide(state, command, now)


def real_fold(state: Directory, events: list[Event], now: Micros, command: Command) -> None:
    """The core."""
    fold(
        state,
        events,
        recorded_at=now,
        session_id=command.session_id,
        number=command.number,
        kind=command.KIND,
    )


def _seeing(change: Callable[[ArtifactState, Command, Micros], None], only: type[Command] = Commit) -> Decide:
    """Decide on a state in which every artifact was changed first."""

    def weakened(state: Directory, command: Command, now: Micros) -> Decision:
        if not isinstance(command, only):
            return decide(state, command, now)
        shown = World(state, [], ()).copy().state
        for artifact in shown.artifacts.values():
            change(artifact, command, now)
        return decide(shown, command, now)

    return weakened


def _saying(change: Callable[[Directory, Command, list[Event]], list[Event]]) -> Decide:
    """Decide, and return other events."""

    def weakened(state: Directory, command: Command, now: Micros) -> Decision:
        decision = decide(state, command, now)
        decision.events = change(state, command, decision.events)
        return decision

    return weakened


def _folding(change: Callable[[Directory, Event], None]) -> Fold:
    """Fold, and then do something else."""

    def weakened(state: Directory, events: list[Event], now: Micros, command: Command) -> None:
        real_fold(state, events, now, command)
        for event in events:
            change(state, event)

    return weakened


def _no_reclaimed_mark(artifact: ArtifactState, _command: Command, _now: Micros) -> None:
    artifact.reclaimed = frozenset()


def _lapsed_still_stands(artifact: ArtifactState, _command: Command, now: Micros) -> None:
    if artifact.reserved_by != NOBODY:
        artifact.reserved_until = max(artifact.reserved_until, Micros(now + 1))


def _no_reservation(artifact: ArtifactState, command: Command, now: Micros) -> None:
    if artifact.reserved(now) and isinstance(command, Commit) and command.changes[0].fence is None:
        artifact.reserved_by = NOBODY


def _any_fence(artifact: ArtifactState, command: Command, now: Micros) -> None:
    if isinstance(command, Commit) and command.changes[0].fence is not None and artifact.reserved(now):
        artifact.fence = command.changes[0].fence


def _free_to_acquire(artifact: ArtifactState, _command: Command, _now: Micros) -> None:
    artifact.reserved_by = NOBODY


def _alone(artifact: ArtifactState, _command: Command, _now: Micros) -> None:
    artifact.owner, artifact.owner_state = NOBODY, GrantState.INVALID
    artifact.sharers = set()


def _old_base_is_enough(state: Directory, command: Command, now: Micros) -> Decision:
    if isinstance(command, Commit) and command.changes[0].mode is WriteMode.COMPARE_AND_SET:
        change = command.changes[0]
        known = state.artifacts.get(change.artifact)
        if known is not None and change.base_version is not None and change.base_version <= known.version:
            command = dataclasses.replace(command, changes=(dataclasses.replace(change, base_version=known.version),))
    return decide(state, command, now)


def _never_read_is_enough(state: Directory, command: Command, now: Micros) -> Decision:
    if isinstance(command, Commit) and command.changes[0].mode is WriteMode.COMPARE_AND_SET:
        change = command.changes[0]
        known = state.artifacts.get(change.artifact)
        if known is not None and change.base_version is None:
            command = dataclasses.replace(command, changes=(dataclasses.replace(change, base_version=known.version),))
    return decide(state, command, now)


def _reader_ends_reservation(state: Directory, command: Command, events: list[Event]) -> list[Event]:
    artifact = state.artifacts.get(command.artifact) if isinstance(command, Read) else None
    if artifact is None or artifact.reserved_by == NOBODY:
        return events
    ended = ReservationEnded(
        artifact=artifact.artifact,
        participant=artifact.reserved_by,
        fence=Fence(artifact.fence + 1),
        reason=ReservationEndReason.RELEASED,
    )
    return [ended, *(event for event in events if type(event) is not ReservationEnded)]


def _without(kind: type[Event]) -> Callable[[Directory, Command, list[Event]], list[Event]]:
    return lambda _state, _command, events: [event for event in events if type(event) is not kind]


def _forget_owner(_state: Directory, _command: Command, events: list[Event]) -> list[Event]:
    return [
        dataclasses.replace(event, owner=NOBODY, owner_state=GrantState.INVALID)
        if type(event) is GrantsInvalidated
        else event
        for event in events
    ]


def _forget_one_sharer(_state: Directory, _command: Command, events: list[Event]) -> list[Event]:
    return [
        dataclasses.replace(event, sharers=event.sharers[1:]) if type(event) is GrantsInvalidated else event
        for event in events
    ]


def _keep_fence(reason: ReservationEndReason) -> Callable[[Directory, Command, list[Event]], list[Event]]:
    def change(_state: Directory, _command: Command, events: list[Event]) -> list[Event]:
        return [
            dataclasses.replace(event, fence=Fence(event.fence - 1))
            if type(event) is ReservationEnded and event.reason is reason
            else event
            for event in events
        ]

    return change


def _register_anyway(state: Directory, command: Command, events: list[Event]) -> list[Event]:
    refused = events and type(events[-1]) is CommandRefused
    if refused and isinstance(command, Commit) and command.changes[0].artifact not in state.artifacts:
        return [ArtifactRegistered(artifact=command.changes[0].artifact, scope=(), key="phantom"), *events]
    return events


def _grant_exclusive(_state: Directory, _command: Command, events: list[Event]) -> list[Event]:
    return [
        dataclasses.replace(event, to_state=GrantState.EXCLUSIVE) if type(event) is GrantIssued else event
        for event in events
    ]


def _restart_version(state: Directory, event: Event) -> None:
    if type(event) is ArtifactDeleted:
        state.artifacts[event.artifact].version = type(event.version)(0)


def _keep_own_copy(state: Directory, event: Event) -> None:
    if type(event) is ArtifactDeleted and event.participant:
        state.artifacts[event.artifact].share(event.participant)


def _keep_old_copy(state: Directory, event: Event) -> None:
    if type(event) is GrantsInvalidated and event.owner:
        artifact = state.artifacts[event.artifact]
        artifact.owner, artifact.owner_state = NOBODY, GrantState.INVALID
        artifact.share(event.owner)


def _release_for_anybody(state: Directory, command: Command, now: Micros) -> Decision:
    if isinstance(command, Release):
        known = state.artifacts.get(command.artifact)
        if known is not None and known.reserved(now):
            participant = state.participants[known.reserved_by]
            command = dataclasses.replace(
                command, session_id=participant.session_id, agent=participant.agent, fence=known.fence
            )
    return decide(state, command, now)


MUTATIONS: Final[dict[str, tuple[Decide, Fold]]] = {
    "a reclaimed participant may write": (_seeing(_no_reclaimed_mark), real_fold),
    "a reservation that ran out still lets its holder write": (_seeing(_lapsed_still_stands), real_fold),
    "writes ignore reservations": (_seeing(_no_reservation), real_fold),
    "any fence passes": (_seeing(_any_fence), real_fold),
    "acquire ignores a standing reservation": (_seeing(_free_to_acquire, Acquire), real_fold),
    "release ends anybody's reservation": (_release_for_anybody, real_fold),
    "a reader ends the writer's reservation": (_saying(_reader_ends_reservation), real_fold),
    "a release does not raise the fence": (_saying(_keep_fence(ReservationEndReason.RELEASED)), real_fold),
    "a reclaim does not raise the fence": (_saying(_keep_fence(ReservationEndReason.EXPIRED)), real_fold),
    "compare_and_set accepts an older base": (_old_base_is_enough, real_fold),
    "compare_and_set accepts who never read": (_never_read_is_enough, real_fold),
    "writes invalidate nobody": (_saying(_without(GrantsInvalidated)), real_fold),
    "the former owner is not invalidated": (real_decide, _folding(_keep_old_copy)),
    "one sharer is not invalidated": (_saying(_forget_one_sharer), real_fold),
    "a reader gets an exclusive copy while others hold one": (_seeing(_alone, Read), real_fold),
    "every copy granted is exclusive": (_saying(_grant_exclusive), real_fold),
    "a delete leaves the deleter its copy": (real_decide, _folding(_keep_own_copy)),
    "a delete restarts the version": (real_decide, _folding(_restart_version)),
    "a refused write registers its artifact": (_saying(_register_anyway), real_fold),
}
"""By the rule that is taken out, the core without it."""
