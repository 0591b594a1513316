"""The last step of every read and write: the comparand, the copy, the delivery, and the observer.

The reader, the writer, the search and degraded mode call `DeliveryRecorder` when a value goes to an agent.

Guarantees: a read is finished in one place, whatever path it took, so that no path forgets a step. Does not: wait for
the sink or the observer.
"""

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.copy_tracker import CopyTracker
from ccs_stream.client.cache.delivery import DeliverySink, ReadCall, ReadObserver
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_set import ReadSet
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
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import ArtifactId, SequenceNumber, SessionId, Version

_HIT = DeliverySource.CACHE_HIT


class DeliveryRecorder:
    """Finishes the reads and writes of one workspace; the engine holds it."""

    def __init__(
        self, coordinator: Coordinator, copies: CopyTracker, freshness: Freshness, session_id: SessionId
    ) -> None:
        self._session_id = session_id
        self._copies = copies
        self._sink: DeliverySink | None = None
        self.observer: ReadObserver | None = None
        """Called with every value that a call reads, where there is one."""
        self.observed = False
        """True if there is a sink or an observer. Without them, a hit needs `read_set.record` and nothing else."""
        self._coordinator = coordinator
        self._state = coordinator.state
        self._default_freshness = DeliveryFreshness(freshness.value)

    def use_session(self, session_id: SessionId) -> None:
        """Record deliveries under another session, because the log has ended the one before."""
        self._session_id = session_id

    def connect(self, *, sink: DeliverySink | None = None, observer: ReadObserver | None = None) -> None:
        """Pass every delivery to `sink`, and every value read to `observer`, from now on."""
        self._sink, self.observer = sink, observer
        self.observed = sink is not None or observer is not None

    def begin(self, call: ReadCall) -> ReadCall:
        """Note the time at which a call begins, where an observer wants to know."""
        if self.observer is not None:
            call.began_at = self.observer.now()
        return call

    def finish_read(  # a hit pays for an object, and for each keyword
        self,
        agent: str | None,
        read_set: ReadSet,
        artifact: ArtifactId,
        content: CachedContent,
        sequence: SequenceNumber,
        call: ReadCall | None = None,
        source: DeliverySource = _HIT,
        version: Version | None = None,
    ) -> None:
        """Hand `content` to `agent`, in the flow of `read_set`. It was current at `sequence`, or is newer.

        Without a `call` the observer does not hear of it, and the delivery has the default freshness. `version` is the
        version that the flow has read by that, where it is higher than the content's own.
        """
        read_set.record(artifact, content.version if version is None else version)
        if agent is None:
            return
        if self._copies.active and source is not DeliverySource.SEARCH:
            self._note_copy(agent, artifact, source)
        if self._sink is not None:
            # A search names the sequence that it stands at; a copy may have been read after the look at the sequence.
            valid_at = sequence if source is DeliverySource.SEARCH else max(sequence, content.sequence)
            self._sink(
                (
                    self._session_id,
                    agent,
                    artifact,
                    content.version,
                    content.content_hash,
                    source,
                    self._freshness(None if call is None else call.freshness),
                    valid_at,
                    self._coordinator.now(),
                    read_set.context,
                )
            )
        if call is not None and self.observer is not None:
            self.observe(call, self._state.artifacts[artifact], content, sequence, hit=source is _HIT)

    def observe(
        self, call: ReadCall, state: ArtifactState, content: CachedContent, sequence: SequenceNumber, *, hit: bool
    ) -> None:
        """Pass a value that the call's agent got to the observer only."""
        observer, agent = self.observer, call.agent
        if observer is not None and agent is not None and call.operation is not None:
            scope = state.scope
            address = (scope if call.namespace is None else call.namespace, scope, state.key)
            observer.read(call, agent, address, state.artifact, content, sequence, hit=hit)

    def finish_empty_read(
        self,
        call: ReadCall,
        artifact: ArtifactId,
        version: Version,
        sequence: SequenceNumber,
        *,
        outcome: DeliveryOutcome = DeliveryOutcome.EMPTY,
        read: Version | None = None,
    ) -> None:
        """Finish a read that found nothing at `sequence`, or (`ERROR`) whose content is gone.

        `version` is 0 where the artifact never existed, else that of its tombstone. `read` is the version that the
        flow has read by that, where it is another.
        """
        call.read_set.record(artifact, version if read is None else read)
        if self._sink is None or call.agent is None:
            return
        conversation, generation = call.read_set.context or (None, None)
        self._sink(
            DeliveryRecorded(
                session_id=self._session_id,
                number=0,
                agent=call.agent,
                artifact=artifact,
                version=version,
                content_hash=b"",
                source=DeliverySource.FETCH,
                outcome=outcome,
                freshness=self._freshness(call.freshness),
                valid_at_sequence=sequence,
                at=self._coordinator.now(),
                conversation=conversation,
                generation=generation,
            )
        )

    def finish_write(self, agent: str, change: ArtifactChange, written: Written, read_set: ReadSet) -> None:
        """Give the author of a committed write its copy, and record the delivery."""
        if type(change) is not Write or written.version is None:
            return
        artifact = change.artifact
        if self._copies.active:
            self._copies.fetched(agent, artifact, change.scope, change.key)
        if self._sink is not None:
            conversation, generation = read_set.context or (None, None)
            self._sink(
                DeliveryRecorded(
                    session_id=self._session_id,
                    number=0,
                    agent=agent,
                    artifact=artifact,
                    version=written.version,
                    content_hash=change.content.content_hash,
                    source=DeliverySource.WRITE,
                    outcome=DeliveryOutcome.CONTENT,
                    freshness=DeliveryFreshness.OWN_WRITES,
                    valid_at_sequence=written.answer.last_sequence,
                    at=written.answer.recorded_at,
                    conversation=conversation,
                    generation=generation,
                    form=DeliveryForm.OWN_WRITE,
                    base_version=written.base_version,
                )
            )

    def _note_copy(self, agent: str, artifact: ArtifactId, source: DeliverySource) -> None:
        state = self._state.artifacts[artifact]
        if source is _HIT:
            self._copies.served(agent, artifact, state.scope, state.key)
        else:
            self._copies.fetched(agent, artifact, state.scope, state.key)

    def _freshness(self, requested: DeliveryFreshness | None) -> DeliveryFreshness:
        if self._coordinator.stale:
            return DeliveryFreshness.STALE
        return self._default_freshness if requested is None else requested
