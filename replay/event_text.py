"""Events and records as sentences, for `timeline`.

Guarantees: a sentence says who did what to which artifact and over which version, or who led, or why a record is void.
Does not: show contents.
"""

from typing import assert_never

from ccs_stream.log.reader import LogEntry
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import (
    ArtifactDeleted,
    ArtifactRegistered,
    CommandAnswered,
    CommandRefused,
    DeleteReason,
    Event,
    ExpiryExtended,
    GrantIssued,
    GrantReclaimed,
    GrantsInvalidated,
    ParticipantJoined,
    ReservationAcquired,
    ReservationEnded,
    SessionEnded,
    SessionRenewed,
    UnknownEvent,
    WorkspaceOpened,
    WriteCommitted,
)
from ccs_stream.protocol.ids import ArtifactId, LeaderId, ParticipantNumber
from ccs_stream.protocol.reclaims import REASON_OF
from ccs_stream.protocol.records import DecisionRecord, ForeignRecord, LeaderClaimed, LeaderResigned
from ccs_stream.protocol.states import GrantState
from ccs_stream.replay.output import format_time

_NAMED = 8
"""So many holders are named in one line; the rest are counted."""


def artifact_name(state: Directory, artifact: ArtifactId | None) -> str:
    """The address as `scope/key`, or the id of an artifact that was never registered."""
    if artifact is None:
        return ""
    known = state.artifacts.get(artifact)
    return artifact.hex() if known is None else "/".join((*known.scope, known.key))


def agent_of(state: Directory, participant: ParticipantNumber) -> str:
    """The name of a participant's agent."""
    return state.agents.get(participant, f"participant {participant}") if participant else ""


def subject(event: Event) -> ArtifactId | None:
    """The artifact that an event is about, if any."""
    return getattr(event, "artifact", None)


def actor(state: Directory, event: Event) -> str:
    """The agent that did it; empty if no agent did."""
    match event:
        case ParticipantJoined() | CommandRefused():
            return event.agent
        case WriteCommitted() | ArtifactDeleted() | GrantIssued() | ReservationAcquired() | ReservationEnded():
            return agent_of(state, event.participant)
        case _:
            return ""


def is_lost_update(event: Event, replaced_by: int) -> bool:
    """True if a write replaced a version of another writer that its author had not read.

    `replaced_by` is the participant that wrote the replaced version; 0 if the write replaced nothing.
    """
    if type(event) is not WriteCommitted or event.version == 1 or not replaced_by:
        return False
    return replaced_by != event.participant and event.base_version != event.version - 1


def describe_event(state: Directory, event: Event) -> str:  # one sentence for each event
    """The event as a sentence. `state` is the state before or after; only names are taken from it."""
    name = artifact_name(state, subject(event))
    match event:
        case WriteCommitted():
            base = "never read it" if event.base_version is None else f"had read v{event.base_version}"
            over = f" over v{event.version - 1} ({base})" if event.version > 1 else ""
            why = f": {event.options.reason}" if event.options is not None and event.options.reason else ""
            return f"wrote {name} v{event.version}{over}, {event.content_size} bytes{why}"
        case ArtifactDeleted():
            how = "expired" if event.reason is DeleteReason.EXPIRED else "deleted"
            return f"{how} {name}, now v{event.version}" + (f": {event.note}" if event.note else "")
        case GrantIssued():
            if event.to_state is GrantState.INVALID:
                return f"read {name}, which does not exist"
            return f"read {name} v{event.version} ({event.to_state})"
        case GrantsInvalidated():
            holders = [*((event.owner,) if event.owner else ()), *event.sharers]
            names = ", ".join(agent_of(state, each) for each in holders[:_NAMED])
            more = f" and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
            return f"{name} v{event.version} made the copies of {names}{more} stale"
        case GrantReclaimed():
            return f"{name} reclaimed from {agent_of(state, event.participant)} ({REASON_OF[event.trigger]})"
        case ReservationAcquired():
            return f"reserved {name}, fence {event.fence}, until {format_time(event.until)}"
        case ReservationEnded():
            return f"reservation of {name} {event.reason}, fence now {event.fence}"
        case ArtifactRegistered():
            return f"registered {name or event.key}"
        case ParticipantJoined():
            return f"joined as participant {event.participant}, session {event.session_id.hex()[:8]}"
        case SessionEnded():
            return f"session {event.session_id.hex()[:8]} {event.reason}"
        case SessionRenewed():
            return f"session {event.session_id.hex()[:8]} renewed until {format_time(event.until)}"
        case ExpiryExtended():
            return f"expiry of {name} moved to {format_time(event.expires_at)}"
        case WorkspaceOpened():
            return "workspace opened"
        case CommandRefused():
            about = f" on {name}" if name else ""
            return f"refused{about}: {event.reason} ({event.detail})"
        case CommandAnswered():
            return f"repeated the command decided at {event.original_sequence}"
        case UnknownEvent():
            return f"an event of a later release ({event.size} bytes, schema {event.fingerprint.hex()})"
        case _:
            assert_never(event)


def short_id(leader: LeaderId) -> str:
    """The beginning of a leader's id, enough to tell leaders apart."""
    return leader.hex()[:8]


def describe_leadership(record: LeaderClaimed | LeaderResigned) -> str:
    """The beginning or end of an epoch, as a sentence."""
    if isinstance(record, LeaderClaimed):
        return f"epoch {record.epoch} claimed by {short_id(record.leader_id)} ({record.build})"
    return f"epoch {record.epoch} ended: {short_id(record.leader_id)} resigned"


def describe_void(entry: LogEntry) -> str:
    """The content of a void record, and why no reader applies it."""
    record = entry.record
    match record:
        case ForeignRecord():
            what = f"{record.size} bytes that are no record"
        case DecisionRecord():
            last = record.first_sequence + len(record.events) - 1
            what = (
                f"{record.command_kind} of {record.workspace} as {record.first_sequence} to {last}, by "
                f"{short_id(record.leader_id)} in epoch {record.epoch}"
            )
        case LeaderClaimed() | LeaderResigned():
            what = describe_leadership(record)
        case _:
            what = type(record).__name__
    return f"void ({entry.verdict}) at offset {entry.offset}: {what}"
