"""One partition that is followed, and led where the log says so: the shell around the leadership loop.

`LogFollower` makes one for each partition. Guarantees: the effects of the loop are carried out in its order; no command
is answered whose decision was not read back. Does not: have a thread, or wake callers.

How: records come from the follower's thread, commands from clients' threads and the group member's, news of the group
from that one, the time from the follower. Each method takes the shard's lock, feeds the loop and carries out its
effects, of which none may block: appending hands messages to the producer, asking the group enqueues a request.
"""

import collections
import logging
import uuid
from collections.abc import Iterable
from typing import Final, assert_never

from confluent_kafka import Message

from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.batch import PlannedDecision, plan_shard
from ccs_stream.coordinator.kafka.shard.leader_log import RESIGNATION, LeaderLog, WarmProducers, largest_batch
from ccs_stream.coordinator.kafka.shard.ports import ShardHost
from ccs_stream.coordinator.kafka.shard.replica import ShardReplica
from ccs_stream.coordinator.log_time import LogTime
from ccs_stream.coordinator.sweep import sweep_command, sweep_is_due
from ccs_stream.log.kafka.errors import BrokerRefusal
from ccs_stream.log.kafka.store import KafkaLog, message_of
from ccs_stream.protocol.admit import Verdict, admit, chain_holds
from ccs_stream.protocol.commands import Commit, Write
from ccs_stream.protocol.decide import DropReason
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import Epoch, LeaderId, LogId
from ccs_stream.protocol.leadership import (
    AnswerBatch,
    AppendClaim,
    AppendResignation,
    DecideAndAppend,
    DestroyProducer,
    Effect,
    ForwardToTopic,
    LeadershipLoop,
    ProveMembership,
    QueuedCommand,
    Role,
    SeekCommands,
)
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned

LOG = logging.getLogger(__name__)

CLAIM_EVERY_S: Final = 0.25
"""How often a coordinator that is assigned a partition and does not lead it looks whether to claim."""
SWEEP_EVERY_S: Final = 1.0
"""How often a leader looks for what has run out."""
SWEEP_AGAIN_S: Final = 0.05
"""How soon it looks again after a sweep, of which each ends a bounded part."""
UNREAD_GRACE_S: Final = 2.0
"""Beyond the producer's own time-out, how long a leader waits to read back what it appended."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bodies of waiting commands; beyond this no more are fetched from the topic, which keeps them."""


class ShardCoordinator(ShardReplica):
    """Follows one partition, decides its commands while it leads it, and answers them once they are read back."""

    def __init__(
        self,
        store: KafkaLog,
        partition: int,
        host: ShardHost,
        producers: WarmProducers,
        *,
        workspace: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Follow `partition`; with `workspace`, only that one of it (and those merged in later), and never lead."""
        super().__init__(store, partition, workspace=workspace)
        self.loop = LeadershipLoop()
        self._clock = clock
        # Of one shard there is no one last time: each decision is put behind its workspace's own.
        self._time = LogTime(clock, f"{store.names.log} [{partition}]", Directory(), expected=None)
        self._host = host
        self._largest = largest_batch(store) if self.follows_all else 0
        self._log = LeaderLog(store.clients, store.names.log, partition, producers)
        self._planned: list[PlannedDecision] = []
        """The decisions of the batch that is being appended."""
        self._expected: collections.deque[PlannedDecision] = collections.deque()
        """Those of them that were not read back yet, in order."""
        self._appended_at = 0.0
        self._waiting_bytes = 0
        """Bytes of the bodies of waiting commands that came by the topic."""
        self._seeks_requested = 0
        """How often this shard asked the group member to read the commands topic from another place."""
        self._seek_done = -1
        """Which of these requests was carried out last; before the first one, nothing comes from the topic."""
        self._claim_checked_at = 0.0
        self._swept_at = 0.0
        self._assigned_at = 0.0

    # The log.

    def _take_own(self, message: Message) -> bool:
        """See `ShardReplica`. A decision whose bytes are those that this process appended needs no decoding."""
        if not self._expected or message.value() != self._expected[0].message:
            return False
        planned, cursor, offset = self._expected[0], self.reader.cursor, message.offset() or 0
        record, digest = planned.record, planned.digest
        if record is None or digest is None or not chain_holds(cursor, record):
            return False
        if admit(cursor, record) is not Verdict.ADMITTED:
            return False
        self._expected.popleft()
        self.reader.advance_past(record, digest, offset)
        state = self.states.setdefault(record.workspace, Directory())
        fold_decision(state, planned.decision.events, record)
        self._count_and_notify(
            record, planned.decision.events, offset, digest, lambda: tuple(planned.decision.contents)
        )
        self._do(self.loop.decision_read(record.leader_id, record.index, Verdict.ADMITTED))
        return True

    def _decision_read(self, record: DecisionRecord, verdict: Verdict) -> None:
        if record.leader_id != self.loop.leader_id:
            return
        expected = self._expected[0].record if self._expected else None
        if expected is not None and expected.index == record.index:
            self._expected.popleft()
        self._do(self.loop.decision_read(record.leader_id, record.index, verdict))

    def _claim_read(self, record: LeaderClaimed, verdict: Verdict) -> None:
        leads = self.loop.role is Role.LEADING
        self._do(self.loop.claim_read(record.epoch, record.leader_id, verdict))
        if self.loop.role is Role.LEADING and not leads:
            self.counts.led += 1
            self.counts.seconds_to_lead = self._clock.monotonic() - self._assigned_at
            LOG.info("leading %s [%d] in epoch %d", self.store.names.log, self.partition, record.epoch)
        elif leads and self.loop.role is not Role.LEADING:
            LOG.info(
                "no longer leading %s [%d]: epoch %d is another's", self.store.names.log, self.partition, record.epoch
            )

    def _resignation_read(self, record: LeaderResigned, verdict: Verdict) -> None:
        self._do(self.loop.resignation_read(record.leader_id, verdict))

    # The group.

    def on_assigned(self) -> None:
        """The group suggests that this process lead the partition."""
        with self.lock:
            self._assigned_at = self._clock.monotonic()
            self._claim_checked_at = 0.0
            self._do(self.loop.assigned_now())

    def on_assignment_lost(self) -> None:
        """The group takes the partition away."""
        with self.lock:
            self._do(self.loop.assignment_lost())

    def on_membership_proved(self) -> None:
        """A synchronous offset commit succeeded."""
        with self.lock:
            self._claim_checked_at = 0.0
            self._do(self.loop.membership_proved())

    # Commands.

    def on_seek_done(self, term: int) -> None:
        """Commands from the topic come, from now on, from the place of this shard's request number `term`."""
        with self.lock:
            self._seek_done = term

    def submit(self, queued: QueuedCommand) -> None:
        """Take a command that came by the topic, or was handed over directly."""
        with self.lock:
            if queued.offset is not None and self._seek_done != self._seeks_requested:
                # Fetched before the seek: deciding it would carry the resume offset past commands before it.
                return
            if queued.offset is not None:
                self._waiting_bytes += _body_bytes(queued)
            try:
                self._do(self.loop.command(queued))
            except BaseException:
                # An interrupt of the thread that handed it over. What was sent is not known, as after a failed append.
                self._do(self.loop.append_unknown())
                raise

    @property
    def full(self) -> bool:
        """True if no more commands should be fetched from the topic for now."""
        if not self.loop.waiting:
            self._waiting_bytes = 0
        return self.loop.full or self._waiting_bytes > WAITING_BYTES_MAX

    # Time.

    def tick(self, *, at_end: bool) -> None:
        """Let time pass; `at_end` says whether everything in the partition was taken."""
        now = self._clock.monotonic()
        with self.lock:
            self._log.poll(self._append_failed)
            role = self.loop.role
            limit = self.store.settings.delivery_timeout_s + UNREAD_GRACE_S
            if (role is Role.CLAIMING or self._expected) and now - self._appended_at > limit:
                LOG.warning("what was appended to %s [%d] does not come back", self.store.names.log, self.partition)
                self._do(self.loop.append_unknown())
            if at_end and self.loop.assigned and now - self._claim_checked_at > CLAIM_EVERY_S:
                self._claim_checked_at = now
                cursor = self.reader.cursor
                self._do(self.loop.caught_up(cursor.epoch, LeaderId(uuid.uuid4().bytes)))
            if role is Role.LEADING and now - self._swept_at > SWEEP_EVERY_S:
                self._swept_at = now
                self._sweep()

    def _sweep(self) -> None:
        at = self._time.now()
        for workspace, state in self.states.items():
            if sweep_is_due(state, at):
                self._swept_at = self._clock.monotonic() - SWEEP_EVERY_S + SWEEP_AGAIN_S
                self._do(self.loop.command(QueuedCommand(workspace=workspace, command=sweep_command(), offset=None)))

    def resign(self) -> None:
        """Resign where this process leads. It may be assigned the partition again later."""
        with self.lock:
            self._do(self.loop.stop())
            self.loop = LeadershipLoop()

    def flush(self, timeout_s: float) -> None:
        """Wait until the last append, such as a resignation, has left this process; for at most so long."""
        self._log.flush(timeout_s)

    # Effects.

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case DecideAndAppend():
                    self._decide(effect.batch)
                case AnswerBatch():
                    self._answer(effect.batch)
                case ForwardToTopic():
                    self._host.forward(effect.batch)
                case ProveMembership():
                    self._host.prove_membership(self.partition)
                case AppendClaim():
                    self._claim(effect.epoch, effect.leader_id)
                case AppendResignation():
                    self._log.resign(LeaderResigned(epoch=effect.epoch, leader_id=effect.leader_id))
                case DestroyProducer():
                    self._log.destroy()
                    self._expected.clear()
                case SeekCommands():
                    self._seeks_requested += 1
                    self._host.seek_commands(self.partition, self.next_command_offset(), self._seeks_requested)
                case _:
                    assert_never(effect)

    def _decide(self, batch: tuple[QueuedCommand, ...]) -> None:
        for queued in batch:
            if queued.offset is not None:
                self._waiting_bytes = max(self._waiting_bytes - _body_bytes(queued), 0)
        self._planned = plan_shard(self._state_of, self.reader.cursor, batch, self._time.now())
        messages: list[tuple[object, bytes | None, bytes]] = []
        indexes = []
        for queued, planned in zip(batch, self._planned, strict=True):
            if planned.draft is None or planned.record is None:
                continue
            planned.message = message_of(planned.draft)
            if len(planned.message) > self._largest and queued.refused is None:
                # Found out beforehand, it leaves no gap: nothing of the batch has been sent.
                queued.refused = f"the log takes messages up to {self._largest} bytes, this has {len(planned.message)}"
                self._decide(batch)
                return
            messages.append((planned, planned.record.workspace.encode(), planned.message))
            indexes.append(planned.record.index)
        self._expected.clear()
        self._expected.extend(each for each in self._planned if each.record is not None)
        self._appended_at = self._clock.monotonic()
        if messages:
            self._log.append(messages)
        self._do(self.loop.appended(tuple(indexes)))

    def _answer(self, batch: tuple[QueuedCommand, ...]) -> None:
        for queued, planned in zip(batch, self._planned, strict=True):
            if planned.decision.dropped is not None:
                self._count_dropped(queued, planned.decision.dropped)
            if planned.record is None and queued.offset is None:
                for listener in self._listeners.get(queued.workspace, ()):
                    listener.on_no_decision(queued, planned)

    def _count_dropped(self, queued: QueuedCommand, why: DropReason) -> None:
        self.counts.dropped[why.value] += 1
        topic, offset = self.store.names.commands, queued.offset
        LOG.warning(
            "a %s of session %s, number %d, for %r is not decided: %s (%s)",
            queued.command.KIND,
            queued.command.session_id.hex(),
            queued.command.number,
            queued.workspace,
            why.value,
            "handed over directly" if offset is None else f"offset {offset} of {topic}",
        )

    def _claim(self, epoch: Epoch, leader_id: LeaderId) -> None:
        claimed = LeaderClaimed(
            log_id=self.store.log_id,
            epoch=epoch,
            leader_id=leader_id,
            commands_log_id=LogId(self.store.commands_id),
            claimed_at=self._clock.now(),
            build=self.store.build,
        )
        self._appended_at = self._clock.monotonic()
        self._log.claim(claimed)

    def _append_failed(self, message: object, refusal: BrokerRefusal, error: CcsError) -> None:
        LOG.warning("%s", error)
        if refusal is BrokerRefusal.DENIED:
            self._host.cannot_lead(self.partition, error)
        elif refusal is BrokerRefusal.TOO_LARGE and isinstance(message, PlannedDecision):
            queued = next((each for each in self._batch_of(message)), None)
            if queued is not None and queued.refused is not None:
                # Not even its refusal is taken, which is small: the topic takes next to nothing.
                self._host.cannot_lead(self.partition, error)
            elif queued is not None:
                self._do(self.loop.append_refused(queued, str(error)))
        elif message is not RESIGNATION:
            self._do(self.loop.append_unknown())

    def _batch_of(self, failed: PlannedDecision) -> Iterable[QueuedCommand]:
        """The command whose decision is the largest of those that failed with `failed`: it is the one too large."""
        pairs = list(zip(self.loop.batch, self._planned, strict=False))
        if not any(planned is failed for _, planned in pairs):
            return ()
        largest = max(pairs, key=lambda pair: len(pair[1].message))
        return (largest[0],)

    def _state_of(self, workspace: str) -> Directory:
        return self.states.get(workspace) or _EMPTY


def _body_bytes(queued: QueuedCommand) -> int:
    command = queued.command
    if type(command) is not Commit:
        return 0
    return sum(len(change.content.body or b"") for change in command.changes if type(change) is Write)


_EMPTY: Final = Directory()
"""The state of a workspace that was never opened. Nothing is folded into it."""
