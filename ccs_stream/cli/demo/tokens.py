"""The cost of the agents' reads in tokens, next to the cost if every read moved the whole value.

Guarantees: a read that the log shows as a grant counts the whole value; any other read counts one token, for "still the
same"; each copy that a write made stale counts a signal. Does not: know a model's tokenizer; four bytes of compact JSON
count as one token.
"""

import dataclasses
from collections import defaultdict
from typing import Final

from ccs_stream.adapters.langgraph import CoherentItem, CoherentStore
from ccs_stream.adapters.langgraph.identity import GraphContext
from ccs_stream.cli.demo.evidence import Evidence
from ccs_stream.protocol.events import GrantIssued, GrantsInvalidated, WriteCommitted
from ccs_stream.protocol.ids import NOBODY, ArtifactId
from ccs_stream.protocol.states import GrantState

BYTES_PER_TOKEN: Final = 4
"""A rough figure, the same on both sides of the comparison."""
UNCHANGED_TOKENS: Final = 1
"""The cost of a read whose copy is current: the answer is "still the same"."""
SIGNAL_TOKENS: Final = 12
"""The cost of notifying an agent that its copy is stale."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CountedRead:
    """One read that found something."""

    agent: str
    namespace: tuple[str, ...]
    key: str
    version: int


class MeteredStore(CoherentStore):
    """A `CoherentStore` that remembers which agent read what. The log says which of these reads moved a value."""

    def __init__(self, url: str, *, workspace: str) -> None:
        super().__init__(url, workspace=workspace, writes="guarded")
        self.reads: list[CountedRead] = []
        self._who = GraphContext(self.workspace.adapter_port.read_sets)

    def get(self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None) -> CoherentItem | None:
        """As `CoherentStore.get`."""
        found = super().get(namespace, key, refresh_ttl=refresh_ttl)
        if found is not None:
            self.reads.append(CountedRead(agent=self._who.agent(), namespace=namespace, key=key, version=found.version))
        return found


@dataclasses.dataclass(slots=True, kw_only=True)
class ReadCost:
    """The cost of one agent's reads."""

    agent: str
    reads: int = 0
    fetched: int = 0
    """Reads for which the log shows that a copy was handed over."""
    unchanged: int = 0
    """Reads answered from the copy that the agent had."""
    signals: int = 0
    """How often a write of another agent made the agent's copy stale."""
    tokens: int = 0
    tokens_rereading: int = 0
    """The cost of the same reads with the whole value each time."""


def tokens_of(size_bytes: int) -> int:
    """The tokens of so many bytes of compact JSON."""
    return max(1, size_bytes // BYTES_PER_TOKEN)


def count(reads: list[CountedRead], evidence: Evidence) -> list[ReadCost]:
    """The cost of each agent's reads, by name."""
    sizes: dict[tuple[ArtifactId, int], int] = {}
    ids = {(artifact.scope, artifact.key): artifact.artifact for artifact in evidence.state.artifacts.values()}
    found: dict[str, ReadCost] = {}

    def of(agent: str) -> ReadCost:
        return found.setdefault(agent, ReadCost(agent=agent))

    fetched_tokens: dict[str, int] = defaultdict(int)
    for logged in evidence.events:
        event = logged.event
        if isinstance(event, WriteCommitted):
            sizes[event.artifact, event.version] = tokens_of(event.content_size)
        elif isinstance(event, GrantIssued) and event.to_state is not GrantState.INVALID:
            agent = evidence.agent(event.participant)
            of(agent).fetched += 1
            fetched_tokens[agent] += sizes[event.artifact, event.version]
        elif isinstance(event, GrantsInvalidated):
            for holder in (*event.sharers, *([event.owner] if event.owner != NOBODY else [])):
                of(evidence.agent(holder)).signals += 1
    for read in reads:
        of(read.agent).reads += 1
        of(read.agent).tokens_rereading += sizes[ids[read.namespace, read.key], read.version]
    for agent, each in found.items():
        each.unchanged = each.reads - each.fetched
        each.tokens = fetched_tokens[agent] + each.unchanged * UNCHANGED_TOKENS + each.signals * SIGNAL_TOKENS
    return sorted((each for each in found.values() if each.reads), key=lambda each: each.agent)
