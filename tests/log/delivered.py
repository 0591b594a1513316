"""Deliveries of which golden bytes are kept: one with the least that it can say, one with the most."""

from typing import Final

from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version

DELIVERED: Final = {
    "least": DeliveryRecorded(
        session_id=SessionId(b"s" * 16),
        number=1,
        agent="reviewer",
        artifact=ArtifactId(b"a" * 16),
        version=Version(3),
        content_hash=b"h" * 32,
        source=DeliverySource.CACHE_HIT,
        outcome=DeliveryOutcome.CONTENT,
        freshness=DeliveryFreshness.LATEST,
        valid_at_sequence=SequenceNumber(70_000),
        at=Micros(1_800_000_000_000_000),
    ),
    "most": DeliveryRecorded(
        session_id=SessionId(b"s" * 16),
        number=300,
        agent="prüfer",
        artifact=ArtifactId(b"a" * 16),
        version=Version(0),
        content_hash=b"",
        source=DeliverySource.SEARCH,
        outcome=DeliveryOutcome.ERROR,
        freshness=DeliveryFreshness.STALE,
        valid_at_sequence=SequenceNumber(1),
        at=Micros(1),
        conversation="thread-7",
        generation=2,
        form=DeliveryForm.OWN_WRITE,
        base_version=Version(2),
        tokens=12,
        full_tokens=400,
    ),
}
