"""Observed reads and writes, as a store makes them."""

from ccs_stream.projections.metric_events import SCHEMA_VERSION, ObservedOperation, StoreMetricEvent
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, Version, artifact_id

BEGAN_AT = Micros(1_700_000_000_000_000)
TOOK_US = 250
PLAN = artifact_id("default", ("shared",), "plan")


def event(
    operation: str, agent: str = "planner", tokens: int = 2, *, hit: bool = False, saved: int = 0, number: int = 1
) -> StoreMetricEvent:
    """What happened to the plan."""
    return StoreMetricEvent(
        operation=operation,
        namespace=(agent, "shared"),
        key="plan",
        agent_name=agent,
        tokens_consumed=tokens,
        cache_hit=hit,
        tick=number,
        tokens_saved_estimate=saved,
        sequence_number=number,
        instance_id="a store",
        schema_version=SCHEMA_VERSION,
    )


def observed(
    told: StoreMetricEvent,
    *,
    artifact: ArtifactId = PLAN,
    version: int | None = 1,
    sequence: int = 3,
    began_at: int = BEGAN_AT,
) -> ObservedOperation:
    """The same, with its place in the log."""
    return ObservedOperation(
        event=told,
        artifact=artifact,
        version=None if version is None else Version(version),
        sequence=SequenceNumber(sequence),
        began_at=Micros(began_at),
        ended_at=Micros(began_at + TOOK_US),
    )


PUT = event("put")
MISS = event("get", "reviewer", number=2)
HIT = event("get", "reviewer", 1, hit=True, saved=1, number=3)
FOUND = event("search.hit", number=4)
"""A put of 2 tokens, a read of it, another, and a search that finds it."""
