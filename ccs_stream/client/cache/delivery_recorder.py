"""What agents are given: which copies may be served as they are, and the record of every delivery.

Guarantees: a copy that its strategy calls used up is not served; every reading, search result and write is told of as a
delivery, where somebody wants to know, with the sequence at which it was so. Does not: wait for whoever is told.
"""

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.copy_tracker import CopyTracker, StrategyRules, parse_rules
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.observers.delivery_log import Give
from ccs_stream.client.operations.client_session import ClientSession
from ccs_stream.client.results import Written
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.commands import ArtifactChange, Write
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.ids import ArtifactId, SequenceNumber, Version

_HIT = DeliverySource.CACHE_HIT


class DeliveryRecorder:
    """One for an engine."""

    def __init__(
        self, coordinator: Coordinator, session: ClientSession, freshness: Freshness, rules: StrategyRules | None
    ) -> None:
        self.copies = CopyTracker(parse_rules(None) if rules is None else rules, coordinator.now)
        self.give: Give | None = None
        """Told of every delivery, where somebody wants to know."""
        self.session = session
        """The one under way; the engine replaces it."""
        self._coordinator = coordinator
        self._state = coordinator.state
        self._default_freshness = DeliveryFreshness(freshness.value)

    def delivered(
        self,
        agent: str,
        artifact: ArtifactId,
        body: CachedContent,
        sequence: SequenceNumber,
        scope: ReadSet,
        *,
        source: DeliverySource = _HIT,
        freshness: DeliveryFreshness | None = None,
    ) -> None:
        """`agent` was given this body, which was current at `sequence`, or is newer."""
        if self.copies.active:
            state = self._state.artifacts[artifact]
            if source is _HIT:
                self.copies.served(agent, artifact, state.scope, state.key)
            else:
                self.copies.fetched(agent, artifact, state.scope, state.key)
        if self.give is not None:
            self.give(
                (
                    self.session.session_id,
                    agent,
                    artifact,
                    body.version,
                    body.content_hash,
                    source,
                    self._freshness(freshness),
                    max(sequence, body.sequence),
                    self._coordinator.now(),
                    scope.context,
                )
            )

    def found(
        self, agent: str, artifact: ArtifactId, body: CachedContent, sequence: SequenceNumber, scope: ReadSet
    ) -> None:
        """`agent` was shown this body by a search, which takes no copy."""
        if self.give is not None:
            self.give(
                (
                    self.session.session_id,
                    agent,
                    artifact,
                    body.version,
                    body.content_hash,
                    DeliverySource.SEARCH,
                    self._freshness(None),
                    sequence,
                    self._coordinator.now(),
                    scope.context,
                )
            )

    def found_nothing(
        self,
        agent: str,
        artifact: ArtifactId,
        version: Version,
        sequence: SequenceNumber,
        scope: ReadSet,
        *,
        outcome: DeliveryOutcome = DeliveryOutcome.EMPTY,
        freshness: DeliveryFreshness | None = None,
    ) -> None:
        """`agent` was told that there is nothing at `sequence`, or (`error`) that the body is gone."""
        if self.give is None:
            return
        conversation, generation = scope.context or (None, None)
        self.give(
            DeliveryRecorded(
                session_id=self.session.session_id,
                number=0,
                agent=agent,
                artifact=artifact,
                version=version,
                content_hash=b"",
                source=DeliverySource.FETCH,
                outcome=outcome,
                freshness=self._freshness(freshness),
                valid_at_sequence=sequence,
                at=self._coordinator.now(),
                conversation=conversation,
                generation=generation,
            )
        )

    def wrote(self, agent: str, change: ArtifactChange, written: Written, scope: ReadSet) -> None:
        """`agent` has what it wrote: a copy, and a delivery."""
        if type(change) is not Write or written.version is None:
            return
        artifact = change.artifact
        if self.copies.active:
            self.copies.fetched(agent, artifact, change.scope, change.key)
        if self.give is not None:
            conversation, generation = scope.context or (None, None)
            self.give(
                DeliveryRecorded(
                    session_id=self.session.session_id,
                    number=0,
                    agent=agent,
                    artifact=artifact,
                    version=written.version,
                    content_hash=change.content.content_hash,
                    source=DeliverySource.WRITE,
                    outcome=DeliveryOutcome.CONTENT,
                    freshness=DeliveryFreshness.OWN_WRITES,
                    valid_at_sequence=written.answer.last_sequence,
                    at=self._coordinator.now(),
                    conversation=conversation,
                    generation=generation,
                    form=DeliveryForm.OWN_WRITE,
                    base_version=written.base_version,
                )
            )

    def _freshness(self, asked: DeliveryFreshness | None) -> DeliveryFreshness:
        if self._coordinator.stale:
            return DeliveryFreshness.STALE
        return self._default_freshness if asked is None else asked
