"""What a shard needs of its surroundings, whom it tells, and what it counts.

Guarantees: nothing; these are the seams between a shard, the node it is part of, and the client that listens to it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Protocol

from ccs_stream.coordinator.batch import PlannedDecision
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.leadership import QueuedCommand
from ccs_stream.protocol.records import DecisionRecord


class ShardHost(Protocol):
    """What a shard needs done."""

    def prove_membership(self, partition: int) -> None:
        """Commit an offset synchronously, then say `membership_proved`."""

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        """Take commands from `offset` of the partition of the commands topic on, then say `sought(term)`."""

    def forward(self, batch: Iterable[QueuedCommand]) -> None:
        """Put these commands into the commands topic."""

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        """The broker lets this process append nothing there: it is to leave the group."""


Contents = Callable[[], tuple[bytes, ...]]
"""The bodies that came with a decision, for whoever wants them: of what is read when catching up, nobody does."""


class DecisionListener(Protocol):
    """Whoever waits for decisions of one workspace, in this process. Called under the shard's lock."""

    workspace: str

    def decided(  # what is known of a decision
        self, record: DecisionRecord, events: list[Event], offset: int, digest: Hash, contents: Contents
    ) -> None:
        """A decision of the workspace was admitted and folded."""

    def settled(self, pending: QueuedCommand, planned: PlannedDecision) -> None:
        """A command that was handed over directly needed no decision; what it rested on is in the log now."""


@dataclasses.dataclass(slots=True)
class ShardCounts:
    """What a shard has seen since this process began to follow it."""

    decisions: int = 0
    events: int = 0
    claims: int = 0
    led: int = 0
    """How often this process came to lead it."""
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Commands that were not decided, by reason."""
    void: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    seconds_to_lead: float = 0.0
    """From the last assignment to the claim read back."""
