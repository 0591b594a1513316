"""Metrics and spans of a store's reads and writes, for OpenTelemetry.

Guarantees: the meter, instruments and attributes of agent-coherence 0.6, so that dashboards go on; besides them a span
for each read and write, beneath the span in which it happened and with the times at which it did, and a link from a
read to the write whose version it saw, on whichever host that was made, where its span was sampled: a write carries the
W3C traceparent of its span on the log. Does not: import the SDK, or choose where any of it goes; that is the
providers'. Without providers nothing is recorded, as everywhere in OpenTelemetry. Trust what is on the log: what is no
traceparent is no link.
"""

import logging
import uuid
import weakref
from collections.abc import Iterable
from typing import ClassVar, Final, cast

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from ccs_stream.client.observers.telemetry import Exporter, TelemetryExporter
from ccs_stream.clock import wall_clock
from ccs_stream.projections.metric_events import ObservedOperation, StoreMetricEvent
from ccs_stream.protocol.ids import ArtifactId, Micros, Version

LOG = logging.getLogger(__name__)

SCOPE_NAME: Final = "ccs.adapters.ccsstore"
SCOPE_VERSION: Final = "0.2.0"
"""Name and version of the meter and the tracer: those of agent-coherence 0.6."""

WRITES_MAX: Final = 10_000
"""Writes whose spans are remembered, so that reads of them need not ask the log: some 5 MB, and twice that at most."""
_WRITE: Final = "ccs.put"
_TRACE_CONTEXT: Final = TraceContextTextMapPropagator()
_SPAN_NAMES: Final = {"search.hit": "ccs.search"}
_NS_PER_US: Final = 1_000

# The SDK keeps the first callback of an observable gauge and ignores those of its later namesakes: all exporters of the
# process share this one.
_DEGRADED: "weakref.WeakSet[OpenTelemetryExporter]" = weakref.WeakSet()

_Made = tuple[str | None, ArtifactId, Version | None]
"""A version of an artifact, in a store."""


class OpenTelemetryExporter(Exporter, TelemetryExporter):
    """Exports to OpenTelemetry. Several stores may share one."""

    links: ClassVar[bool] = True

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        """Use the global providers, which may be set later, unless others are given."""
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
        self._writes: dict[_Made, SpanContext | None] = {}
        self._writes_before: dict[_Made, SpanContext | None] = {}
        self.unlinked = 0
        """Writes that could not be looked up on the log; reads of them have no link."""

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

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> Span:
        attributes: dict[str, AttributeValue] = {
            "ccs.operation": "put",
            "ccs.agent_name": agent,
            "ccs.namespace": namespace,
            "ccs.key": key,
            "ccs.artifact_id": str(uuid.UUID(bytes=artifact)),
        }
        return self._tracer.start_span(_WRITE, attributes=attributes, start_time=wall_clock() * _NS_PER_US)

    def trace_parent_of(self, begun: object) -> str | None:
        found = _followable(begun) if isinstance(begun, Span) else None
        if found is None:
            return None
        return (
            f"00-{trace.format_trace_id(found.trace_id)}-{trace.format_span_id(found.span_id)}-{found.trace_flags:02x}"
        )

    def failed_write(self, begun: object, error: BaseException, failed_at: Micros) -> None:
        if isinstance(begun, Span):
            description = (
                str(error) if isinstance(error, Exception) else "its caller gave up; the log says what came of it"
            )
            begun.set_attribute("error.type", type(error).__name__)
            begun.set_status(Status(StatusCode.ERROR, description))
            begun.end(end_time=failed_at * _NS_PER_US)

    def export(self, observed: ObservedOperation, captured: object) -> None:
        self.on_event(observed.event)
        event = observed.event
        made: _Made = (event.instance_id, observed.artifact, observed.version)
        name = _SPAN_NAMES.get(event.operation, f"ccs.{event.operation}")
        attributes = {**_attributes(event), **_place(observed)}
        if isinstance(captured, Span):
            span = captured
            span.set_attributes(attributes)
            if name != _WRITE:
                span.update_name(name)
        else:
            write = None if event.operation == "put" else self._write_of(made, observed)
            span = self._tracer.start_span(
                name,
                context=cast("Context | None", captured),
                attributes=attributes,
                links=None if write is None else [Link(write)],
                start_time=observed.began_at * _NS_PER_US,
            )
        if event.operation == "put" and (followable := _followable(span)) is not None:
            self._remember(made, followable)
        span.end(end_time=observed.ended_at * _NS_PER_US)

    def _write_of(self, made: _Made, observed: ObservedOperation) -> SpanContext | None:
        """The span of the write whose version was read. The log is asked once."""
        for known in (self._writes, self._writes_before):
            if made in known:
                return known[made]
        if observed.written_by is None:
            return None
        found: SpanContext | None = None
        try:
            found = _parsed(observed.written_by())
        except Exception:
            self.unlinked += 1
            if self.unlinked == 1:
                LOG.exception("a write could not be looked up: reads of it have no link. Later ones are counted")
        self._remember(made, found)
        return found

    def _remember(self, made: _Made, write: SpanContext | None) -> None:
        if len(self._writes) >= WRITES_MAX:
            self._writes, self._writes_before = {}, self._writes
        self._writes[made] = write

    def on_degraded(self, *, degraded: bool) -> None:
        if degraded:
            _DEGRADED.add(self)
        else:
            _DEGRADED.discard(self)

    def close(self) -> None:
        self.on_degraded(degraded=False)


def _followable(span: Span) -> SpanContext | None:
    """A span that a link may lead to: one of this tracer, before its end, that will be sent."""
    found = span.get_span_context()
    return found if span.is_recording() and found.is_valid and found.trace_flags.sampled else None


def _parsed(trace_parent: str | None) -> SpanContext | None:
    """The span that a traceparent names; None for what is none."""
    if trace_parent is None:
        return None
    extracted = _TRACE_CONTEXT.extract({"traceparent": trace_parent}, Context())
    found = trace.get_current_span(extracted).get_span_context()
    return found if found.is_valid else None


def _attributes(event: StoreMetricEvent) -> dict[str, AttributeValue]:
    return {
        "ccs.operation": event.operation,
        "ccs.agent_name": event.agent_name,
        "ccs.cache_hit": event.cache_hit,
    }


def _place(observed: ObservedOperation) -> dict[str, AttributeValue]:
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
