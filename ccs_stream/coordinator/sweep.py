"""When something may have run out, and the coordinator's own command that ends it.

Guarantees: a sweep is bounded, and asked for only where there may be something to end. Does not: end anything; `decide`
does.
"""

from typing import Final

from ccs_stream.protocol.commands import Sweep
from ccs_stream.protocol.decide_grants import may_reclaim
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber, Micros

SWEEP_LIMIT: Final = 256
"""Things one sweep ends: keeps its decision small."""


def sweep_command() -> Sweep:
    """The coordinator's own command."""
    return Sweep(session_id=NO_SESSION, number=CommandNumber(0), limit=SWEEP_LIMIT)


def sweep_is_due(state: Directory, now: Micros) -> bool:
    """Whether something may have run out. The caller holds the lock under which the state changes."""
    if not state.opened:
        return False
    deadline = state.next_deadline()
    crowded = state.session_count() > state.settings.maximum_sessions
    return crowded or (deadline is not None and deadline <= now) or may_reclaim(state, now)
