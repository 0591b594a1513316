"""The fold: the effect of each event on the state.

Every reader of a log runs it. Guarantees: never fails on an event that was admitted and decided by `decide`; depends on
nothing but state and event, so every reader of a log arrives at the same state. Does not: check permissions; facts need
none.
"""

from collections.abc import Sequence
from typing import assert_never

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.dedupe import remember_command
from ccs_stream.protocol.directory import ArtifactState, MutableState, ParticipantState, SessionState
from ccs_stream.protocol.ids import (
    NOBODY,
    ArtifactId,
    CommandNumber,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
)
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.reclaims import REASON_OF, Reclaim, ReclaimReason
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.states import GrantState


def fold_decision(state: MutableState, events: Sequence[ev.Event], record: DecisionRecord) -> None:
    """Fold one admitted decision, whose record holds `events`. Raises nothing."""
    fold(
        state,
        events,
        recorded_at=record.recorded_at,
        session_id=record.session_id,
        number=record.number,
        kind=record.command_kind,
    )


def fold(
    state: MutableState,
    events: Sequence[ev.Event],
    *,
    recorded_at: Micros,
    session_id: SessionId,
    number: CommandNumber,
    kind: CommandKind,
) -> None:
    """Fold all events of one decision in order, then its command's number into the session's window.

    Raises nothing on the events of an admitted decision.
    """
    state.recorded_at = max(state.recorded_at, recorded_at)
    sequence = state.sequence
    for event in events:
        sequence = state.sequence = SequenceNumber(sequence + 1)
        evolve(state, event)
    if number and (session := state.edit_session(session_id)) is not None:
        remember_command(session, state.settings.dedupe_window, number, kind, events, sequence)
        session.active_at = state.recorded_at
    state.last_complete_sequence = sequence


def evolve(state: MutableState, event: ev.Event) -> None:
    """Fold one event. `state.sequence` and `state.recorded_at` are already those of the event."""
    match event:
        case ev.WriteCommitted():
            _write_committed(state, event)
        case ev.GrantIssued():
            _grant_issued(state, event)
        case ev.GrantsInvalidated():
            _grants_invalidated(state, event)
        case ev.ArtifactRegistered():
            state.add_artifact(ArtifactState(event.artifact, tuple(event.scope), event.key))
        case ev.ArtifactDeleted():
            _artifact_deleted(state, event)
        case ev.CommandRefused() | ev.CommandAnswered():
            pass
        case ev.ReservationAcquired():
            _reservation_acquired(state, event)
        case ev.ReservationEnded():
            _reservation_ended(state, event)
        case ev.ParticipantJoined():
            _participant_joined(state, event)
        case ev.SessionEnded():
            _session_ended(state, event)
        case ev.SessionRenewed():
            if (session := state.edit_session(event.session_id)) is not None:
                session.renewed_until = event.until
        case ev.ExpiryExtended():
            state.edit_artifact(event.artifact).expires_at = event.expires_at
            state.schedule(event.expires_at, event.artifact)
        case ev.GrantReclaimed():
            artifact = state.edit_artifact(event.artifact)
            _drop_grant(state, artifact, event.participant)
            _mark_reclaimed(state, artifact, event.participant, Reclaim(REASON_OF[event.trigger], state.recorded_at))
        case ev.WorkspaceOpened():
            state.opened = True
            state.settings = settings_of(event)
        case ev.UnknownEvent():
            state.unknown_events += 1
        case _:
            assert_never(event)


def settings_of(event: ev.WorkspaceOpened) -> WorkspaceSettings:
    """The settings with which an event opened the workspace."""
    return WorkspaceSettings(**{name: getattr(event, name) for name in ev.WorkspaceOpened.__slots__})


def _write_committed(state: MutableState, event: ev.WriteCommitted) -> None:
    artifact = state.edit_artifact(event.artifact)
    writer = event.participant
    if artifact.deleted or artifact.version == 0:
        artifact.created_at = state.recorded_at
        artifact.born = event.version
        artifact.deleted = False
        state.mark_existing(artifact)
    artifact.version = event.version
    artifact.sequence = state.sequence
    artifact.content_type = event.content_type
    artifact.content_encoding = event.content_encoding
    artifact.content_hash = event.content_hash
    artifact.content_size = event.content_size
    artifact.content_index = event.content_index
    artifact.content_locator = event.content_locator
    artifact.updated_at = state.recorded_at
    options = event.options
    if options is None:
        artifact.expires_at = artifact.ttl_us = artifact.index_fields = None
    else:
        artifact.expires_at, artifact.ttl_us = options.expires_at, options.ttl_us
        artifact.index_fields = None if options.index_fields is None else tuple(options.index_fields)
        if options.expires_at is not None:
            state.schedule(options.expires_at, event.artifact)
    if artifact.owner != writer or artifact.owner_state is not GrantState.MODIFIED:
        artifact.unshare((writer,))
        if artifact.owner != writer:
            _own(state, writer, event.artifact)
        artifact.owner, artifact.owner_state = writer, GrantState.MODIFIED
        artifact.owned_since = state.recorded_at
    if artifact.writer != writer:
        artifact.writer = writer
        participant = state.participants.get(writer)
        artifact.writer_agent = participant.agent if participant is not None else ""
    _hold(state, writer, event.artifact)


def _grant_issued(state: MutableState, event: ev.GrantIssued) -> None:
    artifact = state.edit_artifact(event.artifact)
    reader = event.participant
    if reader in artifact.reclaimed:
        artifact.reclaimed -= {reader}
        participant = state.edit_participant(reader)
        if participant is not None:
            participant.reclaimed.pop(event.artifact, None)
    if event.to_state is GrantState.INVALID or artifact.state_of(reader) is event.to_state:
        return
    if event.to_state is GrantState.EXCLUSIVE:
        artifact.owner, artifact.owner_state = reader, GrantState.EXCLUSIVE
        artifact.owned_since = state.recorded_at
        _own(state, reader, event.artifact)
    else:
        if artifact.owner != NOBODY:
            _disown(state, artifact.owner, event.artifact)
            artifact.share(artifact.owner)
            artifact.owner, artifact.owner_state = NOBODY, GrantState.INVALID
        artifact.share(reader)
    _hold(state, reader, event.artifact)


def _hold(state: MutableState, number: ParticipantNumber, artifact: ArtifactId) -> None:
    participant = state.participants.get(number)
    if participant is not None and artifact not in participant.held:
        editable = state.edit_participant(number)
        if editable is not None:
            editable.held.add(artifact)


def _own(state: MutableState, number: ParticipantNumber, artifact: ArtifactId) -> None:
    """Record since when this participant has owned the artifact. A later write of its own does not change that."""
    if state.settings.crash_recovery and (participant := state.edit_participant(number)) is not None:
        participant.owned[artifact] = state.recorded_at


def _disown(state: MutableState, number: ParticipantNumber, artifact: ArtifactId) -> None:
    if state.settings.crash_recovery and (participant := state.edit_participant(number)) is not None:
        participant.owned.pop(artifact, None)


def _drop_grant(state: MutableState, artifact: ArtifactState, number: ParticipantNumber) -> None:
    if artifact.owner == number:
        artifact.owner, artifact.owner_state = NOBODY, GrantState.INVALID
    artifact.unshare((number,))
    participant = state.edit_participant(number)
    if participant is not None:
        participant.held.discard(artifact.artifact)
        if state.settings.crash_recovery:
            participant.owned.pop(artifact.artifact, None)


def _grants_invalidated(state: MutableState, event: ev.GrantsInvalidated) -> None:
    artifact = state.edit_artifact(event.artifact)
    if event.owner != NOBODY:
        _drop_grant(state, artifact, event.owner)
    artifact.unshare(event.sharers)
    state.drop_copies(event.artifact, event.sharers)


def _artifact_deleted(state: MutableState, event: ev.ArtifactDeleted) -> None:
    artifact = state.edit_artifact(event.artifact)
    artifact.version = event.version
    artifact.sequence = state.sequence
    artifact.deleted = True
    state.mark_deleted(artifact)
    artifact.content_type = artifact.content_encoding = ""
    artifact.content_hash, artifact.content_size = Hash(b""), 0
    artifact.content_index = artifact.content_locator = None
    artifact.expires_at = artifact.ttl_us = artifact.index_fields = None
    artifact.updated_at = state.recorded_at
    if event.participant != NOBODY:
        participant = state.participants.get(event.participant)
        artifact.writer = event.participant
        artifact.writer_agent = participant.agent if participant is not None else ""


def _reservation_acquired(state: MutableState, event: ev.ReservationAcquired) -> None:
    artifact = state.edit_artifact(event.artifact)
    artifact.fence = event.fence
    artifact.reserved_by = event.participant
    artifact.reserved_until = event.until
    state.schedule(event.until, event.artifact)
    participant = state.edit_participant(event.participant)
    if participant is not None:
        participant.reserved.add(event.artifact)


def _reservation_ended(state: MutableState, event: ev.ReservationEnded) -> None:
    artifact = state.edit_artifact(event.artifact)
    ended_at = artifact.reserved_until
    _free(artifact, event.fence)
    participant = state.edit_participant(event.participant)
    if participant is not None:
        participant.reserved.discard(event.artifact)
        if event.reason is ev.ReservationEndReason.EXPIRED:
            _mark_reclaimed(state, artifact, event.participant, Reclaim(ReclaimReason.EXPIRED, ended_at))


def _mark_reclaimed(state: MutableState, artifact: ArtifactState, number: ParticipantNumber, reclaim: Reclaim) -> None:
    participant = state.edit_participant(number)
    if participant is not None:
        participant.reclaimed[artifact.artifact] = reclaim
        artifact.reclaimed |= {number}


def _free(artifact: ArtifactState, fence: Fence) -> None:
    artifact.fence = fence
    artifact.reserved_by, artifact.reserved_until = NOBODY, Micros(0)


def _participant_joined(state: MutableState, event: ev.ParticipantJoined) -> None:
    if state.sessions.get(event.session_id) is None:
        state.add_session(SessionState(event.session_id, state.recorded_at, state.recorded_at))
    session = state.edit_session(event.session_id)
    if session is not None:
        session.participants[event.agent] = event.participant
        session.process = session.process or ProcessIdentity.of(event)
    state.participants_ever = max(state.participants_ever, event.participant)
    state.add_participant(ParticipantState(event.participant, event.agent, event.session_id))


def _session_ended(state: MutableState, event: ev.SessionEnded) -> None:
    session = state.sessions.get(event.session_id)
    if session is None:
        return
    for number in session.participants.values():
        participant = state.participants.get(number)
        if participant is None:
            continue
        for held in tuple(participant.held):
            _drop_grant(state, state.edit_artifact(held), number)
        for reserved in tuple(participant.reserved):
            artifact = state.edit_artifact(reserved)
            _free(artifact, Fence(artifact.fence + 1))
        for reclaimed in participant.reclaimed:
            state.edit_artifact(reclaimed).reclaimed -= {number}
        state.drop_participant(number)
    state.drop_session(event.session_id)
