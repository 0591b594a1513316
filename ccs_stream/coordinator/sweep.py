"""The sweep: the coordinator's own command that ends what has run out, and when it is due.

Both coordinators use it, and the client's heartbeat. Guarantees: a sweep is bounded, and asked for only where there may
be something to end. Does not: end anything itself; `decide` does.
"""

from typing import Final

from ccs_stream.protocol.commands import Sweep
from ccs_stream.protocol.decide_grants import may_reclaim
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber, Micros

ENDED_BY_ONE_SWEEP: Final = 256
"""Reservations, lives and grants that one sweep ends: keeps its decision small."""


def sweep_command() -> Sweep:
    """A sweep. It belongs to no session, and so it is never a repeat."""
    return Sweep(session_id=NO_SESSION, number=CommandNumber(0), limit=ENDED_BY_ONE_SWEEP)


def sweep_is_due(state: Directory, now: Micros) -> bool:
    """True if something may have run out at `now`. The caller holds the lock under which the state changes."""
    if not state.opened:
        return False
    deadline = state.next_deadline()
    crowded = state.session_count() > state.settings.maximum_sessions
    return crowded or (deadline is not None and deadline <= now) or may_reclaim(state, now)
