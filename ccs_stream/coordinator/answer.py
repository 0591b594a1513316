"""The answer to a command: the events of its decision, read back from the log, and their place there.

A coordinator makes answers, the client reads them. Guarantees: an answer is made only from records that are in the log.
"""

import dataclasses
from collections.abc import Sequence

from ccs_stream.log.history import decision_at
from ccs_stream.log.port import LogStore, Position
from ccs_stream.protocol.events import CommandRefused, Event
from ccs_stream.protocol.ids import Hash, LogId, Micros, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord


@dataclasses.dataclass(slots=True)
class Answer:
    """The outcome of a command. `events` is empty where it changed nothing."""

    events: Sequence[Event]
    first_sequence: SequenceNumber
    """Sequence of the first event; without events, of the state that answered."""
    last_sequence: SequenceNumber
    recorded_at: Micros
    log_id: LogId
    shard: str
    offset: int
    hash: Hash

    @classmethod
    def of_decision(
        cls, record: DecisionRecord, events: Sequence[Event], log_id: LogId, offset: int, digest: Hash
    ) -> "Answer":
        """The answer from a decision that stands at `offset` of the log; `digest` is its chain hash.

        `events` are those of the record, or none where they only say that the command changed nothing.
        """
        first = record.first_sequence
        last = SequenceNumber(first + len(record.events) - 1)
        return cls(events, first, last, record.recorded_at, log_id, record.workspace, offset, digest)

    @classmethod
    def at(cls, position: Position, recorded_at: Micros) -> "Answer":
        """The answer to a command that changed nothing: it rests on the state folded up to `position`."""
        sequence = position.sequence
        return cls((), sequence, sequence, recorded_at, position.log_id, position.shard, position.offset, position.hash)

    @classmethod
    def to_repeat(cls, store: LogStore, workspace: str, sequence: SequenceNumber) -> "Answer":
        """The answer to a command that was decided before, in the decision that ends at `sequence`: read from the log.

        Raises `LogDiverged` where the log does not hold it.
        """
        decision = decision_at(store, workspace, sequence)
        return cls.of_decision(decision.record, decision.events(), store.log_id, decision.stored.offset, decision.hash)

    @property
    def position(self) -> Position:
        """The end of the decision, for `at_least=`, `watch` and `as_of`."""
        return Position(self.log_id, self.shard, self.offset, self.last_sequence, self.hash)

    @property
    def refusal(self) -> CommandRefused | None:
        """The refusal, if the command was refused."""
        last = self.events[-1] if self.events else None
        return last if type(last) is CommandRefused else None
