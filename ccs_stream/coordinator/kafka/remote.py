"""The coordinator of a workspace on Kafka, as its client sees it: in this process or in another, whichever leads.

The client uses it through `port.Coordinator`.

Guarantees: a command is answered when its decision is read from the log, admitted, wherever it was decided; a deadline
that passes raises `OutcomeUnknown`, never that the command failed, and the command goes on being sent under its number
until the log shows it; a session never has more commands open than its window remembers. Does not: lead; the follower
beneath does where the log says so, and then a command is handed over directly.

How: a command waits in one of three places: for room in its session's window, with the leader in this process, or in
the commands topic. The thread `ccs-follow` of the shared follower reads the log, calls `on_decision` under the shard's
lock, and `on_round_end`, which wakes callers and keeps deadlines; neither may block. Uploads and look-ups on behalf of
coroutines are done by the queue `ccs-jobs-...`, histories and searches by `ccs-look-back-...`; both may wait for
brokers.
"""

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

from ccs_stream.background import BackgroundQueue, ForkGuard, Job, job_queue, run_job
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.batch import PlannedDecision
from ccs_stream.coordinator.health import CoordinatorHealth
from ccs_stream.coordinator.kafka.commands.in_flight import InFlightCommand, InFlightCommands
from ccs_stream.coordinator.kafka.follower.log_follower import FINISH_S
from ccs_stream.coordinator.kafka.follower.shared_follower import SharedFollower
from ccs_stream.coordinator.kafka.shard.ports import Contents
from ccs_stream.coordinator.log_time import LogTime
from ccs_stream.coordinator.pending_command import CommandCounter, OnCancelled
from ccs_stream.coordinator.port import LEAST_SHARE_OF_TIMEOUT
from ccs_stream.coordinator.sweep import sweep_command, sweep_is_due
from ccs_stream.log.kafka.errors import BrokerRefusal
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.errors import CcsError, Closed, LogUnavailable
from ccs_stream.protocol.events import CommandAnswered, Event
from ccs_stream.protocol.ids import CommandNumber, Hash, Micros, SequenceNumber, SessionId
from ccs_stream.protocol.leadership import QueuedCommand, Role
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings

LOG = logging.getLogger(__name__)

T = TypeVar("T")

DEADLINES_EVERY_S: Final = 0.1
"""How often deadlines of commands are looked at."""
FOLLOWER_DIED_S: Final = 1.0
"""How long after its deadline a caller gives up by itself: only needed when the follower's thread has died."""
SWEEP_WAIT_S: Final = 1.0
"""How long `sweep` waits for the events of the sweep it asked for."""
ASYNC_POLL_S: Final = 0.01
"""How often a coroutine that waits looks whether the state has moved."""


class RemoteCoordinator:
    """Has the commands of one workspace decided by its leader. One object serves all threads and event loops."""

    def __init__(
        self,
        store: KafkaLog,
        workspace: str,
        *,
        settings: WorkspaceSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Follow the workspace to where its log ends, and open it where it was never opened.

        Raises `LogUnavailable`, `LogMissing`, `LogDiverged`, `OutcomeUnknown` when no leader answers within
        `timeout_s`.
        """
        self.store = store
        self.workspace = workspace
        self.clock = clock
        self.timeout_s = store.settings.timeout_s
        self._guard = ForkGuard(f"the workspace {workspace!r} of {store.display_url}")
        self._closed = False
        self._uploading: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}
        """By event loop, the last command that waits for an upload, or behind one."""
        self._moved = threading.Condition(threading.Lock())
        """Notified at the end of each round of the follower while threads wait for the state to move."""
        self._waiters = 0
        self._deadlines_kept_at = 0.0
        self._jobs: BackgroundQueue[Job] = job_queue(f"jobs-{workspace}")
        self._look_backs: BackgroundQueue[Job] = job_queue(f"look-back-{workspace}")
        self.on_bodies: Callable[[list[Event], tuple[bytes, ...]], None] | None = None
        """Called with every decision that carries bodies, after it was folded."""
        self._commands = InFlightCommands(self, clock=clock)
        self._shared = SharedFollower.of(store)
        self.follower = self._shared.follower
        """The one follower of the log in this process."""
        try:
            self.shard, self.state = self._shared.follow(self)
        except BaseException:
            self._shared.leave(self)
            raise
        self._time = LogTime(clock, f"the workspace {workspace!r} of {store.display_url}", self.state, expected=None)
        self.now: Callable[[], Micros] = self._time.now
        self.lock = self.shard.lock
        """Held while the state changes; it is that of the workspace's partition."""
        try:
            self._shared.join(self)
            self.catch_up()
            self._shared.offer_to_lead()
            self._open_workspace(settings)
        except BaseException:
            self._leave()
            raise

    # Commands.

    def execute(
        self,
        command: Command,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """See `Coordinator`."""
        self._guard.check()
        if work is not None:
            work()
        limit = self.timeout_s if timeout_s is None else timeout_s
        pending = InFlightCommand(command, numbers, limit, self.clock)
        pending.signal = threading.Lock()
        pending.signal.acquire()
        self._submit(pending)
        # The follower's thread gives up on commands. The time beyond the limit only matters if that thread has died.
        if not pending.signal.acquire(timeout=limit + FOLLOWER_DIED_S):
            with self.lock:
                self._commands.give_up(pending)
            self._commands.wake(self.lock)
        return pending.result()

    async def execute_async(
        self,
        command: Command | None,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,
        on_cancelled: OnCancelled | None = None,
    ) -> Answer:
        """See `Coordinator`."""
        self._guard.check()
        loop = asyncio.get_running_loop()
        if command is None:
            await run_job(self._jobs, work or self.catch_up)
            with self.lock:
                return self._answer_from_state()
        limit = self.timeout_s if timeout_s is None else timeout_s
        pending = InFlightCommand(command, numbers, limit, self.clock)
        pending.loop, pending.future = loop, loop.create_future()
        before = self._uploading.get(loop)
        if work is None and before is None:
            self._submit(pending)
        else:
            await self._submit_in_turn(pending, work, before)
        return await pending.wait(on_cancelled)

    async def _submit_in_turn(
        self, pending: InFlightCommand, work: Callable[[], object] | None, before: "asyncio.Future[None] | None"
    ) -> None:
        """Submit after its upload, and after the earlier commands of this loop: a long upload is not overtaken."""
        loop = asyncio.get_running_loop()
        done = self._uploading[loop] = loop.create_future()
        try:
            if work is not None:
                await run_job(self._jobs, work)
            if before is not None:
                await asyncio.wait([before])
            self._submit(pending)
        finally:
            done.set_result(None)
            if self._uploading.get(loop) is done:
                del self._uploading[loop]

    def _submit(self, pending: InFlightCommand) -> None:
        with self.lock:
            self._check_open()
            self._commands.submit(pending)
        self._commands.wake(self.lock)

    # The route of commands: see `CommandRoute`. The caller holds the lock.

    def send(self, command: Command) -> None:
        """Hand a command to the leader in this process, or put it into the commands topic."""
        if self.shard.loop.role in (Role.LEADING, Role.CLAIMING, Role.RECOVERING):
            self.shard.submit(QueuedCommand(workspace=self.workspace, command=command, offset=None))
        else:
            self.follower.commands.send(self.workspace, command)

    def session_window(self) -> int:
        """See `CommandRoute`."""
        return self.state.settings.dedupe_window

    def broker_error(self) -> str | None:
        """See `CommandRoute`."""
        trouble = self.store.clients.connection.last_error
        return None if trouble is None else trouble.str()

    # Decisions: called under the shard's lock.

    def on_decision(  # what is known of a decision
        self, record: DecisionRecord, events: list[Event], offset: int, digest: Hash, contents: Contents
    ) -> None:
        """See `DecisionListener`."""
        pending = self._commands.get(record.session_id, record.number)
        if pending is None:
            # The process whose command it was has the body already.
            if self.on_bodies is not None and (bodies := contents()):
                self.on_bodies(events, bodies)
            return
        first = events[0]
        if type(first) is CommandAnswered and first.original_sequence:
            self._answer_repeat(pending, first.original_sequence)
            return
        changes = () if type(first) is CommandAnswered else events
        self._commands.resolve(pending, Answer.of_decision(record, changes, self.store.log_id, offset, digest))

    def on_no_decision(self, queued: QueuedCommand, planned: PlannedDecision) -> None:
        """See `DecisionListener`."""
        pending = self._commands.get(queued.command.session_id, queued.command.number)
        if pending is None:
            return
        repeats = planned.decision.repeats
        if planned.decision.dropped is not None:
            why = f"nothing is known of this command ({planned.decision.dropped.value}): connect again"
            self._commands.fail(pending, CcsError(why))
        elif repeats is None:
            self._commands.resolve(pending, self._answer_from_state())
        else:
            self._answer_repeat(pending, repeats)

    def _answer_repeat(self, pending: InFlightCommand, sequence: SequenceNumber) -> None:
        """Answer a command that was decided before this process listened: its decision must be looked up."""

        def look_up() -> None:
            try:
                answer = Answer.to_repeat(self.store, self.workspace, sequence)
            except CcsError as error:
                with self.lock:
                    self._commands.fail(pending, error)
            else:
                with self.lock:
                    self._commands.resolve(pending, answer)
            self._commands.wake(self.lock)

        self._jobs.submit(look_up)

    def _answer_from_state(self) -> Answer:
        """The caller holds the lock."""
        return Answer.at(self.position, self.state.recorded_at)

    # Rounds of the follower: called in its thread, without a lock.

    def on_round_end(self) -> None:
        """See `WorkspaceClient`."""
        self._commands.wake(self.lock)
        if self._waiters:
            with self._moved:
                self._moved.notify_all()
        now = self.clock.monotonic()
        if self.follower.error is not None:
            self._end(self.follower.error)
        elif now - self._deadlines_kept_at > DEADLINES_EVERY_S:
            self._deadlines_kept_at = now
            with self.lock:
                self._commands.check(now)
            self._commands.wake(self.lock)

    def on_not_sent(self, command: Command, refusal: BrokerRefusal, error: CcsError) -> None:
        """See `WorkspaceClient`."""
        with self.lock:
            self._commands.not_sent(command, refusal, error)

    def _end(self, error: CcsError) -> None:
        """Following ended: fail every command and release everybody who waits."""
        with self.lock:
            self._commands.end(error)
        self._commands.wake(self.lock)
        with self._moved:
            self._moved.notify_all()

    # The folded state.

    @property
    def closed(self) -> bool:
        """True if `close` was called."""
        return self._closed

    @property
    def stale(self) -> bool:
        """True if the brokers do not answer, so that the state may be older than it should be."""
        return self.store.clients.connection.last_error is not None

    async def off_loop(self, work: Callable[[], T], *, long: bool = False) -> T:
        """See `Coordinator`."""
        self._guard.check()
        return await run_job(self._look_backs if long else self._jobs, work)

    def do_later(self, job: Callable[[], object]) -> None:
        """See `Coordinator`."""
        self._jobs.submit(job)

    def behind(self) -> bool:
        """Always true: only the broker knows, and asking it is a round trip."""
        self._guard.check()
        return True

    async def behind_async(self) -> bool:
        """See `Coordinator`."""
        return self.behind()

    def catch_up(self) -> None:
        """Fold everything that is in the log now. Raises `LogUnavailable` when nothing moves for `timeout_s`."""
        self._guard.check()
        self._check_open()
        clock = self.clock
        deadline = clock.monotonic() + self.timeout_s
        end = self.store.end(self.workspace)
        last = self.shard.reader.offset
        deadline = max(deadline, clock.monotonic() + self.timeout_s * LEAST_SHARE_OF_TIMEOUT)

        def moved() -> bool:
            return self.shard.reader.offset != last

        # As long as the follower makes progress, it is waited for, however long that takes.
        while last < end:
            if not self.wait(moved, deadline - clock.monotonic()):
                self._check_open()
                raise LogUnavailable(
                    f"{self.store.display_url}: the log ends at offset {end}, and following it stands still at {last} "
                    f"for {self.timeout_s:g} s: check the brokers"
                )
            last, deadline = self.shard.reader.offset, clock.monotonic() + self.timeout_s

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """See `Coordinator`."""

        def over() -> bool:
            return done() or self._closed or self.follower.error is not None

        with self._moved:
            self._waiters += 1
            try:
                self.clock.wait_for(self._moved, over, max(timeout_s, 0.0))
            finally:
                self._waiters -= 1
        return done()

    async def wait_async(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """See `Coordinator`."""
        deadline = self.clock.monotonic() + timeout_s
        while not done():
            left = deadline - self.clock.monotonic()
            if left <= 0 or self._closed or self.follower.error is not None:
                return done()
            await asyncio.sleep(min(left, ASYNC_POLL_S))
        return True

    @property
    def folded_offset(self) -> int:
        """Offset of the last record of the partition that was taken."""
        return self.shard.reader.offset

    @property
    def position(self) -> Position:
        """The position up to which the state is folded."""
        with self.lock:
            end = self.shard.reader.cursor.end(self.workspace)
            return Position(self.store.log_id, self.workspace, self.shard.reader.offset, end.sequence, end.hash)

    @property
    def void_records(self) -> int:
        """Records of the partition that were never applied."""
        return self.shard.reader.cursor.void

    @property
    def leads(self) -> bool:
        """True if this process leads the workspace's partition now."""
        return self.shard.loop.role is Role.LEADING

    def reader_here(self) -> ShardReader:
        """See `Coordinator`."""
        with self.lock:
            reader = ShardReader(self.store, self.workspace)
            reader.move_to(self.shard.reader.cursor.copy(), self.shard.reader.offset)
            return reader

    def sweep(self) -> int:
        """End what has run out, where this process leads; elsewhere the leader sweeps by itself."""
        with self.lock:
            before = self.shard.counts.events
            if not self.leads or not sweep_is_due(self.state, self.now()):
                return 0
            self.shard.submit(QueuedCommand(workspace=self.workspace, command=sweep_command(), offset=None))
        self.wait(lambda: self.shard.counts.events > before, SWEEP_WAIT_S)
        return self.shard.counts.events - before

    def health(self) -> CoordinatorHealth:
        """See `Coordinator`."""
        shard, follower = self.shard, self.follower
        error = follower.error
        return CoordinatorHealth(
            workers=(self._jobs.health(), self._look_backs.health(), *self._shared.workers()),
            commands_waiting=self._commands.waiting,
            commands_in_flight=self._commands.in_flight,
            folded_offset=shard.reader.offset,
            lag_records=shard.lag_records,
            leads=self.leads,
            epoch=shard.reader.cursor.epoch,
            offers_to_lead=follower.member is not None,
            connected=error is None and not self.stale,
            closed=self._closed,
            last_error=self.broker_error() if error is None else str(error),
            clock_ahead_s=self._time.ahead_s,
        )

    def close(self) -> None:
        """See `Coordinator`."""
        if self._closed:
            return
        self._closed = True
        if self._guard.forked:
            return
        if self.follower.error is None:
            self._commands.wait_until_answered(FINISH_S)
        self._leave()
        self._end(Closed.of_workspace(self.workspace))
        self._jobs.close(0.0)
        self._look_backs.close(0.0)

    # Within.

    def _leave(self) -> None:
        self.shard.remove_listener(self)
        self._shared.leave(self)

    def _open_workspace(self, settings: WorkspaceSettings | None) -> None:
        if self.state.opened and settings is None:
            return
        session = SessionId(uuid.uuid4().bytes)
        command = Open(session_id=session, number=CommandNumber(1), settings=settings or DEFAULT_SETTINGS)
        refusal = self.execute(command).refusal
        if refusal is not None and settings is not None:
            raise CcsError(refusal.detail)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed.of_workspace(self.workspace)
        if self.follower.error is not None:
            raise self.follower.error
