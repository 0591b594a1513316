"""Why and when a participant lost a reservation or a grant, and the sentence for its refusal.

Guarantees: the words are the same in refusals, in `Reclaimed.trigger` and in `ccs-replay`. Does not: decide anything.
The loss itself is state; its reason and time are kept beside the state, outside the state hash, and are unknown where
the state came from a snapshot that does not contain them.
"""

import datetime as dt
import enum
from typing import Final, NamedTuple

from ccs_stream.protocol.events import ReclaimTrigger
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import instant_of

_READ_AGAIN: Final = "read the artifact again before changing it"


class ReclaimReason(enum.StrEnum):
    """The reason in words for people; the log's own symbols are those of `ReclaimTrigger`."""

    HEARTBEAT = "reclaim_heartbeat"
    """Its session sent no heartbeat for the workspace's time-out."""
    MAXIMUM_HOLD = "reclaim_max_hold"
    """It was held for longer than the workspace allows, alive or not."""
    EXPIRED = "expired"
    """Its reservation ran out."""


REASON_OF: Final = {
    ReclaimTrigger.SESSION_SILENT: ReclaimReason.HEARTBEAT,
    ReclaimTrigger.MAXIMUM_HOLD: ReclaimReason.MAXIMUM_HOLD,
}


class Reclaim(NamedTuple):
    """Why, and when: for a reservation the end of its time, for a grant when it was taken back."""

    reason: ReclaimReason
    at: Micros

    @property
    def time(self) -> dt.datetime:
        """The same instant, in UTC."""
        return instant_of(self.at)


def reclaim_sentence(reclaim: Reclaim | None) -> str:
    """The detail of a refusal, with as much as is known of the reclaim."""
    if reclaim is None:
        return f"your reservation or grant was reclaimed: {_READ_AGAIN}"
    what = "reservation" if reclaim.reason is ReclaimReason.EXPIRED else "grant"
    at = reclaim.time.isoformat(timespec="microseconds").removesuffix("+00:00")
    return f"your {what} was reclaimed ({reclaim.reason}) at {at}Z: {_READ_AGAIN}"
