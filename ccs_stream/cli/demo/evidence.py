"""The log of the demo, read independently: everything that the demo says about what happened comes from here.

Guarantees: the log is read from its first record, read-only, without snapshots and without anything that the run
remembers; the hash chain and every invariant of `ccs-replay verify` are checked on the way. Does not: look into
contents.
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
    """One event and its place in the log."""

    sequence: int
    decision: int
    """The last sequence of its decision, which its author got as the answer."""
    event: Event


@dataclasses.dataclass(slots=True)
class Evidence:
    """One workspace of a log, folded from its first record."""

    workspace: str
    state: Directory
    events: list[LoggedEvent]
    invariants: Invariants
    records: int
    void: int

    @classmethod
    def read(cls, url: str, workspace: str) -> Self:
        """Read the log. Raises the `LogError`s of a damaged log."""
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
        """True if the sequences are 1, 2, 3, … without a gap, and no record is void."""
        return not self.void and [each.sequence for each in self.events] == list(range(1, len(self.events) + 1))

    def state_hash(self) -> str:
        """The hash of the folded state."""
        return state_hash(self.state)

    def agent(self, participant: ParticipantNumber) -> str:
        """The agent's name of a participant."""
        return self.state.agents.get(participant, "")

    def name(self, artifact: ArtifactId) -> tuple[Scope, str]:
        """The scope and key of an artifact."""
        known = self.state.artifacts[artifact]
        return known.scope, known.key

    def writes(self, scope: Scope) -> list[tuple[LoggedEvent, WriteCommitted]]:
        """All writes under a scope, in order."""
        return [
            (each, each.event)
            for each in self.events
            if isinstance(each.event, WriteCommitted) and self.name(each.event.artifact)[0] == scope
        ]
