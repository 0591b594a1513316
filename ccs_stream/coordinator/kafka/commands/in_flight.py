"""Commands whose decisions are waited for: numbered, sent, answered, given up on.

Guarantees: a ticket is resolved once; a session never has more commands open than its window remembers, those given up
on included, so that an older number is always a stale copy; what was given up on goes on being sent under its number
until the log shows it; what was never sent is known not to have happened. Does not: know where decisions come from.

Everything but `settle` and `wake` is called under the owner's lock.
"""

import collections
import threading
import time
from collections.abc import Callable
from typing import Final

from ccs_stream.coordinator.pending_command import Answer, CommandCounter, PendingCommand, wake
from ccs_stream.log.kafka.errors import Refusal
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.errors import CcsError, LogUnavailable, OutcomeUnknown, TooLarge
from ccs_stream.protocol.events import RefusalReason
from ccs_stream.protocol.ids import CommandNumber, SessionId

AGAIN_S: Final = 5.0
"""How long a command waits before it is sent again: only a lost one needs it, and dedupe makes it safe."""
Key = tuple[SessionId, CommandNumber]


class InFlightCommand(PendingCommand):
    """A command whose decision is waited for."""

    __slots__ = ("deadline", "key", "late", "later", "limit_s", "sent_at", "signal")

    def __init__(self, command: Command, numbers: CommandCounter | None, limit_s: float) -> None:
        super().__init__(command, numbers)
        self.limit_s = limit_s
        """How long its caller waits."""
        self.deadline = time.monotonic() + limit_s
        self.key: Key | None = None
        """Session and number, once it was sent: from then on it may be decided."""
        self.sent_at = 0.0
        self.signal: threading.Lock | None = None
        """Held until it is resolved, where a thread waits."""
        self.later: threading.Event | None = None
        """Set when the log shows what had been given up on."""
        self.late: Answer | None = None
        """What it shows."""

    def outcome(self, timeout_s: float) -> Answer | None:
        """What the log says of a command that was given up on; None when it says nothing for so long."""
        if self.later is not None:
            self.later.wait(timeout_s)
        return self.late

    @property
    def kind(self) -> str:
        """The command, for messages."""
        return "command" if self.command is None else self.command.KIND.value


class InFlightCommands:
    """The commands of one process to one workspace."""

    def __init__(
        self,
        *,
        send: Callable[[Command], None],
        window: Callable[[], int],
        trouble: Callable[[], str | None],
    ) -> None:
        """`send` sends a command on, `window` is the session window, `trouble` says why nobody might answer."""
        self._send = send
        self._window = window
        self._trouble = trouble
        self._tickets: dict[Key, InFlightCommand] = {}
        """Every command that may be decided and whose decision was not read, those given up on included."""
        self._open: dict[SessionId, dict[CommandNumber, InFlightCommand]] = {}
        """The same by session, lowest number first."""
        self._queued: collections.deque[InFlightCommand] = collections.deque()
        """Commands that wait for room in their session's window."""
        self._resolved: list[InFlightCommand] = []

    def get(self, session_id: SessionId, number: CommandNumber) -> InFlightCommand | None:
        """The ticket of a command, if its decision is still to be read."""
        return self._tickets.get((session_id, number))

    def submit(self, ticket: InFlightCommand) -> None:
        """Send a command as soon as its session has room for it."""
        self._queued.append(ticket)
        self._pump()

    def resolve(self, ticket: InFlightCommand, answer: Answer) -> None:
        """Its decision was read."""
        if not ticket.resolved:
            ticket.answer = answer
            self._resolved.append(ticket)
        elif ticket.later is not None:
            ticket.late = answer
            ticket.later.set()
        self._forget(ticket)

    def fail(self, ticket: InFlightCommand, error: BaseException) -> None:
        """Tell its caller an error. Its number stays open."""
        if not ticket.resolved:
            ticket.error = error
            self._resolved.append(ticket)

    def not_sent(self, command: Command, refusal: Refusal, error: CcsError) -> None:
        """A command could not be put where it is decided."""
        ticket = self._tickets.get((command.session_id, command.number))
        if ticket is None:
            return
        match refusal:
            case Refusal.TOO_LARGE:
                reason = RefusalReason.DECISION_TOO_LARGE.value
                self.fail(ticket, TooLarge(f"{ticket.kind}: {error}", reason=reason))
                self._forget(ticket)
            case Refusal.DENIED:
                self.fail(ticket, error)
                self._forget(ticket)
            case Refusal.UNKNOWN:
                ticket.sent_at = time.monotonic() - AGAIN_S / 2  # it is sent again soon

    def check(self, now: float) -> None:
        """Give up on what has waited for too long, and send again what nobody seems to have heard."""
        for ticket in tuple(self._queued):
            if ticket.deadline <= now:
                self.give_up(ticket)
        for ticket in tuple(self._tickets.values()):
            if ticket.deadline <= now:
                self.give_up(ticket)
            if now - ticket.sent_at > AGAIN_S and ticket.command is not None:
                ticket.sent_at = now
                self._send(ticket.command)

    def give_up(self, ticket: InFlightCommand) -> None:
        """Tell its caller what is known."""
        if ticket.resolved:
            return
        if ticket.key is None:
            error: CcsError = LogUnavailable(
                f"a {ticket.kind} waited for {ticket.limit_s:.3g} s behind others of this process and was not sent: "
                "nothing of it happened"
            )
        else:
            trouble = self._trouble()
            why = "" if trouble is None else f" (the brokers do not answer: {trouble})"
            error = OutcomeUnknown(
                f"no decision on a {ticket.kind} within {ticket.limit_s:.3g} s{why}: it may be in the log, or "
                "come to be there; wait for its outcome(), or read. Is a coordinator running, and can it append?",
                later=ticket.outcome,
            )
            ticket.later = threading.Event()
        self.fail(ticket, error)

    def settle(self, timeout_s: float) -> None:
        """Wait until nobody waits for an answer, for at most so long. Called without the lock."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if all(each.resolved for each in (*tuple(self._queued), *tuple(self._tickets.values()))):
                return
            time.sleep(0.005)

    def end(self, error: CcsError) -> None:
        """Nobody will be answered any more."""
        for ticket in (*self._queued, *self._tickets.values()):
            known = error
            if ticket.key is not None:
                known = OutcomeUnknown(f"a {ticket.kind} was not answered: {error}")
            self.fail(ticket, known)
        self._queued.clear()

    def wake(self, lock: threading.RLock) -> None:  # type: ignore[valid-type,unused-ignore]  # a function, says typeshed
        """Wake those whose tickets were resolved. The caller holds no lock, or only this one."""
        if not self._resolved:
            return
        with lock:
            resolved, self._resolved = self._resolved, []
        for ticket in resolved:
            if ticket.signal is not None:
                ticket.signal.release()
        wake(resolved)

    def _pump(self) -> None:
        """Send on what has room in its session's window, in order."""
        while self._queued:
            ticket = self._queued[0]
            command = ticket.command
            if ticket.resolved or command is None:
                self._queued.popleft()
                continue
            theirs = self._open.get(command.session_id)
            if theirs:
                lowest, highest = next(iter(theirs)), next(reversed(theirs))
                if highest + 1 - lowest >= self._window():
                    return
            self._queued.popleft()
            if not command.number and ticket.numbers is not None:
                command.number = CommandNumber(ticket.numbers.next())
            ticket.key = (command.session_id, command.number)
            ticket.sent_at = time.monotonic()
            self._tickets[ticket.key] = ticket
            self._open.setdefault(command.session_id, {})[command.number] = ticket
            self._send(command)

    def _forget(self, ticket: InFlightCommand) -> None:
        """Its number is no longer open."""
        if ticket.key is None or self._tickets.pop(ticket.key, None) is None:
            return
        session_id, number = ticket.key
        theirs = self._open.get(session_id)
        if theirs is not None:
            theirs.pop(number, None)
            if not theirs:
                del self._open[session_id]
        if self._queued:
            self._pump()
