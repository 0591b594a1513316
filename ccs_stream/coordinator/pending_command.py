"""A command whose decision its caller waits for.

Both coordinators use it. Guarantees: a pending command is resolved once, with an answer or an error; callers in event
loops are woken in their loop. Does not: keep a deadline; `kafka.commands.in_flight` adds one.
"""

import asyncio
import collections
from collections.abc import Callable, Iterable
from typing import Any

from ccs_stream.coordinator.answer import Answer
from ccs_stream.protocol.commands import Command

Settle = Callable[[Answer | None, BaseException | None], object]
"""Is given the outcome of a command whose coroutine was cancelled, an answer or an error. Neither waits nor raises."""
OnCancelled = Callable[[], Settle]
"""Called in the event loop when the coroutine is cancelled."""


class PendingCommand:
    """A command on its way. Without a command: work that may wait for a disk, or merely catching up with the log."""

    __slots__ = ("abandoned", "answer", "command", "error", "future", "loop", "numbers", "work")

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
        """The event loop of the caller, if it is a coroutine."""
        self.future: asyncio.Future[Any] | None = None
        """The future that the coroutine waits for."""
        self.abandoned: collections.deque[Settle] | None = None
        """Once its coroutine was cancelled: what is called with the outcome, and taken out by whoever calls it."""

    @property
    def resolved(self) -> bool:
        """True if it has an answer or an error."""
        return self.answer is not None or self.error is not None

    async def wait(self, on_cancelled: "OnCancelled | None") -> Answer:
        """Wait for the answer, in the coroutine whose `loop` and `future` these are.

        Where the coroutine is cancelled meanwhile, what `on_cancelled()` returns is called with the outcome, once, in
        the thread that learns of it.
        """
        if self.future is None:
            raise AssertionError("a pending command without a future is waited for in its thread")
        try:
            answer: Answer = await self.future
        except asyncio.CancelledError:
            if on_cancelled is not None:
                self.abandoned = collections.deque((on_cancelled(),))
                if self.resolved:
                    self.settle()
            raise
        return answer

    def settle(self) -> None:
        """Pass the outcome on, where the caller has gone. May be called by two threads."""
        try:
            settle = self.abandoned.popleft()  # type: ignore[union-attr]  # the caller has looked
        except IndexError:
            return
        settle(self.answer, self.error)

    def result(self) -> Answer:
        """The answer. Raises the error."""
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise AssertionError("a pending command was asked for its result before it had one")
        return self.answer


class CommandCounter:
    """Numbers the commands of one session, in the order in which they are decided."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0
        """The number of the last command. Only the thread whose turn it is to decide changes it."""

    def next(self) -> int:
        """Count one more; returns its number."""
        self.last += 1
        return self.last


def wake_callers(commands: Iterable[PendingCommand]) -> None:
    """Wake the coroutines that wait for these commands: one call for each event loop, however many commands."""
    by_loop: dict[asyncio.AbstractEventLoop, list[PendingCommand]] = {}
    for each in commands:
        if each.abandoned is not None:
            each.settle()
        if each.loop is not None:
            by_loop.setdefault(each.loop, []).append(each)
    for loop, resolved in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_futures, resolved)
        except RuntimeError:  # the loop was closed meanwhile, and with it those that waited
            continue


def _resolve_futures(commands: list[PendingCommand]) -> None:
    for each in commands:
        future = each.future
        if future is None or future.done():
            continue
        if each.error is not None:
            future.set_exception(each.error)
        else:
            future.set_result(each.answer)
