"""The coordinator in the caller's own process, over a log that serialises its writers (memory, SQLite).

Guarantees: a command is answered only when its decision is durable in the log; concurrent commands share one append
(group commit); the state is changed only by decisions that are in the log, so a failed append leaves no trace; several
processes on one log see one order. Does not: lead. There is no leader here: the log gives each writer its turn.

How it goes: commands queue up; whoever gets the lock takes all that wait, takes the log's turn, reads what other
processes appended, decides the batch on an overlay, appends, leaves the turn (which makes it durable), folds, answers.
A thread does this itself, without a hop; coroutines have it done by one thread for the whole workspace, or directly
where the log never waits for a disk.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.background import ForkGuard
from ccs_stream.coordinator.batch import PlannedDecision, fold_record, plan
from ccs_stream.coordinator.pending_command import Answer, CommandCounter, PendingCommand, wake
from ccs_stream.coordinator.port import wall_clock
from ccs_stream.coordinator.sweep import sweep_command, sweep_is_due
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.port import Appended, LogStore, Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import open_at_snapshot, take_snapshot
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, Closed, LogDiverged, OutcomeUnknown
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import (
    NO_SESSION,
    CommandNumber,
    Micros,
    SequenceNumber,
)
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings

LOG = logging.getLogger(__name__)

BATCH_MAX: Final = 128
"""Commands in one append: half the smallest useful dedupe window, so that a batch decided again is recognised."""
SWEEP_INTERVAL_US: Final = 30_000_000
"""A batch is followed by a sweep at most this often, and only when something has run out."""
SNAPSHOT_EVERY: Final = 50_000
"""Decisions between snapshots: about half a second of folding for whoever opens the log next."""
SNAPSHOT_ON_CLOSE: Final = 5_000
"""With fewer unsaved decisions than this, closing keeps no snapshot."""
POLL_S: Final = 0.01
"""How often a waiter asks whether another process wrote: a few microseconds every ten milliseconds."""


class LocalCoordinator:
    """Decides the commands of one workspace. One object serves all threads and event loops of the process."""

    def __init__(
        self,
        store: LogStore,
        workspace: str,
        *,
        settings: WorkspaceSettings | None = None,
        clock: Callable[[], Micros] = wall_clock,
    ) -> None:
        self.store = store
        self.workspace = workspace
        self.lock = threading.RLock()
        """Held while the state changes; take it to look at several things at one position."""
        self.clock = clock
        self.timeout_s = math.inf
        self.on_bodies: Callable[[list[Event], tuple[bytes, ...]], None] | None = None
        """Never told: bodies are not read along with what other processes decided."""
        self._log_id = store.log_id
        self._reader = ShardReader(store, workspace)
        self.state: Directory = open_at_snapshot(store, workspace, self._reader)
        self._unsaved = 0
        """Decisions folded since the last snapshot."""
        self._queue: deque[PendingCommand] = deque()
        self._mark = -2
        self._swept_at = 0
        self._moved = threading.Condition(threading.Lock())
        self._waiting = 0
        self._wakeup = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._closed = False
        self._guard = ForkGuard(f"the workspace {workspace!r} of {store.display_url}")
        self._open(settings)

    # Asking.

    def execute(
        self,
        command: Command,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,  # noqa: ARG002  # the log's turns have a time-out of their own
    ) -> Answer:
        """Decide `command` and wait until its decision is durable. `work` (an upload it needs) is done just before.

        Raises `LogError`s of the store, `Closed`, `ForkedProcess`; a refusal is an answer, not an error.
        """
        self._guard.check()
        if work is None and self.lock.acquire(blocking=False):
            # Nobody is committing: no queue, no hop. Those who come meanwhile queue up, and share the next append.
            try:
                if not self._queue and not self._closed:
                    return self._execute_alone(command, numbers)
            except OutcomeUnknown:
                LOG.warning("an append to %s has an unknown outcome: asking again", self.store.display_url)
            finally:
                self.lock.release()
        ticket = PendingCommand(command, numbers, work)
        self._queue.append(ticket)
        with self.lock:
            while not ticket.resolved:
                self._drain()
        return ticket.result()

    async def execute_async(
        self,
        command: Command | None,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,  # noqa: ARG002  # as above
    ) -> Answer:
        """The same from a coroutine. Without a command: do `work`, which may wait for a disk, and catch up."""
        self._guard.check()
        ticket = PendingCommand(command, numbers, work)
        if self.store.instantaneous:
            self._queue.append(ticket)
            with self.lock:
                while not ticket.resolved:
                    self._drain()
            return ticket.result()
        ticket.loop = asyncio.get_running_loop()
        ticket.future = ticket.loop.create_future()
        self._queue.append(ticket)
        self._ensure_thread()
        self._wakeup.release()
        answer: Answer = await ticket.future
        return answer

    def behind(self) -> bool:
        """Whether another writer may have appended what is not folded yet. Costs microseconds."""
        if self._guard.forked:
            self._guard.check()
        return self.store.change_mark(self.workspace) != self._mark

    def catch_up(self) -> None:
        """Fold what other writers have appended."""
        self._guard.check()
        with self.lock:
            self._catch_up()

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done()` holds of the folded state, for at most `timeout_s`; whether it does."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or self._closed:
                return done()
            with self._moved:
                self._waiting += 1
                try:
                    # A move between the check above and here is seen at the latest after one poll.
                    self._moved.wait(min(left, POLL_S))
                finally:
                    self._waiting -= 1
            if self.behind():
                self.catch_up()
        return True

    async def wait_async(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """The same from a coroutine."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or self._closed:
                return done()
            await asyncio.sleep(min(left, POLL_S))
            if self.behind():
                await self.execute_async(None)
        return True

    @property
    def folded_offset(self) -> int:
        """Offset of the last record folded."""
        return self._reader.offset

    @property
    def position(self) -> Position:
        """Where the folded state stands."""
        with self.lock:
            return self._reader.position(self.workspace)

    @property
    def void_records(self) -> int:
        """Records of the log that were never applied."""
        return self._reader.cursor.void

    @property
    def stale(self) -> bool:
        """Never: a log on this machine is asked, or the call fails."""
        return False

    def reader_here(self) -> ShardReader:
        """A reader that stands where the state is folded to, and moves by itself."""
        with self.lock:
            return self._reader.another()

    def sweep(self) -> int:
        """End what has run out now; returns how many events that took."""
        return len(self.execute(sweep_command()).events)

    def close(self) -> None:
        """Answer what waits, and let go. The store stays open."""
        if self._closed:
            return
        with self.lock:
            if not self._guard.forked:
                while self._queue:
                    self._drain()
                self._save_snapshot(SNAPSHOT_ON_CLOSE)
            self._closed = True
        if self._thread is not None and not self._guard.forked:
            self._wakeup.release()
            if self._thread is not threading.current_thread():
                self._thread.join()

    # Deciding.

    def _drain(self) -> None:
        """Decide and append what waits. The caller holds the lock."""
        batch: list[PendingCommand] = []
        while self._queue and len(batch) < BATCH_MAX:
            batch.append(self._queue.popleft())
        if not batch:
            return
        try:
            self._check_open()
            try:
                self._commit(batch)
            except OutcomeUnknown:
                # Decided again under the same numbers, the batch finds itself in the log, or goes there now.
                LOG.warning("an append to %s has an unknown outcome: asking again", self.store.display_url)
                self._commit([ticket for ticket in batch if not ticket.resolved])
        except BaseException as error:
            for ticket in batch:
                if not ticket.resolved:
                    ticket.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            wake(batch)
        self._maintain()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the workspace {self.workspace!r} was closed: connect again")

    def _commit(self, batch: list[PendingCommand]) -> None:
        if len(batch) > 1 or batch[0].work is not None or batch[0].command is None:
            batch = self._after_work(batch)
            if not batch:
                return
        for ticket in batch:
            if ticket.numbers is not None and ticket.command is not None and not ticket.command.number:
                ticket.command.number = CommandNumber(ticket.numbers.next())
        planned = self._append([ticket.command for ticket in batch if ticket.command is not None])
        self._settle(planned)
        for ticket, each in zip(batch, planned, strict=True):
            ticket.answer = self._answer(each)

    def _execute_alone(self, command: Command, numbers: CommandCounter | None) -> Answer:
        """Decide and append one command. The caller holds the lock."""
        if numbers is not None and not command.number:
            command.number = CommandNumber(numbers.next())
        planned = self._append((command,))
        self._settle(planned)
        answer = self._answer(planned[0])
        self._maintain()
        return answer

    def _append(self, commands: Sequence[Command]) -> list[PlannedDecision]:
        """Take the log's turn, decide, append; when this returns, the decisions are durable."""
        store, reader, state, workspace = self.store, self._reader, self.state, self.workspace
        with store.turn(workspace):
            self._catch_up()
            now = self.clock()
            planned = plan(state, reader.cursor, workspace, commands, max(now, state.recorded_at))
            drafts = [each.draft for each in planned if each.draft is not None]
            if drafts:
                appended = store.append(workspace, drafts, reader.offset)
                if type(appended) is not Appended:
                    raise LogDiverged(
                        f"{store.display_url} changed while this process had its turn ({appended}): something writes "
                        "to it without taking turns"
                    )
            mark = store.change_mark(workspace)
        self._mark = mark
        return planned

    def _after_work(self, batch: list[PendingCommand]) -> list[PendingCommand]:
        """Do the work that comes before commands, or is asked for alone; returns the commands left to decide."""
        commands: list[PendingCommand] = []
        for ticket in batch:
            try:
                if ticket.work is not None:
                    ticket.work()
                    ticket.work = None
            except Exception as error:  # noqa: BLE001  # the caller gets it
                ticket.error = error
                continue
            if ticket.command is not None:
                commands.append(ticket)
                continue
            self._catch_up()
            ticket.answer = self._answer_from_state()
        return commands

    def _settle(self, planned: list[PlannedDecision]) -> None:
        """Fold what is durable now."""
        reader, moved = self._reader, False
        for each in planned:
            if each.record is not None and each.digest is not None:
                fold_record(self.state, each)
                each.offset = reader.offset + 1
                reader.moved_over(each.record, each.digest, each.offset)
                self._unsaved += 1
                moved = True
        if moved and self._waiting:
            self._notify()

    def _answer(self, planned: PlannedDecision) -> Answer:
        record, digest = planned.record, planned.digest
        if record is None or digest is None:
            repeats = planned.decision.repeats
            return self._answer_from_state() if repeats is None else self._answer_again(repeats)
        events = planned.decision.events
        return Answer(
            events,
            record.first_sequence,
            SequenceNumber(record.first_sequence + len(events) - 1),
            record.recorded_at,
            self._log_id,
            self.workspace,
            planned.offset,
            digest,
        )

    def _answer_from_state(self) -> Answer:
        end = self._reader.cursor.end(self.workspace)
        return Answer(
            (),
            end.sequence,
            end.sequence,
            self.state.recorded_at,
            self._log_id,
            self.workspace,
            self._reader.offset,
            end.hash,
        )

    def _answer_again(self, sequence: SequenceNumber) -> Answer:
        """The answer of a command decided before, from its decision in the log."""
        stored = self.store.find(self.workspace, sequence)
        if stored is None:
            raise LogDiverged(f"sequence {sequence} was folded and is not in {self.store.display_url}")
        record, _ = DEFAULT_CODEC.decode_record(stored.head)
        if type(record) is not DecisionRecord:
            raise LogDiverged(f"sequence {sequence} of {self.store.display_url} is not in a decision")
        return Answer(
            [DEFAULT_CODEC.decode_event(each) for each in record.events],
            record.first_sequence,
            SequenceNumber(record.first_sequence + len(record.events) - 1),
            record.recorded_at,
            self._log_id,
            self.workspace,
            stored.offset,
            chain_hash(stored.head),
        )

    # Following.

    def _catch_up(self) -> None:
        mark = self.store.change_mark(self.workspace)
        if mark == self._mark:
            return
        moved = False
        for entry in self._reader.read(bodies=False):
            fold_entry(self.state, entry)
            self._unsaved += 1
            moved = True
        self._mark = mark
        if moved and self._waiting:
            self._notify()

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()

    def _open(self, settings: WorkspaceSettings | None) -> None:
        with self.lock:
            self._catch_up()
            self._save_snapshot(SNAPSHOT_EVERY)
            if self.state.opened and settings is None:
                return
            asked = Open(session_id=NO_SESSION, number=CommandNumber(0), settings=settings or DEFAULT_SETTINGS)
            ticket = PendingCommand(asked)
            self._queue.append(ticket)
            self._drain()
            refusal = ticket.result().refusal
            if refusal is not None and settings is not None:
                raise CcsError(refusal.detail)

    def _save_snapshot(self, after: int) -> None:
        """Keep a snapshot once `after` decisions were folded without one. A failure is said, and harms nobody."""
        if self._unsaved < after or self.store.instantaneous or not self.state.opened:
            return
        self._unsaved = 0
        try:
            self.store.save_snapshot(self.workspace, take_snapshot(self.state, self._reader.position(self.workspace)))
        except CcsError as error:
            LOG.warning("no snapshot of %s was kept: %s", self.store.display_url, error)

    def _maintain(self) -> None:
        if self._unsaved >= SNAPSHOT_EVERY:
            # A snapshot costs as much as folding about as many decisions as there are artifacts.
            self._save_snapshot(max(SNAPSHOT_EVERY, 4 * len(self.state.artifacts)))
        now = self.clock()
        if now - self._swept_at < SWEEP_INTERVAL_US or self._closed:
            return
        self._swept_at = now
        if sweep_is_due(self.state, now):
            with contextlib.suppress(CcsError):  # a sweep is a courtesy: the command before it was answered
                self._settle(self._append((sweep_command(),)))

    # The thread that commits for coroutines.

    def _ensure_thread(self) -> None:
        if self._thread is None:
            with self.lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._commit_for_coroutines, name=f"ccs-commit-{self.workspace}", daemon=True
                    )
                    self._thread.start()

    def _commit_for_coroutines(self) -> None:
        while not self._closed:
            self._wakeup.acquire()
            with self.lock:
                self._drain()
