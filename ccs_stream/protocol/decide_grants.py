"""The rules for grants and reservations: read, refresh, acquire, release, heartbeat, sweep.

`decide` calls them. Guarantees: a read never cancels a reservation and never waits for one; a sweep is bounded, and one
that finds nothing decides nothing, in a time that grows with the number of participants and not with what they hold.
Does not: end a session for being silent; silence alone costs a session at most its M and E grants, and only with crash
recovery on.
"""

import itertools
from collections.abc import Iterator

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.command_checks import ends_at
from ccs_stream.protocol.commands import Acquire, Heartbeat, Read, Refresh, Release, Sweep
from ccs_stream.protocol.decide_writes import crowded_out, end_expired, expire, reservation_expired
from ccs_stream.protocol.directory import ParticipantState, SessionState, View
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Fence, Micros, ParticipantNumber, SessionId
from ccs_stream.protocol.limits import TIME_US_MAX
from ccs_stream.protocol.reclaims import reclaim_sentence
from ccs_stream.protocol.refusal import Refusal, reclaim_of
from ccs_stream.protocol.states import GrantState

TTL_REFRESH_FRACTION = 10
"""A life is extended at most once per this fraction of its TTL: a hot reader does not become a hot writer."""
_SIZE_OF_AN_END = 300
_SIZE_OF_A_HOLDER = 10
"""Bytes that the end of one artifact may take in a decision, and naming one holder: no less than they do take."""


def decide_read(view: View, command: Read, participant: ParticipantState, now: Micros) -> list[ev.Event]:
    """A grant, unless the reader holds one or there is nothing to read."""
    reader = participant.number
    artifact = view.artifacts.get(command.artifact)
    if artifact is None:
        return []
    events: list[ev.Event] = []
    lapsed = artifact.reserved_by == reader and not artifact.reserved(now)
    version = end_expired(artifact, now, events)
    if not artifact.readable(now):
        state = GrantState.INVALID
    elif not artifact.holds(reader):
        held = artifact.owner != NOBODY or bool(artifact.sharers)
        state = GrantState.SHARED if held else GrantState.EXCLUSIVE
    else:
        state = artifact.state_of(reader)
    # Append an event for a new grant, and also when the reader had been reclaimed: the event clears that mark, so that
    # the reader may write again.
    if (not artifact.holds(reader) and state is not GrantState.INVALID) or lapsed or reader in artifact.reclaimed:
        if state is GrantState.SHARED and version == artifact.version:
            crowded_out(view, artifact, events)
        grant = ev.GrantIssued(artifact=artifact.artifact, participant=reader, version=version, to_state=state)
        events.append(grant)
    return events


def decide_refresh(view: View, command: Refresh, now: Micros) -> list[ev.Event]:
    """A longer life, at most once per tenth of the TTL."""
    artifact = view.artifacts.get(command.artifact)
    if artifact is None or artifact.ttl_us is None or artifact.expires_at is None:
        return []
    events: list[ev.Event] = []
    end_expired(artifact, now, events)
    if not artifact.readable(now):
        return events
    extended = Micros(min(now + artifact.ttl_us, TIME_US_MAX))
    if (extended - artifact.expires_at) * TTL_REFRESH_FRACTION >= artifact.ttl_us:
        events.append(ev.ExpiryExtended(artifact=artifact.artifact, expires_at=extended))
    return events


def decide_acquire(view: View, command: Acquire, participant: ParticipantState, now: Micros) -> list[ev.Event]:
    """A reservation with a new fence, unless one is in force. Raises `Refusal`."""
    holder = participant.number
    maximum = view.settings.maximum_reservation_us
    if not 0 < command.duration_us <= maximum:
        detail = f"a reservation lasts between 1 and {maximum} microseconds here, not {command.duration_us}"
        raise Refusal(ev.RefusalReason.RESERVATION_TOO_LONG, detail)
    artifact = view.artifacts.get(command.artifact)
    events: list[ev.Event] = []
    fence = Fence(0)
    if artifact is None:
        events.append(ev.ArtifactRegistered(artifact=command.artifact, scope=command.scope, key=command.key))
    else:
        if artifact.reserved(now):
            left_ms = (artifact.reserved_until - now) // 1_000
            detail = f"the artifact is reserved for another {left_ms} ms: wait for the release"
            raise Refusal(ev.RefusalReason.RESERVED, detail, artifact)
        fence = artifact.fence
        if artifact.reserved_by != NOBODY:
            ended = reservation_expired(artifact)
            events.append(ended)
            fence = ended.fence
    events.append(
        ev.ReservationAcquired(
            artifact=command.artifact,
            participant=holder,
            fence=Fence(fence + 1),
            until=ends_at(now, command.duration_us, "a reservation"),
        )
    )
    return events


def decide_release(view: View, command: Release, participant: ParticipantState, now: Micros) -> list[ev.Event]:
    """The end of the caller's reservation. Raises `Refusal` when it is another participant's, or was reclaimed."""
    holder = participant.number
    artifact = view.artifacts.get(command.artifact)
    if artifact is None or not artifact.reserved(now) or artifact.reserved_by != holder:
        reclaim = None if artifact is None else reclaim_of(participant, artifact, now)
        over = "the reservation is over already"
        detail = (
            f"{over}: its time had passed before the release"
            if reclaim is None
            else f"{over}: {reclaim_sentence(reclaim)}"
        )
        raise Refusal(ev.RefusalReason.RECLAIMED, detail, artifact)
    if artifact.fence != command.fence:
        raise Refusal(ev.RefusalReason.FENCED, f"fence {command.fence} is not that of your reservation", artifact)
    return [
        ev.ReservationEnded(
            artifact=artifact.artifact,
            participant=holder,
            fence=Fence(artifact.fence + 1),
            reason=ev.ReservationEndReason.RELEASED,
        )
    ]


def decide_heartbeat(view: View, command: Heartbeat, now: Micros) -> list[ev.Event]:
    """A renewal, only while something reclaimable is held, at most once per interval. Raises `Refusal`."""
    session = view.sessions.get(command.session_id)
    if session is None:
        reason = ev.RefusalReason.UNKNOWN_SESSION
        if view.has_ended(command.session_id):
            reason = ev.RefusalReason.SESSION_ENDED
        raise Refusal(reason, "no such session: start a new one and join")
    settings = view.settings
    renewed_at = session.renewed_until - settings.session_timeout_us
    if not settings.crash_recovery or now < renewed_at + settings.heartbeat_interval_us:
        return []
    participants = map(view.participants.get, session.participants.values())
    if not any(each is not None and next(iter(each.owned), None) is not None for each in participants):
        return []
    return [
        ev.SessionRenewed(
            session_id=session.session_id, until=Micros(min(now + settings.session_timeout_us, TIME_US_MAX))
        )
    ]


def decide_sweep(view: View, command: Sweep, now: Micros) -> list[ev.Event]:
    """End at most `command.limit` things that have run out: reservations, lives, silent owners, surplus sessions."""
    events: list[ev.Event] = []
    left = command.limit
    seen: set[ArtifactId] = set()
    deleted: set[ArtifactId] = set()
    size = 0
    for artifact_id in view.due(now):
        artifact = view.artifacts.get(artifact_id)
        if artifact is None or artifact_id in seen:
            continue
        size += _SIZE_OF_AN_END + _SIZE_OF_A_HOLDER * len(artifact.sharers)
        if left <= 0 or (seen and size > view.settings.maximum_decision_bytes // 2):
            return events
        seen.add(artifact_id)
        before = len(events)
        try:
            if artifact.reserved_by != NOBODY and artifact.reserved_until <= now:
                events.append(reservation_expired(artifact))
            if artifact.exists and artifact.expired(now):
                expire(artifact, events)
                deleted.add(artifact_id)
        except Exception:  # noqa: BLE001  # one artifact that cannot be ended must not keep all others
            del events[before:]
        left -= len(events) > before
    room = view.settings.maximum_decision_bytes // 2 - size
    left = min(left, max(room // _SIZE_OF_AN_END, 0 if events else 1))
    ended = _surplus_sessions(view, left)
    events.extend(ev.SessionEnded(session_id=each.session_id, reason=ev.SessionEndReason.EVICTED) for each in ended)
    left -= len(ended)
    if view.settings.crash_recovery and left > 0:
        events.extend(_reclaims(view, now, left, {each.session_id for each in ended}, deleted))
    return events


def _surplus_sessions(view: View, limit: int) -> list[SessionState]:
    """The sessions that have been idle for longest, as many as exceed the workspace's maximum."""
    surplus = min(view.session_count() - view.settings.maximum_sessions, limit)
    if surplus <= 0:
        return []
    return sorted(view.sessions_alive(), key=lambda each: (each.active_at, each.session_id))[:surplus]


def _reclaims(view: View, now: Micros, limit: int, ending: set[SessionId], deleted: set[ArtifactId]) -> list[ev.Event]:
    events: list[ev.Event] = []
    for session in sorted(view.sessions_alive(), key=lambda each: each.session_id):
        # What ends in the same decision takes its grants with it.
        if session.session_id in ending:
            continue
        found = (each for each in _reclaimable(view, session, now) if each[1] not in deleted)
        some = itertools.islice(found, limit - len(events))
        for owner, artifact, trigger in sorted(some, key=lambda each: each[:2]):
            held = view.artifacts.get(artifact)
            state = GrantState.INVALID if held is None else held.owner_state
            events.append(ev.GrantReclaimed(artifact=artifact, participant=owner, from_state=state, trigger=trigger))
    return events


def may_reclaim(view: View, now: Micros) -> bool:
    """True if there is an M or E grant that may be taken back at `now`; none without crash recovery."""
    if not view.settings.crash_recovery:
        return False
    return any(next(_reclaimable(view, each, now), None) is not None for each in view.sessions_alive())


def _reclaimable(
    view: View, session: SessionState, now: Micros
) -> Iterator[tuple[ParticipantNumber, ArtifactId, ev.ReclaimTrigger]]:
    """The grants of a session that may be taken back.

    Of the others it looks at one for each participant: the one that was held for longest.
    """
    settings = view.settings
    silent = max(session.renewed_until, session.active_at + settings.session_timeout_us) <= now
    trigger = ev.ReclaimTrigger.SESSION_SILENT if silent else ev.ReclaimTrigger.MAXIMUM_HOLD
    for number in session.participants.values():
        owner = view.participants.get(number)
        if owner is None:
            continue
        for artifact, since in owner.owned.items():
            if not silent and since + settings.maximum_hold_us > now:
                break
            yield number, artifact, trigger
