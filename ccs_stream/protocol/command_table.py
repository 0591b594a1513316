"""The command table: the events that each command is decided as, and their effect on the state.

The documentation shows it. Guarantees: one row for each `CommandKind` (tested). Does not: execute; the rules are in
`decide` and `evolve`, and the table is how people find them.
"""

import dataclasses
from typing import Final

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.commands import CommandKind


@dataclasses.dataclass(frozen=True, slots=True)
class CommandTableRow:
    """One command."""

    kind: CommandKind
    events: tuple[type[ev.Event], ...]
    """Events it may be decided as, besides `CommandRefused`, which any command may be."""
    effect: str
    """Their effect on the state."""


_EXPIRY: Final = (ev.ReservationEnded, ev.ArtifactDeleted, ev.GrantsInvalidated)
"""Events for reservations and lives that have run out: any command that meets one ends it in its own decision."""

COMMAND_TABLE: Final = (
    CommandTableRow(CommandKind.OPEN, (ev.WorkspaceOpened,), "sequence 1: the limits everybody works under"),
    CommandTableRow(CommandKind.JOIN, (ev.ParticipantJoined,), "the agent may hold grants in this session"),
    CommandTableRow(CommandKind.LEAVE, (ev.SessionEnded,), "the session's grants and reservations end"),
    CommandTableRow(CommandKind.EVICT, (ev.SessionEnded,), "the same, for another session"),
    CommandTableRow(CommandKind.READ, (ev.GrantIssued, *_EXPIRY), "reader to S, or E if alone; an M or E holder to S"),
    CommandTableRow(
        CommandKind.COMMIT,
        (ev.ArtifactRegistered, ev.WriteCommitted, ev.GrantsInvalidated, ev.ReservationEnded, ev.ArtifactDeleted),
        "version + 1; writer to M; the holders named to I",
    ),
    CommandTableRow(
        CommandKind.COMMIT_ALL,
        (ev.ArtifactRegistered, ev.WriteCommitted, ev.GrantsInvalidated, ev.ReservationEnded, ev.ArtifactDeleted),
        "those of each change, all or none",
    ),
    CommandTableRow(
        CommandKind.DELETE,
        (ev.ArtifactDeleted, ev.GrantsInvalidated, ev.ReservationEnded),
        "version + 1, a tombstone; every holder to I, the deleter too",
    ),
    CommandTableRow(
        CommandKind.REFRESH, (ev.ExpiryExtended, *_EXPIRY), "the life goes on; at most once per tenth of it"
    ),
    CommandTableRow(
        CommandKind.ACQUIRE,
        (ev.ArtifactRegistered, ev.ReservationEnded, ev.ReservationAcquired),
        "an exclusive right to write, with a higher fence",
    ),
    CommandTableRow(CommandKind.RELEASE, (ev.ReservationEnded,), "the right ends; the fence rises"),
    CommandTableRow(
        CommandKind.HEARTBEAT, (ev.SessionRenewed,), "the session counts as alive; at most once an interval"
    ),
    CommandTableRow(
        CommandKind.SWEEP,
        (*_EXPIRY, ev.SessionEnded, ev.GrantReclaimed),
        "what has run out ends; finding nothing decides nothing",
    ),
)
"""Every command, in the order of `CommandKind`."""

ANY_COMMAND: Final[tuple[type[ev.Event], ...]] = (ev.CommandRefused,)
"""Any command may be decided as this instead, and then changes nothing."""
