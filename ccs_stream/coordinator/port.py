"""The port through which a client uses a coordinator, wherever that one decides.

Two implementations: `local.LocalCoordinator` (the caller's process decides) and `kafka.remote.RemoteCoordinator` (a
leader found through Kafka decides, which may be in the caller's process too).

Guarantees (the store's own test suite runs on each): a command is answered only from what is in the log; the state is
changed under `lock` only.
"""

import threading
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from ccs_stream.clock import Clock
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.health import CoordinatorHealth
from ccs_stream.coordinator.pending_command import CommandCounter, OnCancelled
from ccs_stream.log.port import LogStore, Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import Micros

T = TypeVar("T")

LEAST_SHARE_OF_TIMEOUT: Final = 0.1
"""The part of a call's time-out that each step of it has at least, however long earlier steps took."""


class Coordinator(Protocol):
    """Has the commands of one workspace decided, and keeps its state folded."""

    @property
    def store(self) -> LogStore:
        """The log of the workspace."""

    workspace: str
    state: Directory
    clock: Clock
    """The clock of this coordinator, for its time and its waits."""
    now: Callable[[], Micros]
    """`clock.now`, as an attribute of its own, because every read that is served from a copy calls it."""
    on_bodies: Callable[[list[Event], tuple[bytes, ...]], None] | None
    """Called under the lock with the events and bodies of a decision that was read from the log."""

    @property
    def timeout_s(self) -> float:
        """How long a call waits for the leader; `math.inf` where this process decides."""

    @property
    def lock(self) -> threading.RLock:
        """Held while the state changes; take it to look at several things at one position."""

    @property
    def closed(self) -> bool:
        """True if `close` was called."""

    @property
    def stale(self) -> bool:
        """True if the log cannot be reached now, so that the state may be older than it should be."""

    @property
    def folded_offset(self) -> int:
        """Offset of the last record folded."""

    @property
    def position(self) -> Position:
        """The position up to which the state is folded."""

    @property
    def void_records(self) -> int:
        """Records of the log that were never applied."""

    def execute(
        self,
        command: Command,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """Have `command` decided and wait for its decision. `work` (an upload it needs) is done just before.

        `timeout_s` bounds the wait where others decide; without it, `self.timeout_s` does.

        Raises `LogError`s, `OutcomeUnknown`, `Closed`, `ForkedProcess`; a refusal is an answer, not an error.
        """

    async def execute_async(
        self,
        command: Command | None,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,
        on_cancelled: OnCancelled | None = None,
    ) -> Answer:
        """The same from a coroutine. Without a command: do `work`, which may wait, and catch up.

        A coroutine that is cancelled leaves the command on its way: it may still be decided. `on_cancelled` is then
        called, and what it returns is called with the outcome.
        """

    async def off_loop(self, work: Callable[[], T], *, long: bool = False) -> T:
        """The result of `work`, which may wait for a disk, a broker or the lock, but not for other commands.

        A thread of the workspace does it, without the lock. `long` work (a history, a search) has a thread of its own,
        so that short reads do not wait behind it.
        """

    def do_later(self, job: Callable[[], object]) -> None:
        """Have a thread of the workspace do `job`, for which nobody waits."""

    def behind(self) -> bool:
        """True if another writer may have appended what is not folded yet."""

    async def behind_async(self) -> bool:
        """The same from a coroutine; the event loop does not wait for a disk."""

    def catch_up(self) -> None:
        """Fold what other writers have appended."""

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done()` holds of the folded state, for at most `timeout_s`; whether it does."""

    async def wait_async(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """The same from a coroutine."""

    def reader_here(self) -> ShardReader:
        """A reader that goes on from the folded state and moves independently."""

    def sweep(self) -> int:
        """End some of what has run out, where that is this process's to do; returns how many events that took.

        One call is one decision of a bounded size. Zero: nothing is left.
        """

    def health(self) -> CoordinatorHealth:
        """The state of this coordinator. Never waits for a disk or a broker, and works on a closed one."""

    def close(self) -> None:
        """Answer what waits, and let go. The store stays open."""
