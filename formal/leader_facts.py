"""The facts of a small log: what a reader knows behind each record, and the rules that an onlooker checks there.

`leader_world` uses them as its directory. Guarantees: `admit`, `advance`, `Cursor` and the records are those of the
product; commands are numbered as in a session, and a view is never changed once it is made, so that worlds share it.
Does not: encode, or know grants; of a workspace it keeps which commands were decided and which of them were applied.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.protocol.admit import ChainEnd, Cursor, Verdict, admit, advance
from ccs_stream.protocol.commands import Command, Commit, Read
from ccs_stream.protocol.ids import (
    GENESIS_HASH,
    ArtifactId,
    CommandNumber,
    DecisionIndex,
    Epoch,
    LeaderId,
    LogId,
    Micros,
    SequenceNumber,
    SessionId,
)
from ccs_stream.protocol.leadership import ForwardToTopic, LeadershipLoop, QueuedCommand
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned, LogOpened
from formal.world import BrokenRule

LOG_ID: Final = LogId(bytes(16))
NOBODY: Final = -1
LETTERS: Final = "ABC"
"""Names of coordinators, by number."""
WRITTEN, REFUSED, ANSWERED = b"written", b"refused", b"answered"
"""The outcomes of a decision: applied, refused, or changing nothing (a repeat changes nothing either)."""

LoggedRecord = DecisionRecord | LeaderClaimed | LeaderResigned
Admit = Callable[[Cursor, LoggedRecord], Verdict]


def require(holds: object, rule: str) -> None:
    """Raise `BrokenRule` unless `holds`."""
    if not holds:
        raise BrokenRule(rule)


def command(name: str) -> Command:
    """The command of a name: `a1` writes as number 1 of workspace a's one session, `b2?` reads as number 2 of b's."""
    session, number = SessionId(name[0].encode() * 16), CommandNumber(int(name[1]))
    if name.endswith("?"):
        return Read(session_id=session, number=number, agent="", artifact=ArtifactId(bytes(16)))
    return Commit(session_id=session, number=number, agent="", changes=())


def name_of(pending: QueuedCommand) -> str:
    """The name of a command that waits to be decided."""
    mark = "?" if type(pending.command) is Read else ""
    return f"{pending.workspace}{pending.command.number}{mark}"


def decided_by(record: DecisionRecord) -> str:
    """The name of the command that a decision decides."""
    return f"{record.workspace}{record.number}{'?' if record.command_kind == 'read' else ''}"


@dataclasses.dataclass(slots=True, eq=False)
class View:
    """The facts behind one record of the log."""

    cursor: Cursor
    decided: frozenset[str] = frozenset()
    applied: frozenset[str] = frozenset()
    window: frozenset[str] = frozenset()
    """The decisions that sessions remember: those of `decided`, unless sessions are forgotten."""
    folded: int = -1
    """Highest offset of the commands topic that an admitted decision carries."""
    claimed: int = 0
    """Highest epoch that was ever claimed, admitted."""


def opened() -> View:
    """A log that was just opened."""
    view = View(Cursor())
    opening = LogOpened(log_id=LOG_ID, shards=1, partitioner="murmur2", format=1, opened_at=Micros(0))
    advance(view.cursor, opening)
    return view


def follow(view: View, record: LoggedRecord, topic: tuple[str, ...], *, forgetful: bool = False) -> View:
    """The facts behind an admitted record. Raises `BrokenRule` where it must not have been admitted."""
    old = view.cursor
    cursor = Cursor(old.log_id, old.epoch, old.leader_id, old.index, old.resigned)
    cursor.workspaces = {key: ChainEnd(end.sequence, end.hash) for key, end in old.workspaces.items()}
    advance(cursor, record)
    after = View(cursor, view.decided, view.applied, view.window, view.folded, view.claimed)
    if isinstance(record, LeaderClaimed):
        require(record.epoch > view.claimed, "an epoch has one leader")
        after.claimed = record.epoch
        if forgetful:
            after.window = frozenset()
    elif isinstance(record, DecisionRecord):
        require((record.epoch, record.leader_id) == (old.epoch, old.leader_id), "only the epoch's leader decides")
        require(record.first_sequence == old.end(record.workspace).sequence + 1, "a workspace's sequence has no gap")
        _fold(after, record)
        if record.command_offset is not None and record.command_offset > view.folded:
            after.folded = record.command_offset
            passed = topic[view.folded + 1 : after.folded + 1]
            require(after.decided.issuperset(passed), "the resume offset never passes an undecided command")
    return after


def _fold(after: View, record: DecisionRecord) -> None:
    name, (event,) = decided_by(record), record.events
    if event == WRITTEN:
        require(name not in after.applied, "no command is applied twice")
        after.applied |= {name}
    elif event == REFUSED:
        require(name not in after.applied, "no client is told that a command failed which was applied")
    else:
        require(name in after.decided or name.endswith("?"), "a repeat repeats a decision: no command is lost")
    after.decided |= {name}
    after.window |= {name}


def decide(window: frozenset[str], pending: QueuedCommand) -> bytes | None:
    """The event of a command's decision, or None, as `plan_shard` decides it."""
    name = name_of(pending)
    unrecorded = None if pending.offset is None else ANSWERED
    if name in window:
        return unrecorded
    if pending.refused is not None:
        return REFUSED
    return unrecorded if name.endswith("?") else WRITTEN


Decide = Callable[[frozenset[str], QueuedCommand], bytes | None]


def plan(
    view: View,
    batch: Sequence[QueuedCommand],
    taken: int,  # noqa: ARG001 (a weakened rule wants it)
    choose: Decide = decide,
) -> list[DecisionRecord | None]:
    """Decide a batch behind `view`, on an overlay; None for a command that needs no decision."""
    window, index = view.window, int(view.cursor.index)
    sequences = {workspace: int(end.sequence) for workspace, end in view.cursor.workspaces.items()}
    planned: list[DecisionRecord | None] = []
    for pending in batch:
        event = choose(window, pending)
        if event is None:
            planned.append(None)
            continue
        index += 1
        sequence = sequences[pending.workspace] = sequences.get(pending.workspace, 0) + 1
        window |= {name_of(pending)}
        planned.append(_frame(view.cursor, pending, index, sequence, event))
    return planned


Plan = Callable[[View, Sequence[QueuedCommand], int], list[DecisionRecord | None]]


def _frame(cursor: Cursor, pending: QueuedCommand, index: int, sequence: int, event: bytes) -> DecisionRecord:
    return DecisionRecord(
        workspace=pending.workspace,
        epoch=cursor.epoch,
        leader_id=cursor.leader_id,
        index=DecisionIndex(index),
        first_sequence=SequenceNumber(sequence),
        session_id=pending.command.session_id,
        number=pending.command.number,
        command_kind=pending.command.KIND,
        command_offset=pending.offset,
        recorded_at=Micros(0),
        prev_hash=GENESIS_HASH,
        critical=False,
        events=(event,),
        contents=(),
    )


def claim(epoch: Epoch, leader_id: LeaderId) -> LeaderClaimed:
    """A claim."""
    return LeaderClaimed(
        log_id=LOG_ID, epoch=epoch, leader_id=leader_id, commands_log_id=LOG_ID, claimed_at=Micros(0), build=""
    )


def fresh_leader_id(coordinator: int, count: int) -> LeaderId:
    """An id that was never used: the `count`-th, which also tells whose it is."""
    return LeaderId(bytes([coordinator]) + count.to_bytes(15, "big"))


def describe(record: LoggedRecord) -> str:
    """A record in a history."""
    if isinstance(record, DecisionRecord):
        return f"the decision on {decided_by(record)}"
    kind = "claim" if isinstance(record, LeaderClaimed) else "resignation"
    return f"{LETTERS[record.leader_id[0]]}'s {kind} of epoch {record.epoch}"


class Failed(ForwardToTopic):
    """An effect that no loop may have: tell the clients of these commands that they failed."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules that are explored: the product, or the product with one rule weakened."""

    loop: type[LeadershipLoop] = LeadershipLoop
    admit: Admit = admit
    plan: Plan = plan
    resolves: Callable[[Verdict], bool] = lambda verdict: verdict is Verdict.ADMITTED
    """True if a client that reads its command's decision, with this verdict, takes it for the answer."""
    forgetful: bool = False
    """True if sessions are forgotten when leadership moves."""
    seeks_at_once: bool = True
    """True if a leader is given no command of the topic before its seek is done."""
    expulsion_is_told: bool = True
    """True if a coordinator whose proof of membership fails is told, in the end, that it lost the shard."""


REAL: Final = Rules()


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A record that some coordinator has still to read."""

    record: LoggedRecord
    verdict: Verdict
    after: View


@dataclasses.dataclass(frozen=True, slots=True)
class Flight:
    """Records on their way to the log, in order."""

    owner: int
    """The coordinator whose producer still waits for them; none where it was destroyed: then they are late."""
    records: tuple[LoggedRecord, ...]
