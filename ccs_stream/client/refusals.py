"""From refusals on the log to exceptions in the caller's hands.

Guarantees: every refusal has its exception, which carries the current version and the fence.
"""

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


def error_of(refusal: CommandRefused, what: str) -> CcsError:
    """The exception for a refusal of a command about `what`."""
    return _ERRORS.get(refusal.reason, Refused)(
        f"{what}: {refusal.detail}",
        reason=refusal.reason.value,
        current_version=refusal.current_version,
        fence=refusal.fence,
    )
