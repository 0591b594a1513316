"""The commands of one process to one workspace, from the call until the log shows their decisions.

`RemoteCoordinator` owns one `InFlightCommands` and resolves its commands with the decisions it reads.

Guarantees: a command is resolved once; a session never has more commands open than its window remembers, those given up
on included, so that an older number is always a stale copy; a command that was given up on goes on being sent under its
number until the log shows it; a command that was never sent is known not to have happened. Does not: know where
decisions come from, or how commands travel; a `CommandRoute` does.

Everything but `wait_until_answered` and `wake` is called under the owner's lock.
"""

import collections
import threading
from typing import Final, Protocol

from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.pending_command import CommandCounter, PendingCommand, wake_callers
from ccs_stream.log.kafka.errors import BrokerRefusal
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.errors import CcsError, LogUnavailable, OutcomeUnknown, TooLarge
from ccs_stream.protocol.events import RefusalReason
from ccs_stream.protocol.ids import CommandNumber, SessionId

RESEND_AFTER_S: Final = 5.0
"""How long a command waits before it is sent again: only a lost one needs it, and dedupe makes it safe."""
_ANSWERED_POLL_S: Final = 0.005
"""How often closing looks whether every command is answered."""
CommandKey = tuple[SessionId, CommandNumber]


class CommandRoute(Protocol):
    """The way of this process's commands to the leader."""

    def send(self, command: Command) -> None:
        """Send a command to the leader, wherever that is. Returns at once."""

    def session_window(self) -> int:
        """The number of command numbers that the log remembers of a session."""

    def broker_error(self) -> str | None:
        """The last error of the brokers, while they do not answer."""


class InFlightCommand(PendingCommand):
    """A command whose decision is waited for until a deadline."""

    __slots__ = ("deadline", "key", "late_answer", "on_late_answer", "sent_at", "signal", "timeout_s")

    def __init__(
        self, command: Command, numbers: CommandCounter | None, timeout_s: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(command, numbers)
        self.timeout_s = timeout_s
        """How long the caller waits for the decision."""
        self.deadline = clock.monotonic() + timeout_s
        self.key: CommandKey | None = None
        """Session and number, once it was sent: from then on it may be decided."""
        self.sent_at = 0.0
        self.signal: threading.Lock | None = None
        """Held until the command is resolved, where a thread waits for it."""
        self.on_late_answer: threading.Event | None = None
        """Set when the log shows the decision after the caller has given up."""
        self.late_answer: Answer | None = None
        """The answer from that decision."""

    def outcome(self, timeout_s: float) -> Answer | None:
        """The answer to a command that was given up on; None when the log does not show it within `timeout_s`."""
        if self.on_late_answer is not None:
            self.on_late_answer.wait(timeout_s)
        return self.late_answer

    @property
    def kind(self) -> str:
        """The command's name, for messages."""
        return "command" if self.command is None else self.command.KIND.value


class InFlightCommands:
    """The commands of one process to one workspace that wait to be sent, or for their decisions."""

    def __init__(self, route: CommandRoute, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._route = route
        self._clock = clock
        self._sent: dict[CommandKey, InFlightCommand] = {}
        """Every command that may be decided and whose decision was not read, those given up on included."""
        self._sent_by_session: dict[SessionId, dict[CommandNumber, InFlightCommand]] = {}
        """The same by session, lowest number first."""
        self._queued: collections.deque[InFlightCommand] = collections.deque()
        """Commands that wait for room in their session's window."""
        self._resolved: collections.deque[InFlightCommand] = collections.deque()
        """Commands whose callers are still to be woken."""

    @property
    def waiting(self) -> int:
        """The number of commands that wait for room in their session's window."""
        return len(self._queued)

    @property
    def in_flight(self) -> int:
        """The number of commands that were sent and whose decisions were not read."""
        return len(self._sent)

    def get(self, session_id: SessionId, number: CommandNumber) -> InFlightCommand | None:
        """The command of that number, if it was sent and its decision is still to be read."""
        return self._sent.get((session_id, number))

    def submit(self, pending: InFlightCommand) -> None:
        """Send a command as soon as its session has room for it."""
        self._queued.append(pending)
        self._send_queued()

    def resolve(self, pending: InFlightCommand, answer: Answer) -> None:
        """Answer a command whose decision was read."""
        if not pending.resolved:
            pending.answer = answer
            self._resolved.append(pending)
        elif pending.on_late_answer is not None:
            pending.late_answer = answer
            pending.on_late_answer.set()
        self._forget(pending)

    def fail(self, pending: InFlightCommand, error: BaseException) -> None:
        """Raise an error to the caller. The command's number stays open."""
        if not pending.resolved:
            pending.error = error
            self._resolved.append(pending)

    def not_sent(self, command: Command, refusal: BrokerRefusal, error: CcsError) -> None:
        """A command could not be put where it is decided: fail it where that is certain, else send it again soon."""
        pending = self._sent.get((command.session_id, command.number))
        if pending is None:
            return
        match refusal:
            case BrokerRefusal.TOO_LARGE:
                reason = RefusalReason.DECISION_TOO_LARGE.value
                self.fail(pending, TooLarge(f"{pending.kind}: {error}", reason=reason))
                self._forget(pending)
            case BrokerRefusal.DENIED:
                self.fail(pending, error)
                self._forget(pending)
            case BrokerRefusal.UNKNOWN:
                pending.sent_at = self._clock.monotonic() - RESEND_AFTER_S / 2

    def check(self, now: float) -> None:
        """Give up on commands that have waited for too long, and send again those that may have been lost."""
        for pending in tuple(self._queued):
            if pending.deadline <= now:
                self.give_up(pending)
        for pending in tuple(self._sent.values()):
            if pending.deadline <= now:
                self.give_up(pending)
            if now - pending.sent_at > RESEND_AFTER_S and pending.command is not None:
                pending.sent_at = now
                self._route.send(pending.command)

    def give_up(self, pending: InFlightCommand) -> None:
        """Raise to the caller what is known after its time is over."""
        if pending.resolved:
            return
        if pending.key is None:
            error: CcsError = LogUnavailable(
                f"a {pending.kind} waited for {pending.timeout_s:.3g} s behind others of this process and was not "
                "sent: nothing of it happened"
            )
        else:
            said = self._route.broker_error()
            why = "" if said is None else f" (the brokers do not answer: {said})"
            error = OutcomeUnknown(
                f"no decision on a {pending.kind} within {pending.timeout_s:.3g} s{why}: it may be in the log, or "
                "come to be there; wait for its outcome(), or read. Is a coordinator running, and can it append?",
                later=pending.outcome,
            )
            pending.on_late_answer = threading.Event()
        self.fail(pending, error)

    def wait_until_answered(self, timeout_s: float) -> None:
        """Wait until no caller waits for an answer, for at most so long. Called without the lock."""
        deadline = self._clock.monotonic() + timeout_s
        while self._clock.monotonic() < deadline:
            if all(each.resolved for each in (*tuple(self._queued), *tuple(self._sent.values()))):
                return
            self._clock.sleep(_ANSWERED_POLL_S)

    def end(self, error: CcsError) -> None:
        """Fail everything: no decision will be read any more."""
        for pending in (*self._queued, *self._sent.values()):
            known = error
            if pending.key is not None:
                known = OutcomeUnknown(f"a {pending.kind} was not answered: {error}")
            self.fail(pending, known)
        self._queued.clear()

    def wake(self, lock: threading.RLock) -> None:  # type: ignore[valid-type,unused-ignore]  # a function, says typeshed
        """Wake the callers whose commands were resolved. The caller of this holds no lock, or only `lock`."""
        if not self._resolved:
            return
        with lock:
            resolved = list(self._resolved)
        for pending in resolved:
            if pending.signal is not None:
                try:  # noqa: SIM105  # an interrupt may come on the way into `suppress`
                    pending.signal.release()
                except RuntimeError:  # another thread was as fast
                    pass
        wake_callers(resolved)
        with lock:  # after they were woken, so that an interrupt leaves none asleep
            for pending in resolved:
                if self._resolved and self._resolved[0] is pending:
                    self._resolved.popleft()

    def _send_queued(self) -> None:
        """Send the queued commands that have room in their session's window, in order."""
        while self._queued:
            pending = self._queued[0]
            command = pending.command
            if pending.resolved or command is None:
                self._queued.popleft()
                continue
            open_numbers = self._sent_by_session.get(command.session_id)
            if open_numbers:
                lowest, highest = next(iter(open_numbers)), next(reversed(open_numbers))
                if highest + 1 - lowest >= self._route.session_window():
                    return
            if not command.number and pending.numbers is not None:
                command.number = CommandNumber(pending.numbers.next())
            pending.key = (command.session_id, command.number)
            pending.sent_at = self._clock.monotonic()
            self._sent[pending.key] = pending
            self._sent_by_session.setdefault(command.session_id, {})[command.number] = pending
            # Noted before it leaves the queue: an interrupt in between, in the thread of another command, loses none.
            self._queued.popleft()
            self._route.send(command)

    def _forget(self, pending: InFlightCommand) -> None:
        """Close its number, which may make room for queued commands."""
        if pending.key is None or self._sent.pop(pending.key, None) is None:
            return
        session_id, number = pending.key
        open_numbers = self._sent_by_session.get(session_id)
        if open_numbers is not None:
            open_numbers.pop(number, None)
            if not open_numbers:
                del self._sent_by_session[session_id]
        if self._queued:
            self._send_queued()
