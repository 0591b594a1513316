"""The SDK of OpenTelemetry as an application sets it up, with what it has recorded within reach."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanContext

from ccs_stream.adapters.telemetry import OpenTelemetryExporter


class Traced:
    """Providers of the SDK, and what they have recorded."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(sampler)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("an application")

    def exporter(self) -> OpenTelemetryExporter:
        return OpenTelemetryExporter(meter_provider=self.meters, tracer_provider=self.tracers)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._spans.get_finished_spans() if each.name == name]

    def total(self, name: str) -> int:
        data = self.reader.get_metrics_data()
        assert data is not None
        return sum(
            getattr(point, "value", 0)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        )

    def shut_down(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


def ids(context: SpanContext | None) -> tuple[int, int]:
    """Which span it is, however it came here."""
    assert context is not None
    return context.trace_id, context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """The spans that it links to."""
    return [ids(link.context) for link in span.links]
