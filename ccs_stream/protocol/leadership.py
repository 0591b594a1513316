"""The loop of a coordinator that leads a shard: claim, decide, append, read back, answer.

`ShardCoordinator` is the shell around it. Guarantees: pure. Whatever happens to a coordinator comes in as an input,
whatever it has to do goes out as an effect, so that fault simulation runs this very loop. It never answers from
anything but decisions it has read back, admitted; it never claims twice on one proof of membership; after a produce
error it does not guess, but claims anew. Does not: decide (the shell calls `decide` for the batch of an effect), or
know who should lead; the log says who does.

A log that serialises its writers itself (memory, SQLite) has no leaders, and does not use this loop.

Source of the rules: epochs claimed by compare-and-set in the log, in the manner of KRaft's claim and renounce and of
XTDB's term fence; see `docs/decisions/0005-leaders-claim-in-the-log.md`.
"""

import dataclasses
import enum
from typing import Final, assert_never

from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.ids import DecisionIndex, Epoch, LeaderId

PENDING_MAX: Final = 10_000
"""Commands waiting in one shard; beyond this the loop is `full`, and the shell fetches no more."""
COMMANDS_PER_DECIDED_BATCH: Final = 512
"""Commands in one batch: enough to hide the round trip to the log, few enough that the next ones do not wait long."""


class Role(enum.StrEnum):
    """The role of a coordinator for a shard."""

    FOLLOWING = "following"
    """It only reads."""
    CLAIMING = "claiming"
    """It has appended a claim, and waits to read it back."""
    LEADING = "leading"
    """It has read its claim back, admitted."""
    RECOVERING = "recovering"
    """It led, and it is not known whether a record it appended is in the log: it must claim anew."""
    STOPPED = "stopped"
    """It will not lead again."""


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class QueuedCommand:
    """A command that waits to be decided, and where it came from."""

    workspace: str
    command: Command
    offset: int | None
    """Offset in the commands topic; None when it was handed over directly."""
    refused: str | None = None
    """Why the broker did not take its decision in an earlier attempt: the command is to be decided as a refusal."""


# Effects: orders to the shell, to be carried out in their order.


@dataclasses.dataclass(frozen=True, slots=True)
class ProveMembership:
    """Commit an offset synchronously; when that succeeds, call `membership_proved`.

    Where the group does not know this member any more, `assignment_lost` must be called: until then, commands that were
    handed over directly wait.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class AppendClaim:
    """Append a claim of this epoch under this id, which is fresh for every claim."""

    epoch: Epoch
    leader_id: LeaderId


@dataclasses.dataclass(frozen=True, slots=True)
class AppendResignation:
    """Append the resignation of this epoch."""

    epoch: Epoch
    leader_id: LeaderId


@dataclasses.dataclass(frozen=True, slots=True)
class DecideAndAppend:
    """Decide these commands on an overlay and append their decisions; then call `appended`.

    One that is marked `refused` is decided as a refusal. Decisions carry the loop's epoch and leader id, and indexes
    that continue from the cursor.
    """

    batch: tuple[QueuedCommand, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Answer these commands from the admitted state: their decisions were read back, or they needed none."""

    batch: tuple[QueuedCommand, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class ForwardToTopic:
    """Put these commands, handed over directly, in the commands topic under their numbers, for the leader."""

    batch: tuple[QueuedCommand, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class DestroyProducer:
    """Destroy the producer, and with it every message that it might still send late."""


@dataclasses.dataclass(frozen=True, slots=True)
class SeekCommands:
    """Read the commands topic from the folded offset + 1: commands that were taken and not decided come again.

    Until that is done, hand over no command from the topic: the decision on a later one would carry the offset to
    resume from past those that were not decided.
    """


Effect = (
    ProveMembership
    | AppendClaim
    | AppendResignation
    | DecideAndAppend
    | AnswerBatch
    | ForwardToTopic
    | DestroyProducer
    | SeekCommands
)


class LeadershipLoop:
    """One coordinator's loop for one shard. Each input returns the effects it leads to, in order."""

    __slots__ = ("_batch", "_pending", "_proved", "_refused", "_unread", "assigned", "epoch", "leader_id", "role")

    def __init__(self) -> None:
        self.role = Role.FOLLOWING
        self.assigned = False
        """True if the group suggests that this coordinator try to lead."""
        self.epoch = Epoch(0)
        """The epoch it claims or leads; the last one seen otherwise."""
        self.leader_id: LeaderId | None = None
        """Its id in that epoch."""
        self._proved = False
        self._pending: list[QueuedCommand] = []
        self._batch: tuple[QueuedCommand, ...] = ()
        self._unread: list[DecisionIndex] = []
        """Indexes appended and not read back yet."""
        self._refused: dict[int, str] = {}
        """By offset in the commands topic, why the broker did not take a decision; kept until it was decided as a
        refusal."""

    @property
    def batch(self) -> tuple[QueuedCommand, ...]:
        """The commands being decided."""
        return self._batch

    @property
    def full(self) -> bool:
        """True if the shell should fetch no more commands for now."""
        return len(self._pending) >= PENDING_MAX

    @property
    def waiting(self) -> int:
        """Commands that wait or are being decided."""
        return len(self._pending) + len(self._batch)

    # The group.

    def assigned_now(self) -> list[Effect]:
        """The group assigns the shard: a proof of membership, good for one claim."""
        if self.role is Role.STOPPED:
            return []
        self.assigned = self._proved = True
        return []

    def assignment_lost(self) -> list[Effect]:
        """The group takes the shard away, or the member was expelled: renounce, and keep following."""
        self.assigned = self._proved = False
        return self._renounce()

    def membership_proved(self) -> list[Effect]:
        """A synchronous offset commit succeeded: a proof of membership, good for one claim."""
        self._proved = self.assigned and self.role is not Role.STOPPED
        return []

    def caught_up(self, current: Epoch, leader_id: LeaderId) -> list[Effect]:
        """The log has been read to its end; `leader_id` is fresh, for a claim. Claims where a claim is due.

        Call it on a timer, too: an assigned coordinator that the log does not call its leader claims (a dead process's
        late claim may have won).
        """
        if not self.assigned or self.role in (Role.LEADING, Role.CLAIMING, Role.STOPPED):
            return []
        if not self._proved:
            return [ProveMembership()]
        self._proved = False
        self.role = Role.CLAIMING
        self.epoch, self.leader_id = Epoch(current + 1), leader_id
        return [AppendClaim(self.epoch, leader_id)]

    # The log, in its order.

    def claim_read(self, epoch: Epoch, leader_id: LeaderId, verdict: Verdict) -> list[Effect]:
        """A claim was read, with its verdict."""
        own = leader_id == self.leader_id
        if verdict is Verdict.ADMITTED:
            if own and self.role is Role.CLAIMING:
                self.role = Role.LEADING
                # What came from the topic comes again from there; what was handed over directly is still ours.
                self._pending = [each for each in (*self._batch, *self._pending) if each.offset is None]
                self._batch, self._unread = (), []
                return [SeekCommands(), *self._next_batch()]
            effects = self._renounce()
            self.epoch = epoch
            return effects
        if own and self.role is Role.CLAIMING:
            # Another claim of this epoch was first.
            self.role = Role.FOLLOWING
            self.leader_id = None
            return self._release_pending()
        return []

    def resignation_read(self, leader_id: LeaderId, verdict: Verdict) -> list[Effect]:
        """A resignation was read. If it is this coordinator's, it leads no more."""
        if verdict is Verdict.ADMITTED and leader_id == self.leader_id and self.role is not Role.CLAIMING:
            return self._renounce()
        return []

    def decision_read(self, leader_id: LeaderId, index: DecisionIndex, verdict: Verdict) -> list[Effect]:
        """A decision was read, with its verdict. Answers the batch when its last decision is read back, admitted."""
        if self.role is not Role.LEADING or leader_id != self.leader_id or index not in self._unread:
            return []
        if verdict is not Verdict.ADMITTED:
            # Our own decision is void: like a produce error, something of this epoch is missing.
            return self._recover()
        self._unread.remove(index)
        if self._unread:
            return []
        batch, self._batch = self._batch, ()
        if self._refused:
            for each in batch:
                if each.offset is not None:
                    self._refused.pop(each.offset, None)
        return [AnswerBatch(batch), *self._next_batch()]

    # Producing.

    def appended(self, indexes: tuple[DecisionIndex, ...]) -> list[Effect]:
        """The batch was decided, and decisions with these indexes (none where it needs none) are being produced."""
        if self.role is not Role.LEADING or not self._batch:
            return []
        if not indexes:
            batch, self._batch = self._batch, ()
            return [AnswerBatch(batch), *self._next_batch()]
        self._unread = list(indexes)
        return []

    def append_unknown(self) -> list[Effect]:
        """A produce error or time-out: it is not known whether the appended records are in the log or will be."""
        if self.role is Role.CLAIMING:
            self.role = Role.RECOVERING
            return [DestroyProducer()]
        return self._recover() if self.role is Role.LEADING else []

    def append_refused(self, pending: QueuedCommand, why: str) -> list[Effect]:
        """The broker definitely refused this command's decision (for its size): it is not and will not be in the log.

        It is decided again, as a refusal. What stood behind it in its batch has left the epoch with a gap.
        """
        if self.role is not Role.LEADING or pending not in self._batch:
            return []
        pending.refused = why
        if pending.offset is not None:
            self._refused[pending.offset] = why
        if len(self._batch) > 1:
            return self._recover()
        self._unread = []
        return [DecideAndAppend(self._batch)]

    # Commands.

    def command(self, pending: QueuedCommand) -> list[Effect]:
        """A command came, by the topic or directly."""
        if self.role is Role.LEADING:
            if pending.offset in self._refused:
                pending.refused = self._refused[pending.offset]
            self._pending.append(pending)
            return self._next_batch()
        if pending.offset is not None:
            return []  # the leader reads it from the topic
        if self.role in (Role.CLAIMING, Role.RECOVERING):
            self._pending.append(pending)
            return []
        return [ForwardToTopic((pending,))]

    def stop(self) -> list[Effect]:
        """A graceful stop: resign on the log where this coordinator leads, and never lead again."""
        leading = self.role is Role.LEADING
        epoch, leader_id = self.epoch, self.leader_id
        effects = self._renounce()
        self.role = Role.STOPPED
        self.assigned = self._proved = False
        if leading and leader_id is not None:
            effects.append(AppendResignation(epoch, leader_id))
        return effects

    # Within.

    def _next_batch(self) -> list[Effect]:
        """Begin the next batch where none is under way: one at a time, so that a failure leaves one to sort out."""
        if self.role is not Role.LEADING or self._batch or not self._pending:
            return []
        self._batch, self._pending = (
            tuple(self._pending[:COMMANDS_PER_DECIDED_BATCH]),
            self._pending[COMMANDS_PER_DECIDED_BATCH:],
        )
        return [DecideAndAppend(self._batch)]

    def _recover(self) -> list[Effect]:
        """Claim anew: the claim voids records that arrive late, so that the log up to it holds everything there is."""
        self.role = Role.RECOVERING
        self._unread = []
        return [DestroyProducer(), ProveMembership()]

    def _renounce(self) -> list[Effect]:
        """Stop leading, keep following. No command is failed."""
        match self.role:
            case Role.STOPPED | Role.FOLLOWING:
                return []
            case Role.LEADING | Role.CLAIMING | Role.RECOVERING:
                under_way = bool(self._unread) or self.role is not Role.LEADING
                self.role = Role.FOLLOWING
                self.leader_id = None
                self._unread = []
                return [*([DestroyProducer()] if under_way else []), *self._release_pending()]
            case _:
                assert_never(self.role)

    def _release_pending(self) -> list[Effect]:
        """Put commands that were handed over directly into the topic; those that came from it are still there."""
        own = tuple(each for each in (*self._batch, *self._pending) if each.offset is None)
        self._batch, self._pending = (), []
        return [ForwardToTopic(own)] if own else []
