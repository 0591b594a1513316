"""The decision on a command: events, or a refusal, which is an event too.

`coordinator.batch` calls it for every command. Guarantees: pure. `decide` reads the state through `View`, is given the
time, and returns the events of one decision, which are appended together or not at all; it never raises, whatever the
command and the state (an exception inside is a bug, which the caller turns into the refusal `internal_error` with
`refusal_for_bug`). A refused command leads to its refusal alone: nothing half-applied. Does not: append, encode or
answer.

The rules are those of `docs/protocol.md`; the names of the checks are the names of the refusals.
"""

import dataclasses
import enum
from typing import Final, assert_never

from ccs_stream.protocol import dedupe
from ccs_stream.protocol.command_checks import check_command
from ccs_stream.protocol.commands import (
    Acquire,
    Command,
    Commit,
    Evict,
    Heartbeat,
    Join,
    Leave,
    Open,
    Read,
    Refresh,
    Release,
    Sweep,
)
from ccs_stream.protocol.decide_grants import (
    decide_acquire,
    decide_heartbeat,
    decide_read,
    decide_refresh,
    decide_release,
    decide_sweep,
)
from ccs_stream.protocol.decide_writes import decide_commit
from ccs_stream.protocol.directory import ParticipantState, SessionState, View
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import (
    CommandRefused,
    Event,
    ParticipantJoined,
    RefusalReason,
    SessionEnded,
    SessionEndReason,
    WorkspaceOpened,
)
from ccs_stream.protocol.ids import NO_SESSION, Micros, ParticipantNumber, SequenceNumber
from ccs_stream.protocol.limits import PARTICIPANTS_MAX
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.refusal import Refusal

INVALID: Final = RefusalReason.DECISION_TOO_LARGE
"""The reason for which a command is refused that breaks the table of limits: the log cannot hold what it asks for."""


class DropReason(enum.StrEnum):
    """Why a command is passed over without a decision, and leaves no event."""

    STALE_NUMBER = "stale_number"
    """A late copy, older than its session's window: its author was answered long ago."""
    NEVER_OPENED = "never_opened"
    """Its workspace has no sequence 1 in this log, before which no event may come: its author saw another log."""


@dataclasses.dataclass(slots=True)
class Decision:
    """The outcome of one command.

    `events` empty and `repeats` None: the command changes nothing, and is answered from the state. `repeats` set: the
    command was decided before, in the decision that ends at that sequence. `dropped` set: the command is passed over,
    and the coordinator counts it.
    """

    events: list[Event]
    contents: list[bytes] = dataclasses.field(default_factory=list)
    repeats: SequenceNumber | None = None
    dropped: DropReason | None = None

    @property
    def refusal(self) -> CommandRefused | None:
        """The refusal, if the command is refused."""
        last = self.events[-1] if self.events else None
        return last if type(last) is CommandRefused else None


def decide(view: View, command: Command, now: Micros) -> Decision:
    """Decide `command` in the state behind `view` at `now` (the decider's clock; never before the last decision).

    Returns a `Decision`; raises nothing that is not a bug.
    """
    now = max(now, view.recorded_at)
    number = command.number
    session = view.sessions.get(command.session_id)
    if number and session is not None:
        packed = session.window.get(number)
        if packed is not None:
            return _repeated(command, packed)
        if number <= session.highest - view.settings.dedupe_window:
            return Decision([], dropped=DropReason.STALE_NUMBER)
    try:
        if type(command) is Commit:
            contents: list[bytes] = []
            author = _participant(view, session, command)
            return Decision(decide_commit(view, command, author, now, contents), contents)
        check_command(command)
        return Decision(_decide_other(view, session, command, now))
    except Refusal as refusal:
        return Decision([refusal.event(command)])
    except UsageError as error:
        return refusal_of(command, INVALID, str(error))
    except (TypeError, AttributeError):
        # A member of a wrong type; anything else is a bug.
        refused = refusal_of_invalid(command)
        if refused is None:
            raise
        return refused


def refusal_of_invalid(command: Command) -> Decision | None:
    """The refusal of a command that breaks the table of limits; None for one that does not."""
    try:
        check_command(command)
    except UsageError as error:
        return refusal_of(command, INVALID, str(error))
    return None


def refusal_for_bug(error: Exception) -> Decision:
    """The refusal of a command on which `decide` raised: it is recorded and answered, and the next command is served.

    It takes nothing from the command, because the command may be the cause.
    """
    detail = f"{type(error).__name__} while deciding: this is a bug of ccs-stream, and a retry does not help"
    refused = CommandRefused(
        agent="",
        reason=RefusalReason.INTERNAL_ERROR,
        detail=detail,
        artifact=None,
        current_version=None,
        fence=None,
        subject=0,
    )
    return Decision([refused])


def refusal_of(command: Command, reason: RefusalReason, detail: str) -> Decision:
    """The refusal of a command for a reason found outside `decide`, such as a decision too large for the log."""
    return Decision([Refusal(reason, detail).event(command)])


def _repeated(command: Command, packed: int) -> Decision:
    if dedupe.same_command(packed, command.KIND, dedupe.subject_of_command(command)):
        return Decision([], repeats=dedupe.original_sequence(packed))
    detail = f"number {command.number} of this session was another command: a new command takes a new number"
    return refusal_of(command, RefusalReason.NUMBER_REUSED, detail)


def _participant(
    view: View, session: SessionState | None, command: Commit | Read | Refresh | Acquire | Release
) -> ParticipantState:
    """The participant that acts. Raises the `Refusal` that says why it may not."""
    if session is None:
        if view.has_ended(command.session_id):
            raise Refusal(RefusalReason.SESSION_ENDED, "this session has ended: start a new one and join again")
        raise Refusal(RefusalReason.UNKNOWN_SESSION, "no such session: join before acting")
    number = session.participants.get(command.agent)
    participant = None if number is None else view.participants.get(number)
    if participant is None:
        raise Refusal(RefusalReason.UNKNOWN_PARTICIPANT, f"agent {command.agent!r} has not joined in this session")
    return participant


def _decide_other(view: View, session: SessionState | None, command: Command, now: Micros) -> list[Event]:
    match command:
        case Read():
            return decide_read(view, command, _participant(view, session, command), now)
        case Open():
            return _decide_open(view, command)
        case Join():
            return _decide_join(view, command)
        case Leave():
            return _decide_end(view, command, SessionEndReason.LEFT)
        case Evict():
            return _decide_end(view, command, SessionEndReason.EVICTED)
        case Refresh():
            _participant(view, session, command)
            return decide_refresh(view, command, now)
        case Acquire():
            return decide_acquire(view, command, _participant(view, session, command), now)
        case Release():
            return decide_release(view, command, _participant(view, session, command), now)
        case Heartbeat():
            return decide_heartbeat(view, command, now)
        case Sweep():
            return decide_sweep(view, command, now)
        case Commit():
            return decide_commit(view, command, _participant(view, session, command), now, [])
        case _:
            assert_never(command)


def _decide_open(view: View, command: Open) -> list[Event]:
    if not view.opened:
        command.settings.check()
        return [WorkspaceOpened(**dataclasses.asdict(command.settings))]
    if view.settings == command.settings:
        return []
    wanted, current = dataclasses.asdict(command.settings), dataclasses.asdict(view.settings)
    differing = ", ".join(
        f"{name} is {current[name]}, not {value}" for name, value in wanted.items() if value != current[name]
    )
    raise Refusal(RefusalReason.SETTINGS_DIFFER, f"the workspace was opened with other settings: {differing}")


def _decide_join(view: View, command: Join) -> list[Event]:
    if command.session_id == NO_SESSION:
        raise Refusal(RefusalReason.UNKNOWN_SESSION, "a session id of zeros is not valid: use 16 random bytes")
    if view.has_ended(command.session_id):
        raise Refusal(RefusalReason.SESSION_ENDED, "this session has ended: start a new one")
    session = view.sessions.get(command.session_id)
    if session is not None and command.agent in session.participants:
        return []
    identity = ProcessIdentity.of(command) or ProcessIdentity()
    if session is not None and len(session.participants) >= PARTICIPANTS_MAX:
        detail = f"{PARTICIPANTS_MAX} agents have joined in this session, the most that it may have: start a new one"
        raise Refusal(RefusalReason.DECISION_TOO_LARGE, detail)
    number = ParticipantNumber(view.participants_ever + 1)
    return [
        ParticipantJoined(participant=number, agent=command.agent, session_id=command.session_id, **identity.members())
    ]


def _decide_end(view: View, command: Leave | Evict, reason: SessionEndReason) -> list[Event]:
    target = command.target if type(command) is Evict else command.session_id
    if view.sessions.get(target) is None:
        return []
    return [SessionEnded(session_id=target, reason=reason)]
