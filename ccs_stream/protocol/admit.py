"""The rules that say which records of a log are facts.

`log.reader` applies them to every record it reads. Guarantees: `admit` is one pure function that every reader of a log
shares, so that all readers agree on what happened, whoever wrote to the log and in whatever order the records arrived.
It never looks into events. Does not: repair. A void record is kept, counted and never applied; a break of the hash
chain in an admitted record stops the reader (`LogDiverged`), because it means that two readers no longer read the same
log.

The rules: a claim is admitted iff its epoch is the next one (first in log order wins); a decision is admitted iff its
epoch and leader are the current ones, its index is the epoch's next in this shard, and its first sequence is the
workspace's next. So an epoch ends at its first gap. Where a log serialises its writers itself there are no claims: its
only epoch is 0, led by `NO_LEADER`.
"""

import dataclasses
import enum

from ccs_stream.protocol.ids import (
    GENESIS_HASH,
    NO_LEADER,
    NO_LOG,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    LogId,
    SequenceNumber,
)
from ccs_stream.protocol.records import (
    DecisionRecord,
    LeaderClaimed,
    LeaderResigned,
    LogOpened,
    LogTruncated,
    Record,
)


class Verdict(enum.StrEnum):
    """`ADMITTED`, or why the record is void."""

    ADMITTED = "admitted"
    WRONG_LOG = "wrong_log"
    REOPENED = "reopened"
    EPOCH_NOT_NEXT = "epoch_not_next"
    NOT_LEADER = "not_leader"
    OLD_EPOCH = "old_epoch"
    INDEX_GAP = "index_gap"
    SEQUENCE_GAP = "sequence_gap"
    FOREIGN = "foreign"
    """Bytes that are not a record of a log: something else wrote to the topic."""


@dataclasses.dataclass(slots=True)
class ChainEnd:
    """The end of a workspace: its last admitted sequence and the hash of its last admitted decision."""

    sequence: SequenceNumber = SequenceNumber(0)
    hash: Hash = GENESIS_HASH


@dataclasses.dataclass(slots=True)
class Cursor:
    """The place up to which a reader has admitted one shard, with what the rules need to know of it."""

    log_id: LogId | None = None
    epoch: Epoch = Epoch(0)
    leader_id: LeaderId = NO_LEADER
    index: DecisionIndex = DecisionIndex(0)
    """Index of the epoch's last admitted decision."""
    resigned: bool = False
    admitted: int = 0
    void: int = 0
    workspaces: dict[str, ChainEnd] = dataclasses.field(default_factory=dict)
    midway: bool = False
    """True if reading began in the middle, where the end of only one workspace was known. The end of another one is
    then taken from its first decision met, which the epoch, the leader and the index still have to admit."""
    commands_log_id: LogId = NO_LOG
    """The commands topic that the leader named in its claim."""
    command_offset: int = -1
    """Highest offset of that topic that an admitted decision carries: the next leader goes on behind it."""

    def end(self, workspace: str) -> ChainEnd:
        """The end of `workspace`; its beginning if it has no decision yet."""
        return self.workspaces.get(workspace) or ChainEnd()

    def copy(self) -> "Cursor":
        """A cursor at the same place that moves independently."""
        ends = {name: ChainEnd(end.sequence, end.hash) for name, end in self.workspaces.items()}
        return dataclasses.replace(self, workspaces=ends)


def admit(cursor: Cursor, record: Record) -> Verdict:
    """Judge whether `record` is a fact at the place of `cursor`. Changes nothing; `advance` does. Raises nothing."""
    match record:
        case DecisionRecord():
            return _admit_decision(cursor, record)
        case LeaderClaimed():
            if record.log_id != cursor.log_id:
                return Verdict.WRONG_LOG
            return Verdict.ADMITTED if record.epoch == cursor.epoch + 1 else Verdict.EPOCH_NOT_NEXT
        case LeaderResigned():
            current = record.epoch == cursor.epoch and record.leader_id == cursor.leader_id
            return Verdict.ADMITTED if current and not cursor.resigned else Verdict.NOT_LEADER
        case LogOpened() | LogTruncated():
            return Verdict.ADMITTED if cursor.log_id is None else Verdict.REOPENED


def _admit_decision(cursor: Cursor, record: DecisionRecord) -> Verdict:
    if record.epoch != cursor.epoch:
        return Verdict.OLD_EPOCH
    if record.leader_id != cursor.leader_id or cursor.resigned:
        return Verdict.NOT_LEADER
    if record.index != cursor.index + 1:
        return Verdict.INDEX_GAP
    end = cursor.workspaces.get(record.workspace)
    if record.first_sequence != (1 if end is None else end.sequence + 1) and (end is not None or not cursor.midway):
        return Verdict.SEQUENCE_GAP
    return Verdict.ADMITTED


def advance(cursor: Cursor, record: Record, chain_hash: Hash = GENESIS_HASH) -> None:
    """Move `cursor` over an admitted record.

    `chain_hash` is the SHA-256 of a decision's stored bytes up to `contents`, and is ignored for other records.
    """
    cursor.admitted += 1
    match record:
        case DecisionRecord():
            cursor.index = record.index
            offset = record.command_offset
            if offset is not None and offset > cursor.command_offset:
                cursor.command_offset = offset
            end = cursor.workspaces.get(record.workspace)
            if end is None:
                end = cursor.workspaces[record.workspace] = ChainEnd()
            end.sequence = SequenceNumber(record.first_sequence + len(record.events) - 1)
            end.hash = chain_hash
        case LeaderClaimed():
            cursor.epoch, cursor.leader_id = record.epoch, record.leader_id
            cursor.index, cursor.resigned = DecisionIndex(0), False
            if record.commands_log_id != cursor.commands_log_id:
                # Offsets are those of one topic. From another one, commands are taken from the earliest.
                cursor.commands_log_id, cursor.command_offset = record.commands_log_id, -1
        case LeaderResigned():
            cursor.resigned = True
        case LogOpened():
            cursor.log_id = record.log_id
        case LogTruncated():
            cursor.log_id, cursor.index = record.log_id, record.base_index
            cursor.workspaces[record.workspace] = ChainEnd(record.base_sequence, record.base_hash)


def chain_holds(cursor: Cursor, record: DecisionRecord) -> bool:
    """True if an admitted decision continues the hash chain of its workspace."""
    end = cursor.workspaces.get(record.workspace)
    if end is None:
        return cursor.midway or record.prev_hash == GENESIS_HASH
    return record.prev_hash == end.hash
