"""A small world around the real leadership loop: a log, a commands topic, clients, coordinators and a bad network.

Guarantees: every coordinator runs the product's `LeadershipLoop` and reads by the product's `admit`; the onlooker's
account (which commands were sent, answered, or failed to their clients) is kept apart from them. A world is copied
cheaply: what does not change is shared, and a loop is forked when it is to change.
Does not: let a coordinator read late a record that makes no difference to it (a follower is always at the log's end; a
leader sees at once a record that is void and not its own): that would multiply states and show nothing.
"""

import dataclasses
import operator
from collections.abc import Hashable
from typing import Final

from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.ids import LeaderId
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
from formal.leader_facts import (
    NOBODY,
    Entry,
    Failed,
    Flight,
    LoggedRecord,
    Rules,
    View,
    claim,
    command,
    decided_by,
    follow,
    fresh_leader_id,
    name_of,
    opened,
    require,
)

_NO_OFFSET: Final = -1_000
_NAMED: Final = (Role.LEADING, Role.CLAIMING)
"""Where it matters under which id a loop leads or claims."""
_IDLE: Final = (Role.FOLLOWING, Role.STOPPED)
_FIELDS: Final = tuple(LeadershipLoop.__slots__)
_values = operator.attrgetter(*_FIELDS)
_batch_of = operator.attrgetter("_batch")
_inside = operator.attrgetter("_pending", "_batch", "_unread", "_refused", "_proved")


def fork(loop: LeadershipLoop, *, deeply: bool = False) -> LeadershipLoop:
    """A copy of a loop, which shares its commands unless `deeply`."""
    other = object.__new__(type(loop))
    for name, value in zip(_FIELDS, _values(loop), strict=True):
        kept = value.copy() if isinstance(value, list | dict) else value
        if deeply and isinstance(value, list | tuple):
            kept = type(value)(dataclasses.replace(each) if isinstance(each, QueuedCommand) else each for each in value)
        setattr(other, name, kept)
    return other


class World:
    """One state of everything."""

    __slots__ = (
        "answered",
        "asked",
        "base",
        "cached",
        "claims",
        "flights",
        "group",
        "healing",
        "hosts",
        "left",
        "loops",
        "lost",
        "orphans",
        "reads",
        "rules",
        "seeking",
        "tail",
        "taken",
        "told",
        "topic",
    )

    def __init__(self, rules: Rules, coordinators: int, left: int) -> None:
        self.rules = rules
        self.loops = [rules.loop() for _ in range(coordinators)]
        self.reads = [0] * coordinators
        """How many records of `tail` each coordinator has read."""
        self.taken = [0] * coordinators
        """Next offset of the commands topic that each coordinator takes."""
        self.seeking: list[int | None] = [None] * coordinators
        """The place at which each is to go on in the topic, while its seek is not done."""
        self.lost = [False] * coordinators
        """By coordinator, True if a record of its producer was lost, so that it will time out."""
        self.base = opened()
        self.tail: tuple[Entry, ...] = ()
        self.flights: tuple[Flight, ...] = ()
        self.topic: tuple[str, ...] = ()
        self.group = NOBODY
        """The coordinator to which the group gives the shard; others may not have noticed that they lost it."""
        self.asked: frozenset[str] = frozenset()
        self.hosts: dict[str, int] = {}
        """By command that was handed over directly, the coordinator in whose process its client lives."""
        self.orphans: frozenset[str] = frozenset()
        """Commands whose clients died without an answer, and will ask again when they are started again."""
        self.answered: frozenset[str] = frozenset()
        self.told: frozenset[str] = frozenset()
        """Commands whose clients were told that they failed."""
        self.claims = 0
        self.cached: list[tuple[View, Hashable] | None] = [None] * coordinators
        """What `key` has computed of each loop, and for which `base`."""
        self.left = left
        """How many faults there may still be."""
        self.healing = False

    def copy(self) -> "World":
        """A world whose changes do not show here."""
        other: World = object.__new__(World)
        other.rules, other.base, other.tail, other.flights = self.rules, self.base, self.tail, self.flights
        other.topic, other.group, other.asked, other.orphans = self.topic, self.group, self.asked, self.orphans
        other.answered, other.told, other.claims, other.left = self.answered, self.told, self.claims, self.left
        other.loops, other.reads, other.taken = self.loops.copy(), self.reads.copy(), self.taken.copy()
        other.lost, other.hosts, other.healing = self.lost.copy(), self.hosts, self.healing
        other.cached, other.seeking = self.cached.copy(), self.seeking.copy()
        return other

    def own(self, i: int, *, deeply: bool = False) -> LeadershipLoop:
        """The loop of a coordinator, to be changed."""
        loop = fork(self.loops[i], deeply=deeply)
        self.put_loop(i, loop)
        return loop

    def put_loop(self, i: int, loop: LeadershipLoop) -> None:
        """A coordinator gets a loop that differs from the one it had."""
        self.loops[i], self.cached[i] = loop, None

    # The log.

    @property
    def end(self) -> View:
        """The facts at the log's end."""
        return self.tail[-1].after if self.tail else self.base

    def view(self, i: int) -> View:
        """The facts that a coordinator knows."""
        read = self.reads[i]
        return self.tail[read - 1].after if read else self.base

    def append(self, record: LoggedRecord) -> Verdict:
        """Append a record at the log's end, where clients read it at once."""
        view = self.end
        verdict = self.rules.admit(view.cursor, record)
        if verdict is Verdict.ADMITTED:
            view = follow(view, record, self.topic, forgetful=self.rules.forgetful)
        self.tail = (*self.tail, Entry(record, verdict, view))
        if isinstance(record, DecisionRecord):
            name = decided_by(record)
            if self.rules.resolves(verdict):
                require(name in view.decided, "an answer comes from an admitted decision")
            require(name not in view.decided or name not in self.told, "no client is told failed for what is decided")
        return verdict

    def read(self, i: int) -> None:
        """A coordinator reads its next record."""
        entry = self.tail[self.reads[i]]
        self.reads[i] += 1
        loop, record = self.own(i), entry.record
        match record:
            case LeaderClaimed():
                self.do(i, loop.claim_read(record.epoch, record.leader_id, entry.verdict))
            case LeaderResigned():
                self.do(i, loop.resignation_read(record.leader_id, entry.verdict))
            case DecisionRecord():
                self.do(i, loop.decision_read(record.leader_id, record.index, entry.verdict))

    def settle(self) -> None:
        """Let coordinators read records that make no difference to them, and drop records that all have read."""
        if not self.tail:
            return
        for i, loop in enumerate(self.loops):
            while self.reads[i] < len(self.tail) and not matters(loop, self.tail[self.reads[i]]):
                self.reads[i] += 1
        least = min(self.reads)
        if least:
            self.base, self.tail = self.tail[least - 1].after, self.tail[least:]
            self.reads = [each - least for each in self.reads]

    # Effects.

    def do(self, i: int, effects: list[Effect]) -> None:
        """Carry out the effects of a loop."""
        loop = self.loops[i]
        for effect in effects:
            match effect:
                case ProveMembership():
                    self._prove(i)
                case AppendClaim():
                    self._send(i, (claim(effect.epoch, effect.leader_id),))
                case AppendResignation():
                    self._send(i, (LeaderResigned(epoch=effect.epoch, leader_id=effect.leader_id),))
                case DecideAndAppend():
                    planned = self.rules.plan(self.view(i), effect.batch, self.taken[i])
                    records = tuple(each for each in planned if each is not None)
                    self._send(i, records)
                    self.do(i, loop.appended(tuple(each.index for each in records)))
                case AnswerBatch():
                    self._answer(i, effect.batch)
                case Failed():
                    self.told |= {name_of(each) for each in effect.batch}
                    require(not self.told & self.end.decided, "no client is told failed for what is decided")
                case ForwardToTopic():
                    self.topic += tuple(name_of(each) for each in effect.batch)
                case DestroyProducer():
                    self.abandon(i)
                case SeekCommands():
                    self.seeking[i] = self.view(i).folded + 1
                    if self.rules.seeks_at_once:
                        self.seek(i)

    def seek(self, i: int) -> None:
        """A coordinator takes commands from where the log said that they go on."""
        self.taken[i], self.seeking[i] = self.seeking[i] or 0, None

    def abandon(self, i: int) -> None:
        """No one waits any longer for the records that a coordinator's producer has sent."""
        self.flights = tuple(Flight(NOBODY, each.records) if each.owner == i else each for each in self.flights)
        self.lost[i] = False

    def _prove(self, i: int) -> None:
        if self.group == i:
            self.do(i, self.loops[i].membership_proved())
        elif self.healing and self.rules.expulsion_is_told:
            self.do(i, self.loops[i].assignment_lost())

    def _send(self, i: int, records: tuple[LoggedRecord, ...]) -> None:
        if records:
            self.flights = (*self.flights, Flight(i, records))

    def _answer(self, i: int, batch: tuple[QueuedCommand, ...]) -> None:
        decided = self.view(i).decided
        for each in batch:
            name = name_of(each)
            unrecorded = name.endswith("?") and each.offset is None
            require(name in decided or unrecorded, "an answer comes from an admitted decision")
        self.answered |= {name_of(each) for each in batch}

    def pending(self, name: str, offset: int | None) -> QueuedCommand:
        """A command to be decided."""
        return QueuedCommand(workspace=name[0], command=command(name), offset=offset)

    def fresh_id(self, i: int) -> LeaderId:
        """An id for a claim."""
        self.claims += 1
        return fresh_leader_id(i, self.claims)

    def refuse(self, i: int, record: DecisionRecord) -> None:
        """The broker says to a coordinator that it will not take a decision."""
        loop = self.own(i, deeply=True)
        refused = next(each for each in _batch_of(loop) if _decides(record, each))
        self.do(i, loop.append_refused(refused, "too large"))

    def in_batch(self, i: int, record: DecisionRecord) -> bool:
        """True if a coordinator still waits for this decision's command."""
        return any(_decides(record, each) for each in _batch_of(self.loops[i]))

    # Identity.

    def key(self) -> Hashable:
        """The identity of a world as far as its future goes: numbers relative to the records that all have read."""
        base = self.base
        cursor = base.cursor
        start = base.folded + 1
        leaders = {loop.leader_id: i + 1 for i, loop in enumerate(self.loops) if loop.role in _NAMED}
        leaders[cursor.leader_id] = 0
        flights = [(each.owner, *[_record_key(one, base, leaders) for one in each.records]) for each in self.flights]
        flights.sort()
        loops = [self._loop_key(i) for i in range(len(self.loops))]
        taken = [0 if loop.role in _IDLE else taken - start for loop, taken in zip(self.loops, self.taken, strict=True)]
        return (
            (cursor.resigned, base.decided, base.applied, base.window),
            (*loops, *self.reads, *taken, *self.lost),
            tuple([None if offset is None else offset - start for offset in self.seeking]),
            tuple([_record_key(each.record, base, leaders) for each in self.tail]),
            tuple(flights),
            (self.topic[start:], self.group, self.asked, self.orphans, self.told),
            frozenset(self.hosts.items()),
            self.answered - self.end.decided,
        )

    def _loop_key(self, i: int) -> Hashable:
        cached, base = self.cached[i], self.base
        if cached is None or cached[0] is not base:
            cached = self.cached[i] = base, _loop_key(self.loops[i], base)
        return cached[1]


def _loop_key(loop: LeadershipLoop, base: View) -> Hashable:
    start, cursor = base.folded + 1, base.cursor
    pending, batch, unread, refused, proved = _inside(loop)
    term: Hashable = None
    if loop.role in _NAMED:
        epoch = loop.epoch - cursor.epoch
        first = 0 if epoch else cursor.index
        term = epoch, loop.leader_id == cursor.leader_id, tuple([index - first for index in unread])
    return (
        (loop.role, loop.assigned, proved, term),
        tuple([_pending_key(each, start) for each in batch]),
        tuple([_pending_key(each, start) for each in pending]),
        tuple([offset - start for offset in refused if offset >= start]) if refused else (),
    )


def matters(loop: LeadershipLoop, entry: Entry) -> bool:
    """True if it makes a difference when a coordinator reads a record."""
    if loop.role in _IDLE:
        return False
    if isinstance(entry.record, DecisionRecord) and loop.role is not Role.LEADING:
        return False
    return entry.verdict is Verdict.ADMITTED or entry.record.leader_id == loop.leader_id


def _decides(record: DecisionRecord, pending: QueuedCommand) -> bool:
    return decided_by(record) == name_of(pending) and record.command_offset == pending.offset


def _pending_key(pending: QueuedCommand, start: int) -> Hashable:
    offset = _NO_OFFSET if pending.offset is None else pending.offset - start
    return name_of(pending), offset, pending.refused is not None


def _record_key(record: LoggedRecord, base: View, leaders: dict[LeaderId | None, int]) -> tuple[object, ...]:
    cursor = base.cursor
    epoch = record.epoch - cursor.epoch
    if epoch < 0 or (epoch == 0 and not isinstance(record, DecisionRecord | LeaderResigned)):
        # Void for ever, whatever else it says; but a client may look at it.
        return ("old", decided_by(record)) if isinstance(record, DecisionRecord) else ("old",)
    leader = leaders.get(record.leader_id, 99)
    if not isinstance(record, DecisionRecord):
        return type(record).__name__, epoch, leader
    offset = _NO_OFFSET if record.command_offset is None else max(record.command_offset - base.folded, 0)
    return (
        "decision",
        epoch,
        leader,
        record.index - (0 if epoch else cursor.index),
        record.first_sequence - cursor.end(record.workspace).sequence,
        decided_by(record),
        offset,
        record.events,
    )
