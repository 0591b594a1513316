"""Operations as generators of steps, so that one implementation serves threads and coroutines alike.

The reader, the writer and the adapters are written as steps.

How: an operation is a generator. It yields a step (a command to be decided, blocking work, a wait) and is resumed with
the step's outcome. `run` takes the steps in the calling thread; `run_async` takes them in the running event loop,
without a thread for each call. Does not: hold any rule of the protocol.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar, assert_never

from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.cancellation import Settlement
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.coordinator.port import LEAST_SHARE_OF_TIMEOUT, Coordinator
from ccs_stream.protocol.commands import Command, Commit

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class Submit:
    """Have a command decided, after the `work` it needs (an upload). Resumed with its `Answer`."""

    command: Command
    numbers: CommandCounter
    work: Callable[[], object] | None = None
    read_set: ReadSet | None = None
    """For a write, the read set that learns its version; then it is settled after a cancellation, too."""


@dataclasses.dataclass(slots=True)
class RunBlocking:
    """Do `work`, which may wait for a disk or a lock; resumed with its result. Without it, catch up with other writers.

    `long` work has a thread of its own, where an event loop waits for it.
    """

    work: Callable[[], object] | None = None
    long: bool = False


@dataclasses.dataclass(slots=True)
class LookAtState:
    """Call `look` under the coordinator's lock, for which an event loop never waits. Resumed with its result."""

    look: Callable[[], object]


@dataclasses.dataclass(slots=True)
class AskIfBehind:
    """Ask the log whether another writer may have appended. Resumed with the answer."""


@dataclasses.dataclass(slots=True)
class WaitUntil:
    """Wait until the folded state satisfies `done`. Resumed with whether it did in time."""

    done: Callable[[], bool]
    timeout_s: float


@dataclasses.dataclass(slots=True)
class SyncOrAsync:
    """Call something that has a sync and an async form, such as an embedding model. Resumed with its result."""

    call: Callable[[], Any]
    call_async: Callable[[], Awaitable[Any]]


Step = Submit | RunBlocking | LookAtState | AskIfBehind | WaitUntil | SyncOrAsync
Steps = Generator[Step, Any, T]


class TimeBudget:
    """The time that one call may still wait. A slow catch-up leaves less for the decision that follows it."""

    __slots__ = ("_limit_s", "_spent_s")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._spent_s = 0.0

    def caught_up(self, took_s: float) -> None:
        """Charge a finished catch-up to the budget.

        One that took longer than the time-out was folding a backlog: the log was answering, so it is not charged.
        """
        self._spent_s = 0.0 if took_s > self._limit_s * (1 + LEAST_SHARE_OF_TIMEOUT) else took_s

    def left_s(self) -> float:
        """Seconds that the next decision may take. The one after it has the whole time again: the log has answered."""
        left, self._spent_s = max(self._limit_s - self._spent_s, self._limit_s * LEAST_SHARE_OF_TIMEOUT), 0.0
        return left


def run(coordinator: Coordinator, steps: Steps[T]) -> T:
    """Take the steps in the calling thread."""
    budget = TimeBudget(coordinator.timeout_s)
    try:
        step = next(steps)
        while True:
            try:
                outcome = _take(coordinator, step, budget)
            except Exception as error:  # noqa: BLE001  # the operation decides what an error means
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()  # what the steps have begun ends now, and not when the garbage is collected


async def run_async(coordinator: Coordinator, steps: Steps[T], *, undo: Callable[[T], object] | None = None) -> T:
    """Take the steps in the running event loop.

    Where the coroutine is cancelled, a command on its way may still be decided. If it is a write, or there is an
    `undo`, the steps are then resumed with its outcome, to record it; they end where they ask for anything more. What
    they return is handed to `undo`.
    """
    budget = TimeBudget(coordinator.timeout_s)
    settlement: Settlement | None = None
    try:
        step = next(steps)
        while True:
            settlement = _settlement_of(step, steps, undo) if type(step) is Submit else None
            try:
                outcome = await _take_async(coordinator, step, budget, settlement)
            except Exception as error:  # noqa: BLE001  # the operation decides what an error means
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        if settlement is None or not settlement.begun:
            steps.close()


def _settlement_of(submit: Submit, steps: Steps[T], undo: Callable[[T], object] | None) -> Settlement | None:
    """What becomes of a command if its coroutine is cancelled; None where its outcome does not count."""
    read_set, command = submit.read_set, submit.command
    if read_set is None and undo is None:
        return None

    def resume(answer: Answer | None, error: BaseException | None) -> None:
        try:
            if error is not None:
                steps.throw(error)
            else:
                steps.send(answer)
        except StopIteration as done:
            if undo is not None:
                undo(done.value)
        else:
            steps.close()  # it asks for more, and nobody waits for that

    artifacts = [change.artifact for change in command.changes] if type(command) is Commit else []
    return Settlement(resume, read_set, artifacts)


def _take(coordinator: Coordinator, step: Step, budget: TimeBudget) -> Any:
    match step:  # the most frequent first
        case AskIfBehind():
            return coordinator.behind()
        case LookAtState():
            with coordinator.lock:
                return step.look()
        case Submit():
            return coordinator.execute(step.command, step.numbers, step.work, timeout_s=budget.left_s())
        case RunBlocking():
            if step.work is not None:
                return step.work()
            began = time.monotonic()
            coordinator.catch_up()
            budget.caught_up(time.monotonic() - began)
            return None
        case WaitUntil():
            return coordinator.wait(step.done, step.timeout_s)
        case SyncOrAsync():
            return step.call()
        case _:
            assert_never(step)


async def _take_async(coordinator: Coordinator, step: Step, budget: TimeBudget, settlement: Settlement | None) -> Any:
    match step:
        case Submit():
            left_s = budget.left_s()
            return await coordinator.execute_async(
                step.command, step.numbers, step.work, timeout_s=left_s, on_cancelled=settlement
            )
        case RunBlocking():
            if step.work is not None:
                return await coordinator.off_loop(step.work, long=step.long)
            began = time.monotonic()
            await coordinator.execute_async(None)
            budget.caught_up(time.monotonic() - began)
            return None
        case LookAtState():
            return await _look_at_state(coordinator, step.look)
        case AskIfBehind():
            return await coordinator.behind_async()
        case WaitUntil():
            return await coordinator.wait_async(step.done, step.timeout_s)
        case SyncOrAsync():
            return await step.call_async()
        case _:
            assert_never(step)


async def _look_at_state(coordinator: Coordinator, look: Callable[[], T]) -> T:
    lock = coordinator.lock
    try:
        if lock.acquire(blocking=False):
            return look()
    finally:
        try:  # noqa: SIM105  # an interrupt may come on the way into `suppress`
            lock.release()
        except RuntimeError:  # another thread has it
            pass

    def locked() -> T:
        with coordinator.lock:
            return look()

    return await coordinator.off_loop(locked)
