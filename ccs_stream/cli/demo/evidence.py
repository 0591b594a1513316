"""The log of the demo, read by itself: everything the demo says about what happened comes from here.

Guarantees: read-only and from the first record, with no snapshot and nothing of what the run remembers; the hash chain
is checked on the way, and every invariant that `ccs-replay verify` checks. Does not: look into bodies.
"""

import dataclasses
from typing import Self

from ccs_stream.log.fold import fold_log
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.projections.invariants import Invariants
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, ParticipantNumber, Scope
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.statehash import state_hash


@dataclasses.dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event and its place."""

    sequence: int
    decision: int
    """The last sequence of its decision, which the author was told."""
    event: Event


@dataclasses.dataclass(slots=True)
class Evidence:
    """One workspace of a log, folded from zero."""

    workspace: str
    state: Directory
    events: list[LoggedEvent]
    invariants: Invariants
    records: int
    void: int

    @classmethod
    def read(cls, url: str, workspace: str) -> Self:
        """Read the log. Raises the `LogError`s of a log that does not hold together."""
        store = open_log(url, create=False, read_only=True)
        try:
            reader, found = ShardReader(store, workspace), cls(workspace, Directory(), [], Invariants(), 0, 0)
            for entry in fold_log(reader, found.state):
                found.records += 1
                found.void += entry.verdict is not Verdict.ADMITTED
                record = entry.record
                if not isinstance(record, DecisionRecord):
                    continue
                found.invariants.decision(record, entry.events)
                last = record.first_sequence + len(entry.events) - 1
                found.events.extend(
                    LoggedEvent(record.first_sequence + number, last, event)
                    for number, event in enumerate(entry.events)
                )
            return found
        finally:
            store.close()

    @property
    def gap_free(self) -> bool:
        """Whether the sequences are 1, 2, 3, … without a gap, and nothing on the log is void."""
        return not self.void and [each.sequence for each in self.events] == list(range(1, len(self.events) + 1))

    def state_hash(self) -> str:
        """Hash of the state as folded here."""
        return state_hash(self.state)

    def agent(self, participant: ParticipantNumber) -> str:
        """The name of a participant."""
        return self.state.agents.get(participant, "")

    def name(self, artifact: ArtifactId) -> tuple[Scope, str]:
        """The address of an artifact."""
        known = self.state.artifacts[artifact]
        return known.scope, known.key

    def writes(self, scope: Scope) -> list[tuple[LoggedEvent, WriteCommitted]]:
        """All writes under a scope, in order."""
        return [
            (each, each.event)
            for each in self.events
            if isinstance(each.event, WriteCommitted) and self.name(each.event.artifact)[0] == scope
        ]
