"""Look-ups in the history of a log: the decision, the event or the version at a sequence that the log itself names.

The client (history of an artifact, outbox, tracing), the coordinators (answer to a repeated command) and `ccs-replay`
use it.

Guarantees: the event returned is the one that carries this sequence; a sequence that the log names and does not hold
raises `LogDiverged`. Does not: admit. Callers pass only sequences that an admitted event or the folded state names.
"""

import dataclasses

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.port import LogStore, Position, StoredRecord
from ccs_stream.protocol.errors import LogDiverged
from ccs_stream.protocol.events import ArtifactDeleted, Event, WriteCommitted
from ccs_stream.protocol.ids import Hash, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord


@dataclasses.dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision as it stands in the log."""

    stored: StoredRecord
    record: DecisionRecord

    @property
    def last_sequence(self) -> SequenceNumber:
        """Sequence of its last event."""
        return SequenceNumber(self.record.first_sequence + len(self.record.events) - 1)

    @property
    def hash(self) -> Hash:
        """The chain hash: `prev_hash` of the workspace's next decision."""
        return chain_hash(self.stored.head)

    def event(self, sequence: int) -> Event:
        """The event that carries `sequence`. Raises `CorruptRecord`."""
        return DEFAULT_CODEC.decode_event(self.record.events[sequence - self.record.first_sequence])

    def events(self) -> list[Event]:
        """All its events, in order. Raises `CorruptRecord`."""
        return [DEFAULT_CODEC.decode_event(each) for each in self.record.events]

    def position(self, store: LogStore, shard: str) -> Position:
        """The place in the log behind this decision."""
        return Position(store.log_id, shard, self.stored.offset, self.last_sequence, self.hash)


@dataclasses.dataclass(frozen=True, slots=True)
class LoggedVersion:
    """The event that made one version of an artifact, and the decision that holds the event."""

    decision: LoggedDecision
    sequence: SequenceNumber
    event: WriteCommitted | ArtifactDeleted


def find_decision(store: LogStore, shard: str, sequence: int) -> LoggedDecision | None:
    """The decision that holds `sequence`; None where the log does not hold it (any more). Raises `CorruptRecord`."""
    stored = store.find(shard, sequence)
    if stored is None:
        return None
    record = DEFAULT_CODEC.decode_record(stored.head)[0] if stored.record is None else stored.record
    return LoggedDecision(stored, record) if type(record) is DecisionRecord else None


def decision_at(store: LogStore, shard: str, sequence: int) -> LoggedDecision:
    """The decision that holds `sequence`, which the log or its folded state names. Raises `LogDiverged`."""
    decision = find_decision(store, shard, sequence)
    if decision is None:
        raise LogDiverged(
            f"sequence {sequence} is named by a later event and is not in {store.display_url}: the log was cut or "
            "altered; restore it from a copy"
        )
    return decision


def version_at(store: LogStore, shard: str, sequence: int) -> LoggedVersion:
    """The version that the event at `sequence` made. Raises `LogDiverged` where that event made none."""
    decision = decision_at(store, shard, sequence)
    event = decision.event(sequence)
    if type(event) is not WriteCommitted and type(event) is not ArtifactDeleted:
        raise LogDiverged(f"sequence {sequence} is named as a version and is a {type(event).__name__}")
    return LoggedVersion(decision, SequenceNumber(sequence), event)
