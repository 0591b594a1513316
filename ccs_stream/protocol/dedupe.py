"""The window of a session: how a repeated command is recognised by its number, kind and subject.

`decide` looks commands up in it, `evolve` adds them. Guarantees: the fingerprint that the fold makes of a decision's
events (`subject_of_events`) equals the one that `decide` makes of the command (`subject_of_command`), or is 0. So a
repeat can be told from another command under the same number, and is never taken for one. Does not: protect against an
adversary; the fingerprint is a CRC-32, meant for mistakes.
"""

from binascii import crc32
from collections.abc import Sequence
from typing import Final

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.commands import (
    Acquire,
    Command,
    CommandKind,
    Commit,
    Join,
    Read,
    Refresh,
    Release,
    Write,
)
from ccs_stream.protocol.directory import SessionState
from ccs_stream.protocol.ids import CommandNumber, SequenceNumber

_KINDS: Final = tuple(CommandKind)
_KIND_CODES: Final = {kind: code for code, kind in enumerate(_KINDS)}
_SUBJECT_BITS: Final = 32
_KIND_BITS: Final = 8


def entry(last_sequence: SequenceNumber, kind: CommandKind, subject: int) -> int:
    """The entry of one number in a session's window, as one int: small in memory, exact in the state hash."""
    return (((last_sequence << _KIND_BITS) | _KIND_CODES[kind]) << _SUBJECT_BITS) | subject


def original_sequence(packed: int) -> SequenceNumber:
    """Last sequence of the decision that an entry stands for."""
    return SequenceNumber(packed >> (_KIND_BITS + _SUBJECT_BITS))


def same_command(packed: int, kind: CommandKind, subject: int) -> bool:
    """True if an entry stands for a command of this kind and subject.

    An entry without a subject is that of a command whose events do not name it: one that met only what had expired. It
    stands for any command of its kind, because a session gives a number to one command.
    """
    stored, code = packed & ((1 << _SUBJECT_BITS) - 1), packed >> _SUBJECT_BITS & ((1 << _KIND_BITS) - 1)
    return code == _KIND_CODES[kind] and stored in (subject, 0)


def subject_of_command(command: Command) -> int:
    """Fingerprint of a command: of the artifacts, contents or agent that it names; 0 where they are not valid."""
    try:
        return _subject(command)
    except (TypeError, AttributeError, ValueError):
        return 0


def _subject(command: Command) -> int:
    match command:
        case Commit(changes=(Write() as write,)):
            return crc32(write.content.content_hash, crc32(write.artifact))
        case Commit(changes=changes):
            if len(changes) == 1:
                return crc32(changes[0].artifact)
            subject = 0
            for change in changes:
                if type(change) is Write:
                    subject = crc32(change.content.content_hash, crc32(change.artifact, subject))
            return subject
        case Read() | Refresh() | Acquire() | Release():
            return crc32(command.artifact)
        case Join():
            return crc32(command.agent.encode())
        case _:
            return 0


def subject_of_events(kind: CommandKind, events: Sequence[ev.Event]) -> int:
    """The same fingerprint, from the events of the command's decision."""
    subject = 0
    for event in events:
        match event:
            case ev.WriteCommitted():
                subject = crc32(event.content_hash, crc32(event.artifact, subject))
            case ev.CommandRefused():
                return event.subject
            case ev.GrantIssued() | ev.ReservationAcquired() | ev.ExpiryExtended():
                return crc32(event.artifact)
            case ev.ArtifactDeleted(reason=ev.DeleteReason.DELETED) if kind is CommandKind.DELETE:
                return crc32(event.artifact)
            case ev.ReservationEnded(reason=ev.ReservationEndReason.RELEASED):
                return crc32(event.artifact)
            case ev.ParticipantJoined():
                return crc32(event.agent.encode())
            case _:
                pass
    return subject


def remember_command(
    session: SessionState,
    window: int,
    number: CommandNumber,
    kind: CommandKind,
    events: Sequence[ev.Event],
    sequence: SequenceNumber,
) -> None:
    """Put a decided command into its session's window, and drop the numbers that the window has moved past.

    `sequence` is that of the last of `events`. A number that is there already stays as it is.
    """
    if number in session.window:
        return
    session.window[number] = entry(sequence, kind, subject_of_events(kind, events))
    if number > session.highest:
        oldest = number - window
        # Whichever is less work: a window may be large, and a number far ahead.
        if number - session.highest <= min(window, len(session.window)):
            for forgotten in range(session.highest - window + 1, oldest + 1):
                session.window.pop(CommandNumber(forgotten), None)
        else:
            session.window = {kept: packed for kept, packed in session.window.items() if kept > oldest}
        session.highest = number
