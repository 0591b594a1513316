"""Deliveries: which agent was given which version of which artifact, when, and from where. The stream beside the log.

The client records them. Guarantees: field names and order are those of the schema in `schemas/deliveries` (tested).
They are evidence and not state: nothing is decided by them. Does not: say what a model did with the content.
"""

import dataclasses
import enum

from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version


class DeliverySource(enum.StrEnum):
    """The source of the content."""

    CACHE_HIT = "cache_hit"
    """The agent's copy, which was current."""
    FETCH = "fetch"
    """The log: the agent held no copy, or its copy might not be served any more."""
    BROADCAST = "broadcast"
    """Pushed, because another agent had written."""
    WRITE = "write"
    """The agent wrote it itself."""
    SEARCH = "search"
    """A search found it."""


class DeliveryOutcome(enum.StrEnum):
    """The result of a read or search."""

    CONTENT = "content"
    EMPTY = "empty"
    """The artifact does not exist: it never did, or not any more."""
    ERROR = "error"
    """The body is gone."""


class DeliveryFreshness(enum.StrEnum):
    """The freshness that the reader asked for."""

    LATEST = "latest"
    OWN_WRITES = "own_writes"
    LOCAL = "local"
    AT_LEAST = "at_least"
    STALE = "stale"
    """The log could not be reached, so the copy may be older than asked for."""


class DeliveryForm(enum.StrEnum):
    """The form in which the content was given."""

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
    """Where the artifact does not exist, the version of its tombstone, or 0."""
    content_hash: bytes
    """SHA-256 of the body; empty where there was none."""
    source: DeliverySource
    outcome: DeliveryOutcome
    freshness: DeliveryFreshness
    valid_at_sequence: SequenceNumber
    """The log sequence at which this version was the current one."""
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
