"""The records of the log: what frames events, opens shards and claims leadership.

Guarantees: a record can be admitted, counted and chained without knowing the events inside it.
Does not: know bytes; `ccs_stream.log.codec` turns records into Avro and back.
"""

import dataclasses

from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.ids import (
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    LogId,
    Micros,
    SequenceNumber,
    SessionId,
)


@dataclasses.dataclass(slots=True, kw_only=True)
class LogOpened:
    """First record of every shard of a log."""

    log_id: LogId
    shards: int
    partitioner: str
    """How a workspace finds its shard: `workspace` (a shard for each) or `murmur2` (Kafka partitions)."""
    format: int
    opened_at: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class LogTruncated:
    """First record of a shard whose older part was cut off deliberately, below a verified snapshot."""

    log_id: LogId
    workspace: str
    base_sequence: SequenceNumber
    base_index: DecisionIndex
    base_hash: Hash
    """Chain hash at the cut: `prev_hash` of the first decision that is kept."""
    state_hash: str
    truncated_at: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class LeaderClaimed:
    """A coordinator claims to lead a shard for one epoch; admitted only if the epoch is the next one."""

    log_id: LogId
    epoch: Epoch
    leader_id: LeaderId
    commands_log_id: LogId
    claimed_at: Micros
    build: str


@dataclasses.dataclass(slots=True, kw_only=True)
class LeaderResigned:
    """A leader stops leading, so that the next claim need not wait for its session to run out."""

    epoch: Epoch
    leader_id: LeaderId


@dataclasses.dataclass(slots=True, kw_only=True)
class DecisionRecord:
    """The frozen envelope around the events of one command; the Avro record is named `Decision`.

    `contents` is outside the hash: its parts are bound by each event's `content_hash`, so a body can be redacted and
    the chain still verifies.
    """

    workspace: str
    epoch: Epoch
    leader_id: LeaderId
    index: DecisionIndex
    first_sequence: SequenceNumber
    session_id: SessionId
    number: CommandNumber
    command_kind: CommandKind
    command_offset: int | None
    recorded_at: Micros
    prev_hash: Hash
    critical: bool
    """True if a reader that does not know one of the events must stop."""
    events: tuple[bytes, ...]
    """Each event is a single-object-encoded Avro record of its own."""
    contents: tuple[bytes, ...] = ()
    """Inline bodies; empty in a record that was read without them."""


Record = LogOpened | LogTruncated | LeaderClaimed | LeaderResigned | DecisionRecord


@dataclasses.dataclass(slots=True, kw_only=True)
class ForeignRecord:
    """Bytes in a shard that are not a record: void for every reader, because all readers judge the same bytes."""

    size: int
    why: str
