"""The rules of leadership, each weakened in turn.

Guarantees: each mutation is the product with one rule taken out: a loop that overrides one method, an `admit` that gets
another record, a plan with another result, or a client that believes too much; it names the scope in which the
exploration must find the harm. Does not: change the product.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

from ccs_stream.protocol.admit import Cursor, Verdict, admit
from ccs_stream.protocol.ids import DecisionIndex, Epoch, LeaderId
from ccs_stream.protocol.leadership import (
    AnswerBatch,
    DecideAndAppend,
    Effect,
    LeadershipLoop,
    QueuedCommand,
    Role,
    SeekCommands,
)
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed
from formal.leader_facts import ANSWERED, REFUSED, WRITTEN, Failed, LoggedRecord, Rules, View, decide, name_of, plan
from formal.leader_moves import Scope

# Loops.


class _AnswersAtOnce(LeadershipLoop):
    __slots__ = ()

    def appended(self, indexes: tuple[DecisionIndex, ...]) -> list[Effect]:
        batch = self._batch
        return [AnswerBatch(batch), *super().appended(indexes)]


class _AnswersRepeatsAtOnce(LeadershipLoop):
    __slots__ = ()

    def appended(self, indexes: tuple[DecisionIndex, ...]) -> list[Effect]:
        names = [name_of(each) for each in self._batch]
        repeats = tuple(each for place, each in enumerate(self._batch) if names[place] in names[:place])
        return [*super().appended(indexes), AnswerBatch(repeats)]


class _GoesOn(LeadershipLoop):
    __slots__ = ()

    def decision_read(self, leader_id: LeaderId, index: DecisionIndex, verdict: Verdict) -> list[Effect]:
        own = self.role is Role.LEADING and leader_id == self.leader_id and index in self._unread
        if not own or verdict is Verdict.ADMITTED:
            return super().decision_read(leader_id, index, verdict)
        self._unread, self._batch = [], ()
        return self._next_batch()


class _DoesNotSeek(LeadershipLoop):
    __slots__ = ()

    def claim_read(self, epoch: Epoch, leader_id: LeaderId, verdict: Verdict) -> list[Effect]:
        effects = super().claim_read(epoch, leader_id, verdict)
        return [each for each in effects if not isinstance(each, SeekCommands)]


class _AppendsAgain(LeadershipLoop):
    __slots__ = ()

    def append_unknown(self) -> list[Effect]:
        if self.role is Role.LEADING and self._unread:
            return [DecideAndAppend(self._batch)]
        return super().append_unknown()


class _ClaimsUnproved(LeadershipLoop):
    __slots__ = ()

    def caught_up(self, current: Epoch, leader_id: LeaderId) -> list[Effect]:
        self._proved = self.assigned
        return super().caught_up(current, leader_id)


class _TellsFailedOnRenounce(LeadershipLoop):
    __slots__ = ()

    def _release_pending(self) -> list[Effect]:
        own = tuple(each for each in (*self._batch, *self._pending) if each.offset is None)
        super()._release_pending()
        return [Failed(own)]


class _TellsFailedOnVoid(LeadershipLoop):
    __slots__ = ()

    def decision_read(self, leader_id: LeaderId, index: DecisionIndex, verdict: Verdict) -> list[Effect]:
        batch = self._batch
        effects = super().decision_read(leader_id, index, verdict)
        return [Failed(batch), *effects] if effects and verdict is not Verdict.ADMITTED else effects


class _Drops(LeadershipLoop):
    __slots__ = ()

    def _release_pending(self) -> list[Effect]:
        super()._release_pending()
        return []


# Admission.


def _sequences_alone(cursor: Cursor, record: LoggedRecord) -> Verdict:
    if isinstance(record, DecisionRecord):
        record = dataclasses.replace(record, index=DecisionIndex(cursor.index + 1))
    return admit(cursor, record)


def _over_gaps(cursor: Cursor, record: LoggedRecord) -> Verdict:
    if isinstance(record, DecisionRecord) and record.index > cursor.index:
        record = dataclasses.replace(record, index=DecisionIndex(cursor.index + 1))
    return admit(cursor, record)


def _any_claim(cursor: Cursor, record: LoggedRecord) -> Verdict:
    return Verdict.ADMITTED if isinstance(record, LeaderClaimed) else admit(cursor, record)


def _last_claim(cursor: Cursor, record: LoggedRecord) -> Verdict:
    again = isinstance(record, LeaderClaimed) and record.epoch == cursor.epoch
    return Verdict.ADMITTED if again else admit(cursor, record)


def _old_epochs(cursor: Cursor, record: LoggedRecord) -> Verdict:
    if isinstance(record, DecisionRecord) and record.epoch < cursor.epoch:
        record = dataclasses.replace(record, epoch=cursor.epoch, leader_id=cursor.leader_id)
    return admit(cursor, record)


def _any_leader(cursor: Cursor, record: LoggedRecord) -> Verdict:
    if isinstance(record, DecisionRecord):
        record = dataclasses.replace(record, leader_id=cursor.leader_id)
    return admit(cursor, record)


def _any_sequence(cursor: Cursor, record: LoggedRecord) -> Verdict:
    verdict = admit(cursor, record)
    return Verdict.ADMITTED if verdict is Verdict.SEQUENCE_GAP else verdict


# Plans.


def _offsets_for_all(view: View, batch: Sequence[QueuedCommand], taken: int) -> list[DecisionRecord | None]:
    planned = plan(view, batch, taken)
    for record in planned:
        if record is not None and record.command_offset is None and taken:
            record.command_offset = taken - 1
    return planned


def _only_changes(view: View, batch: Sequence[QueuedCommand], taken: int) -> list[DecisionRecord | None]:
    def choose(window: frozenset[str], pending: QueuedCommand) -> bytes | None:
        event = decide(window, pending)
        return event if event == WRITTEN else None

    return plan(view, batch, taken, choose)


def _refused_before_repeated(view: View, batch: Sequence[QueuedCommand], taken: int) -> list[DecisionRecord | None]:
    def choose(window: frozenset[str], pending: QueuedCommand) -> bytes | None:
        return decide(window, pending) if pending.refused is None else REFUSED

    return plan(view, batch, taken, choose)


def _in_order(view: View, batch: Sequence[QueuedCommand], taken: int) -> list[DecisionRecord | None]:
    def choose(window: frozenset[str], pending: QueuedCommand) -> bytes | None:
        highest = max((int(name[1]) for name in window if name[0] == pending.workspace), default=0)
        if pending.command.number <= highest:
            return None if pending.offset is None else ANSWERED
        return decide(window, pending)

    return plan(view, batch, taken, choose)


# Clients.


def _believes_all(_verdict: Verdict) -> bool:
    return True


# Scopes: the fewest commands, and the faults, that a rule is for.


def _scope(commands: str, *faults: str) -> Scope:
    """Commands in the topic, or with a `!` handed over directly; each fault as often as it is named, in any mixture."""
    ways = {name.rstrip("!"): "direct" if name.endswith("!") else "topic" for name in commands.split()}
    return Scope(commands=ways, faults=tuple(dict.fromkeys(faults)), at_most=len(faults))


_BATCH: Final = "a1! a2 b1"
"""One command under way, so that those of two workspaces wait, and share the next batch."""

MUTATIONS: Final[dict[str, tuple[Rules, Scope]]] = {
    "the index does not count: sequences alone": (Rules(admit=_sequences_alone), _scope(_BATCH, "lose")),
    "an epoch goes on behind a gap": (Rules(admit=_over_gaps), _scope(_BATCH, "lose")),
    "a decision of an old epoch is admitted": (Rules(admit=_old_epochs), _scope("a1", "time-out")),
    "any claim is admitted": (Rules(admit=_any_claim), _scope("", "time-out", "move")),
    "the last claim of an epoch wins": (Rules(admit=_last_claim), _scope("", "time-out", "move")),
    "answers before the read-back": (Rules(loop=_AnswersAtOnce), _scope("a1")),
    "answers a repeat before the read-back": (Rules(loop=_AnswersRepeatsAtOnce), _scope("a1! b1!", "again")),
    "a leader goes on behind a void decision of its own": (Rules(loop=_GoesOn), _scope(_BATCH, "lose")),
    "after its claim a leader does not seek the topic": (Rules(loop=_DoesNotSeek), _scope("a1 b1", "lose")),
    "a leader takes commands before its seek is done": (Rules(seeks_at_once=False), _scope("a1 b1", "lose")),
    "after a produce error the leader appends again": (Rules(loop=_AppendsAgain), _scope(_BATCH, "time-out")),
    "a claim needs no proof of membership": (Rules(loop=_ClaimsUnproved), _scope("", "move")),
    "who was expelled is never told": (Rules(expulsion_is_told=False), _scope("a1!", "move", "move", "lose")),
    "renouncing tells clients that they failed": (Rules(loop=_TellsFailedOnRenounce), _scope("a1!", "move")),
    "a void decision tells clients that they failed": (Rules(loop=_TellsFailedOnVoid), _scope("a1! a2! b1!", "lose")),
    "renouncing drops what was handed over": (Rules(loop=_Drops), _scope("a1!", "move")),
    "a client believes a void decision": (Rules(resolves=_believes_all), _scope("a1", "move")),
    "a decision of the fast path carries an offset": (Rules(plan=_offsets_for_all), _scope("a1 a2! b1!")),
    "from the topic, only what changes something is recorded": (Rules(plan=_only_changes), _scope("a1?")),
    "what the broker refuses is refused though it repeats": (
        Rules(plan=_refused_before_repeated),
        _scope("a1!", "again", "refuse"),
    ),
    "a number below the highest is taken for a repeat": (Rules(plan=_in_order), _scope("a1 a2")),
    "a session is forgotten when leadership moves": (Rules(forgetful=True), _scope("a1!", "time-out")),
}
"""By the rule that is taken out: the product without it, and the scope to explore."""

_WIDE: Final = Scope(commands={"a1": "topic direct", "b1": "topic direct"}, at_most=1)
REDUNDANT: Final[dict[str, tuple[Rules, Scope]]] = {
    "a decision of the epoch is admitted whoever decided it": (Rules(admit=_any_leader), _WIDE),
    "a decision is admitted at any sequence": (Rules(admit=_any_sequence), _WIDE),
}
"""Rules that the others imply as far as was explored; kept, because each is cheap and needs none of the others."""
