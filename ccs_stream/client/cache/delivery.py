"""Deliveries in memory: the call that reads, and the record of which agent got which version.

The reader makes a `ReadCall` for each call that reads. `DeliveryRecorder` passes a `PendingDelivery` for each value
handed out to a `DeliverySink`, and tells a `ReadObserver` of it.

Guarantees: a delivery of a whole value is one tuple, because cache hits are nearly all there is. Does not: number
deliveries; the stream that stores them does.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.read_set import ModelContext, ReadSet
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope, SequenceNumber, SessionId, Version

NO_TIME: Micros = Micros(0)
"""The beginning of a call that no observer times."""
HitTuple = tuple[
    SessionId,
    str,
    ArtifactId,
    Version,
    bytes,
    DeliverySource,
    DeliveryFreshness,
    SequenceNumber,
    Micros,
    ModelContext | None,
]
"""A delivery of a whole value, as cheap to make as can be: session, agent, artifact, version, content hash, source,
freshness, sequence, time, model context."""
PendingDelivery = HitTuple | DeliveryRecorded
"""A delivery on its way to the stream; it has no number yet."""
DeliverySink = Callable[[PendingDelivery], None]
"""Takes each delivery; must not wait."""
Address = tuple[tuple[str, ...], Scope, str]
"""The address of an operation: the namespace in the framework's own terms, the scope, the key."""


@dataclasses.dataclass(slots=True)
class ReadCall:
    """One call that reads: the agent, its flow, and the names under which observers hear of it."""

    agent: str | None
    """None where the values go to no agent; then nothing is delivered."""
    read_set: ReadSet
    namespace: tuple[str, ...] | None = None
    """The framework's own name of the scope; None for the scope itself."""
    operation: str | None = "get"
    """The name of the operation in metric events; None: observers do not hear of it."""
    freshness: DeliveryFreshness | None = None
    """The freshness that the caller wants; None for the workspace's default."""
    tick: int = 0
    """Number of the call."""
    began_at: Micros = NO_TIME


class ReadObserver(Protocol):
    """Called with each value that a call hands out. Its methods must neither wait nor raise."""

    def now(self) -> Micros:
        """The time, where the observer wants to know how long calls take; else 0."""

    def read(
        self,
        call: ReadCall,
        agent: str,
        address: Address,
        artifact: ArtifactId,
        content: CachedContent,
        sequence: SequenceNumber,
        *,
        hit: bool,
    ) -> None:
        """`agent` got `content`, which was current at `sequence`. `hit`: it held a current copy already."""


def to_record(delivery: PendingDelivery) -> DeliveryRecorded:
    """The record of a delivery, still without a number."""
    if type(delivery) is DeliveryRecorded:
        return delivery
    session_id, agent, artifact, version, content_hash, source, freshness, sequence, at, context = delivery  # type: ignore[misc]
    conversation, generation = (None, None) if context is None else context
    return DeliveryRecorded(
        session_id=session_id,
        number=0,
        agent=agent,
        artifact=artifact,
        version=version,
        content_hash=content_hash,
        source=source,
        outcome=DeliveryOutcome.CONTENT,
        freshness=freshness,
        valid_at_sequence=sequence,
        at=at,
        conversation=conversation,
        generation=generation,
        form=DeliveryForm.FULL,
    )
