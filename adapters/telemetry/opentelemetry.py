"""Metrics and spans of a store's reads and writes, for OpenTelemetry.

Guarantees: the meter, instruments and attributes of agent-coherence 0.6, so that dashboards go on; besides them a span
for each read and write, beneath the span in which it happened and with the times at which it did, and a link from a
read to the write whose version it saw, where that write was made through the same store. Does not: import the SDK, or
choose where any of it goes; that is the providers'. Without providers nothing is recorded, as everywhere in
OpenTelemetry.
"""

import uuid
import weakref
from collections.abc import Iterable
from typing import Final, cast

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, SpanContext, TracerProvider
from opentelemetry.util.types import AttributeValue

from ccs_stream.adapters.telemetry.exporting import Exporter, TelemetryExporter
from ccs_stream.projections.metric_events import Observed, StoreMetricEvent
from ccs_stream.protocol.ids import ArtifactId, Version

SCOPE_NAME: Final = "ccs.adapters.ccsstore"
SCOPE_VERSION: Final = "0.2.0"
"""Name and version of the meter and the tracer: those of agent-coherence 0.6."""

WRITES_MAX: Final = 10_000
"""Latest writes whose spans can be linked to: some 5 MB; the one before is remembered for as long again."""
_SPAN_NAMES: Final = {"search.hit": "ccs.search"}
_NS_PER_US: Final = 1_000

# The SDK keeps the first callback of an observable gauge and ignores those of its later namesakes: all exporters of the
# process share this one.
_DEGRADED: "weakref.WeakSet[OpenTelemetryExporter]" = weakref.WeakSet()

_Made = tuple[str | None, ArtifactId, Version | None]
"""A version of an artifact, in a store."""


class OpenTelemetryExporter(Exporter, TelemetryExporter):
    """See the module's docstring. For several stores at once, if you like."""

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        """The global providers, unless others are given; they may be set later."""
        meter = (meter_provider or metrics).get_meter(SCOPE_NAME, SCOPE_VERSION)
        self._tracer = (tracer_provider or trace).get_tracer(SCOPE_NAME, SCOPE_VERSION)
        self._operations = meter.create_counter(
            "ccs.store.operations", unit="{operation}", description="Reads, writes and search results"
        )
        self._consumed = meter.create_counter(
            "ccs.store.tokens_consumed", unit="{token}", description="Tokens that reads and writes moved"
        )
        self._saved = meter.create_counter(
            "ccs.store.tokens_saved_estimate", unit="{token}", description="Tokens that reads of current copies saved"
        )
        self._hits = meter.create_counter(
            "ccs.store.cache_hits", unit="{operation}", description="Reads of a current copy"
        )
        self._misses = meter.create_counter(
            "ccs.store.cache_misses", unit="{operation}", description="Reads that had to be given the value"
        )
        self._degradations = meter.create_counter(
            "ccs.store.degradation_events", unit="{operation}", description="Calls answered without the log"
        )
        meter.create_observable_gauge(
            "ccs.store.degraded_mode",
            callbacks=[_observe_degraded],
            unit="{bool}",
            description="1 while a store of this process answers without its log, else 0",
        )
        # Two generations, so that forgetting needs no lock, which a fork could leave locked.
        self._writes: dict[_Made, SpanContext] = {}
        self._writes_before: dict[_Made, SpanContext] = {}

    def capture(self) -> Context:
        return context.get_current()

    def on_event(self, event: StoreMetricEvent) -> None:
        """Count an event."""
        attributes: dict[str, AttributeValue] = _attributes(event)
        self._operations.add(1, attributes)
        self._consumed.add(event.tokens_consumed, attributes)
        self._saved.add(event.tokens_saved_estimate, attributes)
        if event.operation == "get":  # both each time, so that a rate of hits can be asked for before the first one
            self._hits.add(int(event.cache_hit), attributes)
            self._misses.add(int(not event.cache_hit), attributes)
        if event.operation == "degraded":
            self._degradations.add(1, attributes)
            self.on_degraded(degraded=True)

    def export(self, observed: Observed, captured: object) -> None:
        self.on_event(observed.event)
        event = observed.event
        made: _Made = (event.instance_id, observed.artifact, observed.version)
        writes = event.operation == "put"
        write = None if writes else self._writes.get(made) or self._writes_before.get(made)
        span = self._tracer.start_span(
            _SPAN_NAMES.get(event.operation, f"ccs.{event.operation}"),
            context=cast("Context | None", captured),
            attributes={**_attributes(event), **_place(observed)},
            links=None if write is None else [Link(write)],
            start_time=observed.began_at * _NS_PER_US,
        )
        span.end(end_time=observed.ended_at * _NS_PER_US)
        if writes and span.get_span_context().is_valid:
            if len(self._writes) >= WRITES_MAX:
                self._writes, self._writes_before = {}, self._writes
            self._writes[made] = span.get_span_context()

    def on_degraded(self, *, degraded: bool) -> None:
        if degraded:
            _DEGRADED.add(self)
        else:
            _DEGRADED.discard(self)

    def close(self) -> None:
        self.on_degraded(degraded=False)


def _attributes(event: StoreMetricEvent) -> dict[str, AttributeValue]:
    return {
        "ccs.operation": event.operation,
        "ccs.agent_name": event.agent_name,
        "ccs.cache_hit": event.cache_hit,
    }


def _place(observed: Observed) -> dict[str, AttributeValue]:
    place: dict[str, AttributeValue] = {
        "ccs.namespace": observed.event.namespace,
        "ccs.key": observed.event.key,
        "ccs.artifact_id": str(uuid.UUID(bytes=observed.artifact)),
        "ccs.sequence": observed.sequence,
    }
    if observed.version is not None:
        place["ccs.version"] = observed.version
    return place


def _observe_degraded(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(int(len(_DEGRADED) > 0))]
