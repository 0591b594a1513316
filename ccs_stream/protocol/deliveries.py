"""Deliveries: who was given which version of what, when, and from where. The second stream, beside the log.

Guarantees: field names and order are those of the schema in `schemas/deliveries` (tested). Evidence, not state: nothing
is decided by it. Does not: say what a model did with what it was given.
"""

import dataclasses
import enum

from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version


class DeliverySource(enum.StrEnum):
    """Where what was given came from."""

    CACHE_HIT = "cache_hit"
    """The agent's copy, which was current."""
    FETCH = "fetch"
    """The log: the agent held no copy, or one that it might not be served any more."""
    BROADCAST = "broadcast"
    """Pushed, because another agent had written."""
    WRITE = "write"
    """The agent wrote it itself."""
    SEARCH = "search"
    """A search found it."""


class DeliveryOutcome(enum.StrEnum):
    """What came of it."""

    CONTENT = "content"
    EMPTY = "empty"
    """There is nothing: never was, or not any more."""
    ERROR = "error"
    """The body is gone."""


class DeliveryFreshness(enum.StrEnum):
    """What the reader asked for."""

    LATEST = "latest"
    OWN_WRITES = "own_writes"
    LOCAL = "local"
    AT_LEAST = "at_least"
    STALE = "stale"
    """The log could not be asked."""


class DeliveryForm(enum.StrEnum):
    """What was handed over."""

    FULL = "full"
    DELTA = "delta"
    UNCHANGED = "unchanged"
    OWN_WRITE = "own_write"


@dataclasses.dataclass(slots=True, kw_only=True)
class DeliveryRecorded:
    """One delivery. `number` runs from 1 without gaps in its session, so that a loss shows."""

    session_id: SessionId
    number: int
    agent: str
    artifact: ArtifactId
    version: Version
    """Where there is nothing, that of the tombstone, or 0."""
    content_hash: bytes
    """SHA-256 of the body; empty where nothing was given."""
    source: DeliverySource
    outcome: DeliveryOutcome
    freshness: DeliveryFreshness
    valid_at_sequence: SequenceNumber
    """The log sequence at which it was so."""
    at: Micros
    """By the clock of the reader."""
    conversation: str | None = None
    """The model context that received it, where the caller knows."""
    generation: int | None = None
    """Rises when that context is summarised, trimmed or begun anew."""
    form: DeliveryForm | None = None
    base_version: Version | None = None
    tokens: int | None = None
    full_tokens: int | None = None
