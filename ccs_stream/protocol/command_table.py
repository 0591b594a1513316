"""The command table: what each command is decided as, and what that does when folded.

Guarantees: one row for each `CommandKind`; the documentation shows this very table (tested). Does not: execute; the
rules are in `decide` and `evolve`, and the table is how people find them.
"""

import dataclasses
from typing import Final

from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.events import (
    ArtifactDeleted,
    ArtifactRegistered,
    CommandRefused,
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
    WorkspaceOpened,
    WriteCommitted,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One command."""

    kind: CommandKind
    events: tuple[type[Event], ...]
    """Events it may be decided as, besides `CommandRefused`, which any command may be."""
    effect: str
    """What they do when folded."""


_EXPIRY: Final = (ReservationEnded, ArtifactDeleted, GrantsInvalidated)
"""What any command may find run out, and ends in its own decision."""

COMMAND_TABLE: Final = (
    Row(CommandKind.OPEN, (WorkspaceOpened,), "sequence 1: the limits everybody works under"),
    Row(CommandKind.JOIN, (ParticipantJoined,), "the agent may hold grants in this session"),
    Row(CommandKind.LEAVE, (SessionEnded,), "the session's grants and reservations end"),
    Row(CommandKind.EVICT, (SessionEnded,), "the same, for another session"),
    Row(CommandKind.READ, (GrantIssued, *_EXPIRY), "reader to S, or E if alone; an M or E holder to S"),
    Row(
        CommandKind.COMMIT,
        (ArtifactRegistered, WriteCommitted, GrantsInvalidated, ReservationEnded, ArtifactDeleted),
        "version + 1; writer to M; the holders named to I",
    ),
    Row(
        CommandKind.COMMIT_ALL,
        (ArtifactRegistered, WriteCommitted, GrantsInvalidated, ReservationEnded, ArtifactDeleted),
        "those of each change, all or none",
    ),
    Row(
        CommandKind.DELETE,
        (ArtifactDeleted, GrantsInvalidated, ReservationEnded),
        "version + 1, a tombstone; every holder to I, the deleter too",
    ),
    Row(CommandKind.REFRESH, (ExpiryExtended, *_EXPIRY), "the life goes on; at most once per tenth of it"),
    Row(
        CommandKind.ACQUIRE,
        (ArtifactRegistered, ReservationEnded, ReservationAcquired),
        "an exclusive right to write, with a higher fence",
    ),
    Row(CommandKind.RELEASE, (ReservationEnded,), "the right ends; the fence rises"),
    Row(CommandKind.HEARTBEAT, (SessionRenewed,), "the session counts as alive; at most once an interval"),
    Row(
        CommandKind.SWEEP,
        (*_EXPIRY, SessionEnded, GrantReclaimed),
        "what has run out ends; finding nothing decides nothing",
    ),
)
"""Every command, in the order of `CommandKind`."""

ANY_COMMAND: Final[tuple[type[Event], ...]] = (CommandRefused,)
"""What any command may be decided as instead: nothing else changes then."""
