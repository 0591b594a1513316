"""The epochs of a shard (who led it and when), and its void records, summed up from claims and resignations.

`info` and `verify` use it.

Guarantees: the summary follows from the records alone; `LeadershipChecks` checks them without the code that admitted
them. Does not: apply to a log that serialises its writers itself, which has no claims.
"""

import collections
import dataclasses
from typing import Any

from ccs_stream.log.reader import LogEntry
from ccs_stream.projections.invariants import FindingKind, Invariants
from ccs_stream.protocol.admit import Cursor, Verdict
from ccs_stream.protocol.ids import LeaderId
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned, LogTruncated
from ccs_stream.replay.event_text import short_id
from ccs_stream.replay.output import format_time


@dataclasses.dataclass(slots=True)
class Epoch:
    """The time of one leader."""

    claim: LeaderClaimed
    decisions: int = 0
    """Decisions of the workspace."""
    shard_decisions: int = 0
    """Decisions of all workspaces of the shard."""
    resigned: bool = False

    def described(self) -> dict[str, Any]:
        """The epoch for programs."""
        return {
            "epoch": self.claim.epoch,
            "leader_id": self.claim.leader_id.hex(),
            "build": self.claim.build,
            "claimed_at": format_time(self.claim.claimed_at),
            "decisions": self.decisions,
            "shard_decisions": self.shard_decisions,
            "resigned": self.resigned,
        }

    def row(self) -> tuple[object, ...]:
        """The epoch for people, in the order of `COLUMNS`."""
        resigned = "yes" if self.resigned else ""
        leader, at = short_id(self.claim.leader_id), format_time(self.claim.claimed_at)
        return (self.claim.epoch, leader, self.claim.build, at, self.decisions, self.shard_decisions, resigned)


COLUMNS = ("epoch", "leader", "build", "claimed at", "decisions", "of the shard", "resigned")


class EpochHistory:
    """Collects the epochs while a log is read: give `take` every entry, and call `end` after the last."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self.void: collections.Counter[str] = collections.Counter()
        """How many records of the shard were void, by verdict."""
        self._claimed_at = 0
        """How many records of the shard had been admitted when the last claim was read."""

    def take(self, entry: LogEntry, cursor: Cursor) -> None:
        """Take the next entry; `cursor` is that of the reader, after it has read the entry."""
        record = entry.record
        if entry.verdict is not Verdict.ADMITTED:
            self.void[entry.verdict.value] += 1
        elif isinstance(record, LeaderClaimed):
            self._close(cursor.admitted - 1)
            self.epochs.append(Epoch(record))
            self._claimed_at = cursor.admitted
        elif self.epochs and isinstance(record, LeaderResigned):
            self.epochs[-1].resigned = True
        elif self.epochs and isinstance(record, DecisionRecord):
            self.epochs[-1].decisions += 1

    def end(self, cursor: Cursor) -> None:
        """Every entry was taken."""
        self._close(cursor.admitted)

    def _close(self, admitted: int) -> None:
        if self.epochs:
            last = self.epochs[-1]
            # Decisions of other workspaces are not yielded; what is admitted and no decision is.
            last.shard_decisions = admitted - self._claimed_at - last.resigned


class LeadershipChecks:
    """Checks that one leader writes in each epoch, and that no sequence and no epoch is left out."""

    def __init__(self, found: Invariants, *, claimed: bool) -> None:
        """With `claimed`, a decision before the first claim is a finding."""
        self._found = found
        self._claimed = claimed
        self._epoch = 0
        self._leader: LeaderId | None = None
        self._leaders: dict[LeaderId, int] = {}
        self._resigned = False
        self._index = 0
        self._sequence = 0

    def take(self, entry: LogEntry) -> None:
        """Take the next admitted entry."""
        record = entry.record
        match record:
            case LeaderClaimed():
                self._claim(record)
            case LeaderResigned():
                if (record.epoch, record.leader_id) != (self._epoch, self._leader) or self._resigned:
                    self._wrong(f"offset {entry.offset}: {short_id(record.leader_id)} resigns and does not lead")
                self._resigned = True
            case DecisionRecord():
                self._decision(record)
            case LogTruncated():
                self._index, self._sequence = record.base_index, record.base_sequence
            case _:
                pass

    def _claim(self, record: LeaderClaimed) -> None:
        if record.epoch != self._epoch + 1:
            self._wrong(f"epoch {record.epoch} follows epoch {self._epoch}")
        former = self._leaders.setdefault(record.leader_id, record.epoch)
        if former != record.epoch:
            self._wrong(f"epoch {record.epoch} is led by {short_id(record.leader_id)}, who led epoch {former}")
        self._epoch, self._leader = record.epoch, record.leader_id
        self._resigned, self._index = False, 0

    def _decision(self, record: DecisionRecord) -> None:
        if self._leader is None:
            if self._claimed:
                self._wrong("a decision of nobody: no claim precedes it")
        elif record.leader_id != self._leader or record.epoch != self._epoch:
            who = f"{short_id(record.leader_id)} of epoch {record.epoch}"
            self._wrong(f"a decision of {who} in epoch {self._epoch}, which {short_id(self._leader)} leads")
        elif self._resigned:
            self._wrong(f"a decision of {short_id(self._leader)} after it resigned")
        if record.index <= self._index:
            self._wrong(f"decision {record.index} of epoch {record.epoch} follows decision {self._index}")
        if record.first_sequence != self._sequence + 1:
            detail = f"sequence {record.first_sequence} follows sequence {self._sequence}"
            self._found.find(FindingKind.HASH_CHAIN, detail, record.first_sequence)
        self._index = record.index
        self._sequence = record.first_sequence + len(record.events) - 1

    def _wrong(self, detail: str) -> None:
        self._found.find(FindingKind.SINGLE_WRITER, detail)
