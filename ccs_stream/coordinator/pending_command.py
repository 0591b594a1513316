"""What a caller holds while its command is being decided, and what it gets.

Guarantees: a ticket is resolved exactly once, with an answer or an error, by whoever appended its decision; a waiter
in an event loop is woken in that loop. Does not: time out; a local log answers or raises.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.events import CommandRefused, Event
from ccs_stream.protocol.ids import Hash, LogId, Micros, SequenceNumber


@dataclasses.dataclass(slots=True)
class Answer:
    """What a command led to, read back from the log. `events` is empty where it changed nothing."""

    events: Sequence[Event]
    first_sequence: SequenceNumber
    """Sequence of the first event; where there is none, of the state that answered."""
    last_sequence: SequenceNumber
    recorded_at: Micros
    log_id: LogId
    shard: str
    offset: int
    hash: Hash

    @property
    def position(self) -> Position:
        """The end of the decision, for `at_least=`, `watch` and `as_of`."""
        return Position(self.log_id, self.shard, self.offset, self.last_sequence, self.hash)

    @property
    def refusal(self) -> CommandRefused | None:
        """The refusal, if the command was refused."""
        last = self.events[-1] if self.events else None
        return last if type(last) is CommandRefused else None


class PendingCommand:
    """A command on its way; without a command, some work of the log (or only catching up with other writers)."""

    __slots__ = ("answer", "command", "error", "future", "loop", "numbers", "work")

    def __init__(
        self,
        command: Command | None,
        numbers: "CommandCounter | None" = None,
        work: Callable[[], object] | None = None,
    ) -> None:
        self.command = command
        self.numbers = numbers
        self.work = work
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[Any] | None = None

    @property
    def resolved(self) -> bool:
        """Whether it has an answer or an error."""
        return self.answer is not None or self.error is not None

    def result(self) -> Answer:
        """The answer. Raises the error."""
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise AssertionError("a ticket was asked for its result before it had one")
        return self.answer


class CommandCounter:
    """Gives a session's commands their numbers, in the order in which they are decided."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """The next number; called only by whoever has the turn."""
        self._last += 1
        return self._last


def wake(tickets: Iterable[PendingCommand]) -> None:
    """Tell the event loops that wait for these tickets: one call a loop, however many tickets."""
    by_loop: dict[asyncio.AbstractEventLoop, list[PendingCommand]] = {}
    for ticket in tickets:
        if ticket.loop is not None:
            by_loop.setdefault(ticket.loop, []).append(ticket)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:  # the loop was closed while it waited: nobody is left to tell
            continue


def _resolve(tickets: list[PendingCommand]) -> None:
    for ticket in tickets:
        future = ticket.future
        if future is None or future.done():
            continue
        if ticket.error is not None:
            future.set_exception(ticket.error)
        else:
            future.set_result(ticket.answer)
