"""The coordinator in the caller's own process, over a log that serialises its writers (memory, SQLite).

The client uses it through `port.Coordinator`.

Guarantees: a command is answered only when its decision is durable in the log; concurrent commands share one append
(group commit); the state is changed only by decisions that are in the log, so a failed append leaves no trace; several
processes on one log see one order. Does not: lead. There is no leader here: the log gives each writer its turn.

How: commands queue up. The thread that gets the lock takes all that wait, takes the log's turn, reads what other
processes appended, decides the batch on an overlay, appends, leaves the turn (which makes it durable), folds, answers.
A thread does this itself, without a hop. For coroutines one background queue of the workspace does it, or the coroutine
itself where the log never waits for a disk. The worker of that queue blocks on the lock and on the log's disk. Reads on
behalf of coroutines are done by two queues besides, `ccs-reads-...` and, for what takes long, `ccs-look-back-...`;
their workers hold no lock while they read, so that commits go on.

Interrupts: an exception of a signal handler (Ctrl-C, a time-out) may come between any two lines. Append, fold and the
reader's position then move as one step, or are done again: `_mark` says `TORN` from before a fold until the reader has
moved, and whoever finds that rebuilds state and reader from the log before anything else. What was appended and not
folded is found by folding. A command leaves the queue after it was answered and not before, so that an interrupted
thread leaves those of others where the next thread finds them; an interrupt is raised in the thread that it came to,
and is nobody else's answer.
"""

import asyncio
import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from ccs_stream.background import BackgroundQueue, ForkGuard, Job, job_queue, run_job
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.batch import PlannedDecision, plan
from ccs_stream.coordinator.health import CoordinatorHealth
from ccs_stream.coordinator.log_time import LogTime
from ccs_stream.coordinator.pending_command import CommandCounter, OnCancelled, PendingCommand, wake_callers
from ccs_stream.coordinator.snapshot_pace import SNAPSHOT_EVERY, decisions_between_snapshots
from ccs_stream.coordinator.sweep import sweep_command, sweep_is_due
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.port import Appended, LogStore, Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import open_at_snapshot, take_snapshot
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, Closed, LogBusy, LogDiverged, LogError, OutcomeUnknown
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import NO_SESSION, CommandNumber, Micros
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings

LOG = logging.getLogger(__name__)

T = TypeVar("T")

COMMANDS_PER_APPEND: Final = 128
"""Commands in one append: half the smallest useful dedupe window, so that a batch decided again is recognised."""
SWEEP_INTERVAL_US: Final = 30_000_000
"""A batch is followed by a sweep at most this often, and only when something has run out."""
COLLECTED_ON_CLOSE: Final = 10_000
"""With more records to read than this, closing frees no uploads."""
SNAPSHOT_ON_CLOSE: Final = 5_000
"""With fewer unsaved decisions than this, closing keeps no snapshot."""
BEHIND: Final = -1
"""A mark that no store gives: the state is whole, and may be behind the log."""
TORN: Final = -2
"""A mark that no store gives: state and reader may have moved halfway. They are rebuilt before they are used."""
OTHER_WRITERS_POLL_S: Final = 0.01
"""How often a waiter asks whether another process wrote: a few microseconds every ten milliseconds."""
WORKER_CLOSE_S: Final = 60.0
"""How long closing waits for the worker, which holds no lock that closing holds; an append takes milliseconds."""


class LocalCoordinator:
    """Decides the commands of one workspace. One object serves all threads and event loops of the process."""

    def __init__(
        self,
        store: LogStore,
        workspace: str,
        *,
        settings: WorkspaceSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Fold the log from its newest snapshot on, and open the workspace where it was never opened.

        Raises `LogError`s of the store, and `CcsError` where the workspace was opened with other `settings`.
        """
        self.store = store
        self.workspace = workspace
        self.lock = threading.RLock()
        """Held while the state changes; take it to look at several things at one position."""
        self.clock = clock
        self.timeout_s = math.inf
        self.on_bodies: Callable[[list[Event], tuple[bytes, ...]], None] | None = None
        """Unused here: decisions of other processes are read without their bodies. (The Kafka coordinator calls it.)"""
        self._log_id = store.log_id
        self._reader = ShardReader(store, workspace)
        self.state: Directory = open_at_snapshot(store, workspace, self._reader)
        self._time = LogTime(
            clock,
            f"the workspace {workspace!r} of {store.display_url}",
            self.state,
            expected=store.expected_time(),
        )
        self.now: Callable[[], Micros] = self._time.now
        self._unsaved = 0
        """Decisions folded since the last snapshot."""
        self._queue: deque[PendingCommand] = deque()
        self._mark = BEHIND
        """The store's change mark at which the state was folded last; else `BEHIND` or `TORN`."""
        self._appended_mark = BEHIND
        """The mark that holds once what was appended last is folded."""
        self._decided_at = Micros(0)
        """When the last batch was decided."""
        self._swept_at = 0
        self._moved_lock = threading.Lock()
        self._moved = threading.Condition(self._moved_lock)
        """Notified when the state has moved, while threads wait for that."""
        self._waiters = 0
        self._committer: BackgroundQueue[PendingCommand] = BackgroundQueue(
            f"commit-{workspace}", self._commit_for_coroutines, on_drop=self._refuse_dropped
        )
        self._reads: BackgroundQueue[Job] = job_queue(f"reads-{workspace}")
        self._look_backs: BackgroundQueue[Job] = job_queue(f"look-back-{workspace}")
        self._closed = False
        self._guard = ForkGuard(f"the workspace {workspace!r} of {store.display_url}")
        self._open_workspace(settings)

    # Commands.

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
        if self._guard.forked:
            self._guard.check()
        if work is not None:
            work()
        lock = self.lock
        if not lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  # as Condition does
            try:
                if lock.acquire(blocking=False) and not self._queue and not self._closed:
                    # No other thread commits: no queue, no hop. Commands that come meanwhile share the next append.
                    return self._execute_alone(command, numbers)
            except OutcomeUnknown:
                LOG.warning("an append to %s has an unknown outcome: asking again", self.store.display_url)
            finally:
                try:  # noqa: SIM105  # an interrupt may come on the way into `suppress`
                    lock.release()
                except RuntimeError:  # another thread has it
                    pass
        return self._execute_queued(PendingCommand(command, numbers))

    def _execute_queued(self, pending: PendingCommand) -> Answer:
        """Queue a command, and take part in the work until it is resolved."""
        try:
            self._queue.append(pending)
            with self.lock:
                while not pending.resolved:
                    self._drain()
        except BaseException as error:
            pending.error = error  # withdrawn: who comes next does not decide it
            raise
        return pending.result()

    async def execute_async(
        self,
        command: Command | None,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,  # noqa: ARG002  # as above
        on_cancelled: OnCancelled | None = None,
    ) -> Answer:
        """The same from a coroutine. Without a command: do `work`, which may wait for a disk, and catch up."""
        self._guard.check()
        pending = PendingCommand(command, numbers, work)
        if self.store.instantaneous:
            if work is not None:
                self._check_open()
                work()
            return self._execute_queued(pending)
        pending.loop = asyncio.get_running_loop()
        pending.future = pending.loop.create_future()
        self._committer.submit(pending)
        return await pending.wait(on_cancelled)

    async def off_loop(self, work: Callable[[], T], *, long: bool = False) -> T:
        """See `Coordinator`."""
        self._guard.check()
        if self.store.instantaneous:
            return work()
        return await run_job(self._look_backs if long else self._reads, work)

    def do_later(self, job: Callable[[], object]) -> None:
        """See `Coordinator`."""
        self._reads.submit(job)

    def behind(self) -> bool:
        """True if another writer may have appended what is not folded yet. Costs microseconds."""
        if self._guard.forked:
            self._guard.check()
        return self.store.change_mark(self.workspace) != self._mark

    async def behind_async(self) -> bool:
        """See `Coordinator`."""
        return await self.off_loop(self.behind)

    def catch_up(self) -> None:
        """Fold what other writers have appended."""
        self._guard.check()
        with self.lock:
            self._catch_up()

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `done()` holds of the folded state, for at most `timeout_s`; whether it does."""
        deadline = self.clock.monotonic() + timeout_s
        while not done():
            left = deadline - self.clock.monotonic()
            if left <= 0 or self._closed:
                return done()
            with self._moved_lock:
                self._waiters += 1
                try:
                    # A move between the check above and here is seen at the latest after one poll.
                    self._moved.wait(min(left, OTHER_WRITERS_POLL_S))
                finally:
                    self._waiters -= 1
            if self.behind():
                self.catch_up()
        return True

    async def wait_async(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Like `wait`, from a coroutine."""
        deadline = self.clock.monotonic() + timeout_s
        while not done():
            left = deadline - self.clock.monotonic()
            if left <= 0 or self._closed:
                return done()
            await asyncio.sleep(min(left, OTHER_WRITERS_POLL_S))
            if await self.behind_async():
                await self.execute_async(None)
        return True

    @property
    def folded_offset(self) -> int:
        """Offset of the last record folded."""
        return self._reader.offset

    @property
    def position(self) -> Position:
        """The position up to which the state is folded."""
        with self.lock:
            self._mend()
            return self._reader.position(self.workspace)

    @property
    def void_records(self) -> int:
        """Records of the log that were never applied."""
        return self._reader.cursor.void

    @property
    def closed(self) -> bool:
        """True if `close` was called."""
        return self._closed

    @property
    def stale(self) -> bool:
        """Never: a log on this machine is asked, or the call fails."""
        return False

    def reader_here(self) -> ShardReader:
        """A reader that goes on from the folded state and moves independently."""
        with self.lock:
            self._mend()
            return self._reader.fork()

    def sweep(self) -> int:
        """End some of what has run out now, in one decision; returns how many events that took."""
        answer = self.execute(sweep_command())
        if answer.refusal is not None:
            LOG.warning("a sweep of %s ended nothing: %s", self.store.display_url, answer.refusal.detail)
            return 0
        return len(answer.events)

    def health(self) -> CoordinatorHealth:
        """See `Coordinator`."""
        behind = not self._closed and not self._guard.forked and self.behind()
        return CoordinatorHealth(
            workers=(self._committer.health(), self._reads.health(), self._look_backs.health()),
            commands_waiting=len(self._queue) + self._committer.waiting,
            commands_in_flight=0,
            folded_offset=self._reader.offset,
            lag_records=None if behind else 0,
            leads=True,
            epoch=0,
            offers_to_lead=True,
            connected=not self._closed,
            closed=self._closed,
            last_error=None,
            clock_ahead_s=self._time.ahead_s,
        )

    def close(self) -> None:
        """Answer what waits, and let go. The store stays open."""
        if self._guard.forked:
            self._closed = True
            return
        for queue in (self._committer, self._reads, self._look_backs):
            queue.close(WORKER_CLOSE_S)  # answers the coroutines that wait; later ones are refused
        if not self._closed:
            with contextlib.suppress(CcsError):  # a courtesy to the file, as the snapshot is to the next opening
                self.store.collect_uploads(self.now(), records_max=COLLECTED_ON_CLOSE)
        with self.lock:
            try:
                if not self._closed:
                    while self._queue:
                        self._drain(for_others=True)
                    self._save_snapshot(SNAPSHOT_ON_CLOSE)
            finally:
                self._closed = True
            while self._queue:  # nothing but what an error above has left
                self._drain(for_others=True)

    # Deciding.

    def _drain(self, *, for_others: bool = False) -> None:
        """Decide and append what waits. The caller holds the lock.

        Raises what nobody foresaw, and leaves the commands in the queue: it may be an interrupt, which is the calling
        thread's alone. `for_others` says that this thread has no command of its own: then it fails the command.
        """
        queue = self._queue
        batch = [queue[place] for place in range(min(len(queue), COMMANDS_PER_APPEND))]
        waiting = [pending for pending in batch if not pending.resolved]
        if waiting:
            try:
                self._commit_surely(waiting)
            except CcsError as error:
                _fail(waiting, error)
            except BaseException as error:
                if not for_others:
                    raise
                self._commit_one_by_one(waiting, error)
        wake_callers(batch)
        for _ in batch:
            queue.popleft()
        if waiting:
            self._maintain(self.now())

    def _commit_surely(self, batch: list[PendingCommand]) -> None:
        self._check_open()
        try:
            self._commit(batch)
        except OutcomeUnknown:
            # Decided again under the same numbers, the batch finds itself in the log, or goes there now.
            LOG.warning("an append to %s has an unknown outcome: asking again", self.store.display_url)
            self._commit([pending for pending in batch if not pending.resolved])

    def _commit_one_by_one(self, batch: list[PendingCommand], error: BaseException) -> None:
        """A batch failed in a way that nobody foresaw: find the command that does it, so that it fails alone."""
        LOG.error("committing a batch to %s failed: trying its commands alone", self.store.display_url, exc_info=error)
        for pending in batch:
            if not pending.resolved:
                try:
                    self._commit_surely([pending])
                except BaseException as each:  # noqa: BLE001  # the caller gets it
                    _fail([pending], each)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed.of_workspace(self.workspace)

    def _commit(self, batch: list[PendingCommand]) -> None:
        if len(batch) > 1 or batch[0].command is None:
            batch = self._after_catching_up(batch)
            if not batch:
                return
        for pending in batch:
            if pending.numbers is not None and pending.command is not None and not pending.command.number:
                pending.command.number = CommandNumber(pending.numbers.next())
        planned = self._append([pending.command for pending in batch if pending.command is not None])
        self._fold_durable(planned)
        for pending, each in zip(batch, planned, strict=True):
            pending.answer = self._answer(each)

    def _execute_alone(self, command: Command, numbers: CommandCounter | None) -> Answer:
        """Decide and append one command. The caller holds the lock."""
        if numbers is not None and not command.number:
            numbers.last += 1
            command.number = CommandNumber(numbers.last)
        planned = self._append((command,))
        self._fold_durable(planned)
        answer = self._answer(planned[0])
        self._maintain(self._decided_at)
        return answer

    def _append(self, commands: Sequence[Command]) -> list[PlannedDecision]:
        """Take the log's turn, decide, append; when this returns, the decisions are durable."""
        store, state, workspace = self.store, self.state, self.workspace
        if self._mark == TORN:
            self._rebuild()  # before the turn, which others wait for
        try:
            with store.turn(workspace):
                self._catch_up()
                reader = self._reader
                self._decided_at = now = self.now()
                planned = plan(state, reader.cursor, workspace, commands, max(now, state.recorded_at))
                drafts = [each.draft for each in planned if each.draft is not None]
                if drafts:
                    appended = store.append(workspace, drafts, reader.offset)
                    if type(appended) is not Appended:
                        raise LogDiverged(  # noqa: TRY301  # a function of its own would cost every put a call
                            f"{store.display_url} changed while this process had its turn ({appended}): something "
                            "writes to it without taking turns"
                        )
                self._appended_mark = store.change_mark(workspace)
        except BaseException:
            store.abandon_turn(workspace)
            raise
        return planned

    def _after_catching_up(self, batch: list[PendingCommand]) -> list[PendingCommand]:
        """Answer those that only catch up with the log; returns the commands left to decide."""
        commands: list[PendingCommand] = []
        for pending in batch:
            if pending.command is not None:
                commands.append(pending)
                continue
            self._catch_up()
            pending.answer = self._answer_from_state()
        return commands

    def _fold_durable(self, planned: list[PlannedDecision]) -> None:
        """Fold decisions that are durable now."""
        state, reader, moved = self.state, self._reader, False
        self._mark = TORN
        for each in planned:
            record = each.record
            if record is not None and each.digest is not None:
                fold_decision(state, each.decision.events, record)
                each.offset = reader.offset + 1
                reader.advance_past(record, each.digest, each.offset)
                self._unsaved += 1
                moved = True
        self._mark = self._appended_mark
        if moved and self._waiters:
            self._notify()

    def _answer(self, planned: PlannedDecision) -> Answer:
        record, digest, repeats = planned.record, planned.digest, planned.decision.repeats
        if record is not None and digest is not None:
            return Answer.of_decision(record, planned.decision.events, self._log_id, planned.offset, digest)
        if repeats is not None:
            return Answer.to_repeat(self.store, self.workspace, repeats)
        return self._answer_from_state()

    def _answer_from_state(self) -> Answer:
        return Answer.at(self._reader.position(self.workspace), self.state.recorded_at)

    # Following.

    def _catch_up(self) -> None:
        """Fold what is new in the log. The caller holds the lock."""
        mark = self.store.change_mark(self.workspace)
        if mark == self._mark:
            return
        self._mend()
        moved, reader, state = False, self._reader, self.state
        try:
            for stored in self.store.read(self.workspace, reader.offset, bodies=False):
                self._mark = TORN
                entry = reader.judge(stored)
                if entry is not None:
                    fold_entry(state, entry)
                self._unsaved += 1
                self._mark = BEHIND
                moved = True
        except LogError:  # the reader stands before the record that raised, and the state with it
            self._mark = BEHIND
            raise
        self._mark = mark
        if moved:
            self._time.note()
            if self._waiters:
                self._notify()

    def _mend(self) -> None:
        """Rebuild state and reader, where an interrupt came between the two. The caller holds the lock."""
        if self._mark == TORN:
            self._rebuild()

    def _rebuild(self) -> None:
        """Fold the log anew, into the state that clients hold. The caller holds the lock."""
        reader = ShardReader(self.store, self.workspace)
        state = open_at_snapshot(self.store, self.workspace, reader)
        for entry in reader.read(bodies=False):
            fold_entry(state, entry)
        self.state.become(state)
        self._reader = reader
        self._mark = BEHIND

    def _notify(self) -> None:
        with self._moved_lock:
            self._moved.notify_all()

    def _open_workspace(self, settings: WorkspaceSettings | None) -> None:
        with self.lock:
            self._catch_up()
            self._save_snapshot(SNAPSHOT_EVERY)
            if self.state.opened and settings is None:
                return
            command = Open(session_id=NO_SESSION, number=CommandNumber(0), settings=settings or DEFAULT_SETTINGS)
            pending = PendingCommand(command)
            self._queue.append(pending)
            self._drain()
            refusal = pending.result().refusal
            if refusal is not None and settings is not None:
                raise CcsError(refusal.detail)

    # Maintenance.

    def _maintain(self, now: Micros) -> None:
        """After a batch: keep a snapshot and sweep, where that is due. The caller holds the lock."""
        try:
            if self._unsaved >= SNAPSHOT_EVERY:
                self._save_snapshot(decisions_between_snapshots(len(self.state.artifacts), SNAPSHOT_EVERY))
            if now - self._swept_at < SWEEP_INTERVAL_US or self._closed:
                return
            self._swept_at = now
            if sweep_is_due(self.state, now):
                self._fold_durable(self._append((sweep_command(),)))
        except Exception as error:  # noqa: BLE001  # upkeep is a courtesy: the command before it was answered
            LOG.warning("the upkeep of %s failed: %s: %s", self.store.display_url, type(error).__name__, error)

    def _save_snapshot(self, after: int) -> None:
        """Keep a snapshot once `after` decisions were folded without one. A failure is only logged."""
        if self._unsaved < after or self._mark == TORN or self.store.instantaneous or not self.state.opened:
            return
        self._unsaved = 0
        try:
            self.store.save_snapshot(self.workspace, take_snapshot(self.state, self._reader.position(self.workspace)))
        except Exception as error:  # noqa: BLE001  # a log is complete without one
            LOG.warning("no snapshot of %s was kept: %s: %s", self.store.display_url, type(error).__name__, error)

    def _commit_for_coroutines(self, batch: list[PendingCommand]) -> None:
        """The work of the background queue: do the work that comes before commands, then decide all that waits."""
        try:
            ready: list[PendingCommand] = []
            for pending in batch:
                try:
                    if pending.work is not None:
                        self._check_open()
                        pending.work()
                    ready.append(pending)
                except BaseException as error:  # noqa: BLE001  # the caller gets it
                    _fail([pending], error)
            self._queue.extend(ready)
            while self._queue:
                with self.lock:
                    self._drain(for_others=True)
        except BaseException as error:
            _fail(batch, error)
            raise
        finally:
            wake_callers(batch)

    def _refuse_dropped(self, pending: PendingCommand) -> None:
        """The background queue was closed, or is full."""
        if self._committer.closed:
            error: CcsError = Closed.of_workspace(self.workspace)
        else:
            error = LogBusy(f"{self.store.display_url}: too many calls wait for their decisions: await some of them")
        _fail([pending], error)
        wake_callers([pending])


def _fail(commands: Iterable[PendingCommand], error: BaseException) -> None:
    """Give those that have no answer yet this error; an interrupt is nobody's answer but an unknown outcome."""
    if not isinstance(error, Exception):
        error = OutcomeUnknown(f"the thread that commits was interrupted by {type(error).__name__}: ask again")
    for pending in commands:
        if not pending.resolved:
            pending.error = error
