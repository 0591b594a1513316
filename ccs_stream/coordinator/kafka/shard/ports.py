"""The seams of a shard: its host, the listeners to its decisions, and its counters."""

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
    """The process that a shard is in: what only that can do."""

    def prove_membership(self, partition: int) -> None:
        """Commit an offset synchronously, then call `on_membership_proved`."""

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        """Take commands from `offset` of the partition of the commands topic on, then call `on_seek_done(term)`."""

    def forward(self, batch: Iterable[QueuedCommand]) -> None:
        """Put these commands into the commands topic."""

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        """The broker lets this process append nothing to the partition: leave the group."""


Contents = Callable[[], tuple[bytes, ...]]
"""Returns the bodies that came with a decision: most decisions are read without a need for them."""


class DecisionListener(Protocol):
    """Listens to the decisions of one workspace. Called under the shard's lock; must not block."""

    workspace: str

    def on_decision(  # what is known of a decision
        self, record: DecisionRecord, events: list[Event], offset: int, digest: Hash, contents: Contents
    ) -> None:
        """A decision of the workspace was admitted and folded."""

    def on_no_decision(self, queued: QueuedCommand, planned: PlannedDecision) -> None:
        """A command that was handed over directly needed no decision: the folded state answers it."""


@dataclasses.dataclass(slots=True)
class ShardCounts:
    """Counters of a shard since this process began to follow it."""

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
