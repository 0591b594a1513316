"""The exception for each refusal on the log.

Guarantees: every refusal has its exception, which carries the current version and the fence. Where the folded state
knows why and when something was reclaimed, the exception says so. Does not: parse the sentence of a refusal, which is
written for people.
"""

from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import (
    CcsError,
    Fenced,
    Reclaimed,
    Refused,
    Reserved,
    SessionLost,
    TooLarge,
    VersionConflict,
)
from ccs_stream.protocol.events import CommandRefused, RefusalReason
from ccs_stream.protocol.ids import SessionId
from ccs_stream.protocol.reclaims import Reclaim
from ccs_stream.protocol.refusal import reclaim_of

_ERRORS: dict[RefusalReason, type[Refused]] = {
    RefusalReason.VERSION_CONFLICT: VersionConflict,
    RefusalReason.RESERVED: Reserved,
    RefusalReason.RECLAIMED: Reclaimed,
    RefusalReason.FENCED: Fenced,
    RefusalReason.UNKNOWN_SESSION: SessionLost,
    RefusalReason.SESSION_ENDED: SessionLost,
    RefusalReason.UNKNOWN_PARTICIPANT: SessionLost,
    RefusalReason.CONTENT_TOO_LARGE: TooLarge,
    RefusalReason.DECISION_TOO_LARGE: TooLarge,
    RefusalReason.TOO_MANY_CHANGES: TooLarge,
}


def error_of(
    refusal: CommandRefused, what: str, state: Directory | None = None, session_id: SessionId | None = None
) -> CcsError:
    """The exception for a refusal of a command about `what`.

    `state` is that of the refusal or later, and `session_id` the session that was refused: an exception for something
    reclaimed says from them why and when.
    """
    error = _ERRORS.get(refusal.reason, Refused)(
        f"{what}: {refusal.detail}",
        reason=refusal.reason.value,
        current_version=refusal.current_version,
        fence=refusal.fence,
    )
    if isinstance(error, Reclaimed) and state is not None and session_id is not None:
        reclaim = _reclaim(refusal, state, session_id)
        if reclaim is not None:
            error.trigger, error.at = reclaim.reason.value, reclaim.time
    return error


def _reclaim(refusal: CommandRefused, state: Directory, session_id: SessionId) -> Reclaim | None:
    session = state.sessions.get(session_id)
    number = None if session is None else session.participants.get(refusal.agent)
    participant = None if number is None else state.participants.get(number)
    artifact = None if refusal.artifact is None else state.artifacts.get(refusal.artifact)
    if participant is None or artifact is None:
        return None
    return reclaim_of(participant, artifact, state.recorded_at)
