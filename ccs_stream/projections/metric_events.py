"""Metric events: one for each read, write and search result, with what exporters of telemetry need besides.

The client's metrics make them. Guarantees: the fields, names and schema of `ccs.metric.v1`, the format of
agent-coherence 0.6. Does not: count tokens; the code that makes an event does.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, Version

SCHEMA_VERSION: Final = "ccs.metric.v1"


@dataclasses.dataclass(frozen=True, slots=True)
class StoreMetricEvent:
    """One read, write or search result, as `on_metric` gets it."""

    operation: str
    """`get`, `put`, `search.hit` or `degraded`."""
    namespace: tuple[str, ...]
    key: str
    agent_name: str
    tokens_consumed: int
    cache_hit: bool
    tick: int
    """Number of the call of the store; a batch is one."""
    tokens_saved_estimate: int = 0
    sequence_number: int | None = None
    """From 1, without gaps, in the order of the calls of this store."""
    instance_id: str | None = None
    """Of this store, as long as it is open."""
    schema_version: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObservedOperation:
    """A metric event and its place in the log, as an exporter of telemetry gets it."""

    event: StoreMetricEvent
    artifact: ArtifactId
    version: Version | None
    """The version read or written; None where there was none."""
    sequence: SequenceNumber
    """Log sequence at which that version was current."""
    began_at: Micros
    """Microseconds since 1970, UTC, by the clock of this process; that of `ended_at` for a hit."""
    ended_at: Micros
    written_by: Callable[[], str | None] | None = None
    """Of a read: looks up in the log the W3C traceparent of the write that made the version. May wait, and raise."""
