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
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from ccs_stream.coordinator.forks import ForkGuard
from ccs_stream.coordinator.ticket import Answer, Numbers, Ticket, wake
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head
from ccs_stream.log.port import Appended, Draft, LogStore, Position
from ccs_stream.log.reader import Entry, ShardReader
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.commands import Command, Open, Sweep
from ccs_stream.protocol.decide import Decision, decide, refusal_for_bug, refusal_of
from ccs_stream.protocol.directory import Directory, Overlay
from ccs_stream.protocol.errors import CcsError, Closed, LogDiverged, OutcomeUnknown
from ccs_stream.protocol.events import Event, RefusalReason
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import (
    NO_LEADER,
    NO_SESSION,
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    Micros,
    Sequence,
)
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings

LOG = logging.getLogger(__name__)

BATCH_MAX: Final = 128
"""Commands in one append: half the smallest useful dedupe window, so that a batch decided again is recognised."""
SWEEP_INTERVAL_US: Final = 30_000_000
"""A batch is followed by a sweep at most this often, and only when something has run out."""
POLL_S: Final = 0.01
"""How often a waiter asks whether another process wrote: a few microseconds every ten milliseconds."""
SWEEP_LIMIT: Final = 256
"""Things one sweep ends: keeps its decision small."""


def wall_clock() -> Micros:
    """Microseconds since 1970-01-01T00:00:00Z."""
    return Micros(time.time_ns() // 1_000)


class _Planned:
    """A decision on its way into the log."""

    __slots__ = ("decision", "digest", "record", "ticket")

    def __init__(self, ticket: Ticket, decision: Decision, record: DecisionRecord | None, digest: Hash) -> None:
        self.ticket = ticket
        self.decision = decision
        self.record = record
        self.digest = digest


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
        self.state = Directory()
        self.lock = threading.RLock()
        """Held while the state changes; take it to look at several things at one position."""
        self.clock = clock
        self._reader = ShardReader(store, workspace)
        self._queue: deque[Ticket] = deque()
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
        self, command: Command, numbers: Numbers | None = None, work: Callable[[], object] | None = None
    ) -> Answer:
        """Decide `command` and wait until its decision is durable. `work` (an upload it needs) is done just before.

        Raises `LogError`s of the store, `Closed`, `ForkedProcess`; a refusal is an answer, not an error.
        """
        self._guard.check()
        ticket = Ticket(command, numbers, work)
        self._queue.append(ticket)
        with self.lock:
            while not ticket.resolved:
                self._drain()
        return ticket.result()

    async def execute_async(
        self, command: Command | None, numbers: Numbers | None = None, work: Callable[[], object] | None = None
    ) -> Answer:
        """The same from a coroutine. Without a command: do `work`, which may wait for a disk, and catch up."""
        self._guard.check()
        ticket = Ticket(command, numbers, work)
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

    def close(self) -> None:
        """Answer what waits, and let go. The store stays open."""
        if self._closed:
            return
        with self.lock:
            if not self._guard.forked:
                while self._queue:
                    self._drain()
            self._closed = True
        if self._thread is not None and not self._guard.forked:
            self._wakeup.release()
            if self._thread is not threading.current_thread():
                self._thread.join()

    # Deciding.

    def _drain(self) -> None:
        """Decide and append what waits. The caller holds the lock."""
        batch: list[Ticket] = []
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
        self._sweep_if_due()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"the workspace {self.workspace!r} was closed: connect again")

    def _commit(self, batch: list[Ticket]) -> None:
        if len(batch) > 1 or batch[0].work is not None or batch[0].command is None:
            batch = self._after_work(batch)
            if not batch:
                return
        with self.store.turn(self.workspace):
            self._catch_up()
            planned, drafts = self._plan(batch)
            if drafts:
                appended = self.store.append(self.workspace, drafts, self._reader.offset)
                if type(appended) is not Appended:
                    raise LogDiverged(
                        f"{self.store.display_url} changed while this process had its turn ({appended}): "
                        "something writes to it without taking turns"
                    )
            mark = self.store.change_mark(self.workspace)
        self._mark = mark
        self._settle(planned)

    def _after_work(self, batch: list[Ticket]) -> list[Ticket]:
        """Do the work that comes before commands, or is asked for alone; returns the commands left to decide."""
        commands: list[Ticket] = []
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
            ticket.answer = self._answer_from_state(())
        return commands

    def _plan(self, batch: list[Ticket]) -> tuple[list[_Planned], list[Draft]]:
        """Decide the batch, each command on the state that those before it would leave."""
        state, cursor = self.state, self._reader.cursor
        view = state if len(batch) == 1 else Overlay(state)
        end = cursor.end(self.workspace)
        index, prev_hash = cursor.index, end.hash
        now = max(self.clock(), state.recorded_at)
        planned: list[_Planned] = []
        drafts: list[Draft] = []
        for ticket in batch:
            command = ticket.command
            if command is None:
                raise AssertionError("a ticket without a command was planned")
            if ticket.numbers is not None and not command.number:
                command.number = CommandNumber(ticket.numbers.next())
            decision = _decide(view, command, now)
            if not decision.events:
                planned.append(_Planned(ticket, decision, None, prev_hash))
                continue
            index = DecisionIndex(index + 1)
            record, draft = self._frame(command, decision, index, Sequence(view.sequence + 1), now, prev_hash)
            if len(draft.head) + sum(map(len, draft.contents)) > state.settings.maximum_decision_bytes:
                limit = state.settings.maximum_decision_bytes
                decision = refusal_of(
                    command,
                    RefusalReason.DECISION_TOO_LARGE,
                    f"the decision is larger than the workspace's {limit} bytes: change fewer artifacts at once",
                )
                record, draft = self._frame(command, decision, index, Sequence(view.sequence + 1), now, prev_hash)
            prev_hash = chain_hash(draft.head)
            planned.append(_Planned(ticket, decision, record, prev_hash))
            drafts.append(draft)
            if view is not state:
                _fold(view, record, decision.events)
        return planned, drafts

    def _frame(
        self,
        command: Command,
        decision: Decision,
        index: DecisionIndex,
        first: Sequence,
        now: Micros,
        prev_hash: Hash,
    ) -> tuple[DecisionRecord, Draft]:
        encode = DEFAULT_CODEC.encode_event
        events = decision.events
        critical = False
        for event in events:
            if event.CRITICAL:
                critical = True
                break
        contents = tuple(decision.contents)
        record = DecisionRecord(
            workspace=self.workspace,
            epoch=Epoch(0),
            leader_id=NO_LEADER,
            index=index,
            first_sequence=first,
            session_id=command.session_id,
            number=command.number,
            command_kind=command.KIND,
            command_offset=None,
            recorded_at=now,
            prev_hash=prev_hash,
            critical=critical,
            events=tuple([encode(event) for event in events]),
            contents=contents,
        )
        return record, Draft(encode_head(record), contents, first, first + len(events) - 1)

    def _settle(self, planned: list[_Planned]) -> None:
        """Fold what is durable now, and answer."""
        moved = False
        offset = self._reader.offset
        for each in planned:
            record = each.record
            if record is None:
                continue
            offset += 1
            _fold(self.state, record, each.decision.events)
            self._reader.moved_over(record, each.digest, offset)
            moved = True
            last = self.state.sequence
            each.ticket.answer = Answer(
                each.decision.events,
                record.first_sequence,
                last,
                record.recorded_at,
                self.store.log_id,
                self.workspace,
                offset,
                each.digest,
            )
        for each in planned:
            if each.ticket.answer is None:
                repeats = each.decision.repeats
                each.ticket.answer = self._answer_from_state(()) if repeats is None else self._answer_again(repeats)
        if moved and self._waiting:
            self._notify()

    def _answer_from_state(self, events: tuple[Event, ...]) -> Answer:
        end = self._reader.cursor.end(self.workspace)
        return Answer(
            events,
            end.sequence,
            end.sequence,
            self.state.recorded_at,
            self.store.log_id,
            self.workspace,
            self._reader.offset,
            end.hash,
        )

    def _answer_again(self, sequence: Sequence) -> Answer:
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
            Sequence(record.first_sequence + len(record.events) - 1),
            record.recorded_at,
            self.store.log_id,
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
            if self.state.opened and settings is None:
                return
            asked = Open(session_id=NO_SESSION, number=CommandNumber(0), settings=settings or DEFAULT_SETTINGS)
            ticket = Ticket(asked)
            self._queue.append(ticket)
            self._drain()
            refusal = ticket.result().refusal
            if refusal is not None and settings is not None:
                raise CcsError(refusal.detail)

    def _sweep_if_due(self) -> None:
        now = self.clock()
        if now - self._swept_at < SWEEP_INTERVAL_US or self._closed:
            return
        self._swept_at = now
        deadline = self.state.next_deadline()
        crowded = self.state.session_count() > self.state.settings.maximum_sessions
        if crowded or self.state.settings.crash_recovery or (deadline is not None and deadline <= now):
            with contextlib.suppress(CcsError):  # a sweep is a courtesy: the command before it was answered
                self._commit([Ticket(sweep_command())])

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


def _decide(view: Directory | Overlay, command: Command, now: Micros) -> Decision:
    try:
        return decide(view, command, now)
    except Exception as error:
        LOG.exception("deciding a %s raised: it is refused as internal_error", command.KIND)
        return refusal_for_bug(command, error)


def _fold(state: Directory | Overlay, record: DecisionRecord, events: list[Event]) -> None:
    fold(
        state,
        events,
        recorded_at=record.recorded_at,
        session_id=record.session_id,
        number=record.number,
        kind=record.command_kind,
    )


def fold_entry(state: Directory, entry: Entry) -> None:
    """Fold one entry of a log into the state; nothing happens on what is void or not a decision."""
    if entry.verdict is Verdict.ADMITTED and type(entry.record) is DecisionRecord:
        _fold(state, entry.record, entry.events)


def fold_log(reader: ShardReader, state: Directory, *, until: int | None = None) -> Iterator[Entry]:
    """Fold a log into `state`, yielding each entry after it was folded."""
    for entry in reader.read(until=until, bodies=False):
        fold_entry(state, entry)
        yield entry


def sweep_command() -> Sweep:
    """The coordinator's own command."""
    return Sweep(session_id=NO_SESSION, number=CommandNumber(0), limit=SWEEP_LIMIT)
