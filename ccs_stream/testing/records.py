"""Valid records for tests that need a log and no coordinator.

Guarantees: the records of a `Chain` continue a log: gap-free, chained, admitted by every reader. Does not: decide; the
test chooses the events.
"""

from collections.abc import Sequence

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head
from ccs_stream.log.port import Draft
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.events import CommandAnswered, Event
from ccs_stream.protocol.ids import (
    GENESIS_HASH,
    NO_LEADER,
    NO_SESSION,
    CommandNumber,
    DecisionIndex,
    Epoch,
    LeaderId,
    Micros,
    SequenceNumber,
    SessionId,
)
from ccs_stream.protocol.records import DecisionRecord

START: Micros = Micros(1_750_000_000_000_000)
"""The time of the first record of a chain. It is fixed, so that golden files do not change."""


class Chain:
    """Makes the decisions of one workspace, one after another."""

    def __init__(self, workspace: str, *, epoch: int = 0, leader_id: LeaderId = NO_LEADER) -> None:
        self.workspace = workspace
        self.epoch = Epoch(epoch)
        self.leader_id = leader_id
        self.index = DecisionIndex(0)
        self.sequence = SequenceNumber(0)
        self.hash = GENESIS_HASH
        self.recorded_at = START

    def draft(
        self,
        events: Sequence[Event] = (),
        *,
        contents: tuple[bytes, ...] = (),
        kind: CommandKind = CommandKind.SWEEP,
        session_id: SessionId = NO_SESSION,
        number: int = 0,
        critical: bool | None = None,
        raw_events: Sequence[bytes] = (),
    ) -> Draft:
        """The next decision. Without events it holds one that changes nothing."""
        chosen = list(events) if events or raw_events else [CommandAnswered(original_sequence=SequenceNumber(0))]
        encoded = (*(DEFAULT_CODEC.encode_event(event) for event in chosen), *raw_events)
        self.index = DecisionIndex(self.index + 1)
        self.recorded_at = Micros(self.recorded_at + 1_000)
        first = SequenceNumber(self.sequence + 1)
        record = DecisionRecord(
            workspace=self.workspace,
            epoch=self.epoch,
            leader_id=self.leader_id,
            index=self.index,
            first_sequence=first,
            session_id=session_id,
            number=CommandNumber(number),
            command_kind=kind,
            command_offset=None,
            recorded_at=self.recorded_at,
            prev_hash=self.hash,
            critical=any(event.CRITICAL for event in chosen) if critical is None else critical,
            events=encoded,
            contents=contents,
        )
        head = encode_head(record)
        self.hash = chain_hash(head)
        self.sequence = SequenceNumber(first + len(encoded) - 1)
        return Draft(head, contents, first, self.sequence)
