"""The coordinator of a workspace on Kafka, as its clients see it: in this process or in another, whoever leads.

Guarantees: a command is answered when its decision is read from the log, admitted, wherever it was decided; a deadline
that passes says `OutcomeUnknown`, never that it failed, and the command goes on being asked for under its number until
the log shows it; a session never has more commands open than its window remembers. Does not: lead; the node beneath
does where the log says so, and then a command is handed over directly.

A command waits in one of three places: for room in its session's window, with the leader in this process, or in the
commands topic. What has not left the first is known not to have happened.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ccs_stream.background import ForkGuard
from ccs_stream.coordinator.batch import PlannedDecision
from ccs_stream.coordinator.kafka.commands.in_flight import InFlightCommand, InFlightCommands
from ccs_stream.coordinator.kafka.follower.log_follower import SETTLE_S
from ccs_stream.coordinator.kafka.follower.shared_follower import SharedFollower
from ccs_stream.coordinator.kafka.shard.ports import Contents
from ccs_stream.coordinator.pending_command import Answer, CommandCounter
from ccs_stream.coordinator.port import LEFT_LEAST, wall_clock
from ccs_stream.coordinator.sweep import sweep_command, sweep_is_due
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.kafka.errors import Refusal
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.errors import CcsError, Closed, LogDiverged, LogUnavailable
from ccs_stream.protocol.events import CommandAnswered, Event
from ccs_stream.protocol.ids import CommandNumber, Hash, Micros, SequenceNumber, SessionId
from ccs_stream.protocol.leadership import QueuedCommand, Role
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings

LOG = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 0.1
"""How often deadlines are looked at."""


class RemoteCoordinator:
    """See the module's docstring. One object serves all threads and event loops of the process."""

    def __init__(
        self,
        store: KafkaLog,
        workspace: str,
        *,
        settings: WorkspaceSettings | None = None,
    ) -> None:
        """Follow the workspace to where its log ends, and open it where nobody has.

        Raises `LogUnavailable`, `LogMissing`, `LogDiverged`, `OutcomeUnknown` when nobody leads within `timeout_s`.
        """
        self.store = store
        self.workspace = workspace
        self.clock: Callable[[], Micros] = wall_clock
        self.timeout_s = store.settings.timeout_s
        self._guard = ForkGuard(f"the workspace {workspace!r} of {store.display_url}")
        self._closed = False
        self._uploading: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}
        """By event loop, the last command that waits for an upload, or behind one."""
        self._moved = threading.Condition(threading.Lock())
        self._waiting = 0
        self._checked_at = 0.0
        self._worker: ThreadPoolExecutor | None = None
        self.on_bodies: Callable[[list[Event], tuple[bytes, ...]], None] | None = None
        """Told of every decision that carries bodies, after it was folded."""
        self._asked = InFlightCommands(
            send=self._send,
            window=lambda: self.state.settings.dedupe_window,
            trouble=self._trouble,
        )
        self._membership = SharedFollower.of(store)
        self._node = self._membership.node
        try:
            self._shard, self.state = self._membership.follow(self)
        except BaseException:
            self._membership.leave(self)
            raise
        self.lock = self._shard.lock
        try:
            self._membership.join(self)
            self.catch_up()
            self._membership.offer()
            self._open_workspace(settings)
        except BaseException:
            self._leave()
            raise

    # Asking.

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
        ticket = InFlightCommand(command, numbers, limit)
        ticket.signal = threading.Lock()
        ticket.signal.acquire()
        self._submit(ticket)
        # Whoever reads the log keeps the deadline; the time beyond it is for the case that nobody does any more.
        if not ticket.signal.acquire(timeout=limit + 1.0):
            with self.lock:
                self._asked.give_up(ticket)
            self._asked.wake(self.lock)
        return ticket.result()

    async def execute_async(
        self,
        command: Command | None,
        numbers: CommandCounter | None = None,
        work: Callable[[], object] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """See `Coordinator`."""
        self._guard.check()
        loop = asyncio.get_running_loop()
        if command is None:
            await loop.run_in_executor(self._in_background(), work or self.catch_up)
            with self.lock:
                return self._from_state()
        ticket = InFlightCommand(command, numbers, self.timeout_s if timeout_s is None else timeout_s)
        ticket.loop, ticket.future = loop, loop.create_future()
        before = self._uploading.get(loop)
        if work is None and before is None:
            self._submit(ticket)
        else:
            await self._submit_in_turn(ticket, work, before)
        answer: Answer = await ticket.future
        return answer

    async def _submit_in_turn(
        self, ticket: InFlightCommand, work: Callable[[], object] | None, before: "asyncio.Future[None] | None"
    ) -> None:
        """After its upload, and after those that this loop asked for before: a long body is not overtaken."""
        loop = asyncio.get_running_loop()
        done = self._uploading[loop] = loop.create_future()
        try:
            if work is not None:
                await loop.run_in_executor(self._in_background(), work)
            if before is not None:
                await asyncio.wait([before])
            self._submit(ticket)
        finally:
            done.set_result(None)
            if self._uploading.get(loop) is done:
                del self._uploading[loop]

    def _submit(self, ticket: InFlightCommand) -> None:
        with self.lock:
            self._check()
            self._asked.submit(ticket)
        self._asked.wake(self.lock)

    def _send(self, command: Command) -> None:
        """To the leader in this process, or into the commands topic. The caller holds the lock."""
        if self._shard.loop.role in (Role.LEADING, Role.CLAIMING, Role.RECOVERING):
            self._shard.command(QueuedCommand(workspace=self.workspace, command=command, offset=None))
        else:
            self._node.commands.send(self.workspace, command)

    # Decisions: called under the shard's lock.

    def decided(  # what is known of a decision
        self, record: DecisionRecord, events: list[Event], offset: int, digest: Hash, contents: Contents
    ) -> None:
        """See `DecisionListener`."""
        last = SequenceNumber(record.first_sequence + len(events) - 1)
        ticket = self._asked.get(record.session_id, record.number)
        if ticket is None:
            # Whoever wrote it here has the body.
            if self.on_bodies is not None and (bodies := contents()):
                self.on_bodies(events, bodies)
            return
        first = events[0]
        if type(first) is CommandAnswered and first.original_sequence:
            self._answer_again(ticket, first.original_sequence)
            return
        changed = () if type(first) is CommandAnswered else events
        self._asked.resolve(
            ticket,
            Answer(
                changed,
                record.first_sequence,
                last,
                record.recorded_at,
                self.store.log_id,
                self.workspace,
                offset,
                digest,
            ),
        )

    def settled(self, pending: QueuedCommand, planned: PlannedDecision) -> None:
        """See `DecisionListener`."""
        ticket = self._asked.get(pending.command.session_id, pending.command.number)
        if ticket is None:
            return
        repeats = planned.decision.repeats
        if planned.decision.dropped is not None:
            why = f"nothing is known of this command ({planned.decision.dropped.value}): connect again"
            self._asked.fail(ticket, CcsError(why))
        elif repeats is None:
            self._asked.resolve(ticket, self._from_state())
        else:
            self._answer_again(ticket, repeats)

    def _answer_again(self, ticket: InFlightCommand, sequence: SequenceNumber) -> None:
        """The answer of a command decided before this process listened: its decision must be looked up."""

        def look() -> None:
            try:
                answer = self._decision_at(sequence)
            except CcsError as error:
                with self.lock:
                    self._asked.fail(ticket, error)
            else:
                with self.lock:
                    self._asked.resolve(ticket, answer)
            self._asked.wake(self.lock)

        self._in_background().submit(look)

    def _decision_at(self, sequence: SequenceNumber) -> Answer:
        stored = self.store.find(self.workspace, sequence)
        record = None if stored is None else stored.record
        if stored is None or type(record) is not DecisionRecord:
            raise LogDiverged(f"sequence {sequence} was folded and is not in {self.store.display_url}")
        return Answer(
            [DEFAULT_CODEC.decode_event(each) for each in record.events],
            record.first_sequence,
            SequenceNumber(record.first_sequence + len(record.events) - 1),
            record.recorded_at,
            self.store.log_id,
            self.workspace,
            stored.offset,
            chain_hash(stored.head),
        )

    def _from_state(self) -> Answer:
        end = self._shard.reader.cursor.end(self.workspace)
        return Answer(
            (),
            end.sequence,
            end.sequence,
            self.state.recorded_at,
            self.store.log_id,
            self.workspace,
            self._shard.reader.offset,
            end.hash,
        )

    # Time.

    def after_round(self) -> None:
        self._asked.wake(self.lock)
        if self._waiting:
            with self._moved:
                self._moved.notify_all()
        now = time.monotonic()
        if self._node.error is not None:
            self._end(self._node.error)
        elif now - self._checked_at > CHECK_EVERY_S:
            self._checked_at = now
            with self.lock:
                self._asked.check(now)
            self._asked.wake(self.lock)

    def not_sent(self, what: object, refusal: Refusal, error: CcsError) -> None:
        command: Command = what  # type: ignore[assignment]  # it is what was sent
        with self.lock:
            self._asked.not_sent(command, refusal, error)

    def _trouble(self) -> str | None:
        trouble = self.store.clients.trouble.last
        return None if trouble is None else trouble.str()

    def _end(self, error: CcsError) -> None:
        """Following ended: nobody will be answered any more."""
        with self.lock:
            self._asked.end(error)
        self._asked.wake(self.lock)
        with self._moved:
            self._moved.notify_all()

    # Following.

    @property
    def stale(self) -> bool:
        """Whether the brokers do not answer, so that the state may be older than it should be."""
        return self.store.clients.trouble.last is not None

    def behind(self) -> bool:
        """Always perhaps: only the broker knows, and asking it is a round trip."""
        self._guard.check()
        return True

    def catch_up(self) -> None:
        """Fold everything that is in the log now. Raises `LogUnavailable` when nothing moves for `timeout_s`."""
        self._guard.check()
        self._check()
        deadline = time.monotonic() + self.timeout_s
        end = self.store.end(self.workspace)
        last = self._shard.reader.offset
        deadline = max(deadline, time.monotonic() + self.timeout_s * LEFT_LEAST)

        def moved() -> bool:
            return self._shard.reader.offset != last

        # What moves is waited for, however long it takes.
        while last < end:
            if not self.wait(moved, deadline - time.monotonic()):
                self._check()
                raise LogUnavailable(
                    f"{self.store.display_url}: the log ends at offset {end}, and following it stands still at {last} "
                    f"for {self.timeout_s:g} s: check the brokers"
                )
            last, deadline = self._shard.reader.offset, time.monotonic() + self.timeout_s

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """See `Coordinator`."""
        deadline = time.monotonic() + timeout_s
        with self._moved:
            self._waiting += 1
            try:
                while not done():
                    left = deadline - time.monotonic()
                    if left <= 0 or self._closed or self._node.error is not None:
                        return done()
                    self._moved.wait(left)
            finally:
                self._waiting -= 1
        return True

    async def wait_async(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """See `Coordinator`."""
        deadline = time.monotonic() + timeout_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or self._closed or self._node.error is not None:
                return done()
            await asyncio.sleep(min(left, 0.01))
        return True

    @property
    def folded_offset(self) -> int:
        """Offset of the last record of the partition that was taken."""
        return self._shard.reader.offset

    @property
    def position(self) -> Position:
        """Where the folded state stands."""
        with self.lock:
            end = self._shard.reader.cursor.end(self.workspace)
            return Position(self.store.log_id, self.workspace, self._shard.reader.offset, end.sequence, end.hash)

    @property
    def void_records(self) -> int:
        """Records of the partition that were never applied."""
        return self._shard.reader.cursor.void

    @property
    def leads(self) -> bool:
        """Whether this process leads the workspace's partition now."""
        return self._shard.loop.role is Role.LEADING

    def reader_here(self) -> ShardReader:
        """See `Coordinator`."""
        with self.lock:
            reader = ShardReader(self.store, self.workspace)
            reader.stand(self._shard.reader.cursor.copy(), self._shard.reader.offset)
            return reader

    def sweep(self) -> int:
        """Nothing, unless this process leads: only the leader sweeps, and does so by itself."""
        with self.lock:
            before = self._shard.counts.events
            if not self.leads or not sweep_is_due(self.state, self.clock()):
                return 0
            self._shard.command(QueuedCommand(workspace=self.workspace, command=sweep_command(), offset=None))
        self.wait(lambda: self._shard.counts.events > before, 1.0)
        return self._shard.counts.events - before

    def close(self) -> None:
        """See `Coordinator`."""
        if self._closed:
            return
        self._closed = True
        if self._guard.forked:
            return
        if self._node.error is None:
            self._asked.settle(SETTLE_S)
        self._leave()
        self._end(Closed(f"the workspace {self.workspace!r} was closed: connect again"))
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    # Within.

    def _leave(self) -> None:
        self._shard.unlisten(self)
        self._membership.leave(self)

    def _open_workspace(self, settings: WorkspaceSettings | None) -> None:
        if self.state.opened and settings is None:
            return
        session = SessionId(uuid.uuid4().bytes)
        asked = Open(session_id=session, number=CommandNumber(1), settings=settings or DEFAULT_SETTINGS)
        refusal = self.execute(asked).refusal
        if refusal is not None and settings is not None:
            raise CcsError(refusal.detail)

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"the workspace {self.workspace!r} was closed: connect again")
        if self._node.error is not None:
            raise self._node.error

    def _in_background(self) -> ThreadPoolExecutor:
        """One thread for what may wait for the network on behalf of coroutines."""
        if self._worker is None:
            with self.lock:
                if self._worker is None:
                    self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"ccs-work-{self.workspace}")
        return self._worker
