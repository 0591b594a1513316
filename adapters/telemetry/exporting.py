"""What exports telemetry, and how a store tells it without ever waiting for it.

Guarantees: an exporter is told in order, one thing at a time, in a thread of its own; it may raise, hang or be behind,
and the read or write that it is told of neither hears of it nor is delayed. Does not: import an SDK before one is asked
for; try again what an exporter failed to take.
"""

import abc
import functools
import importlib
import logging
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from ccs_stream.client.observers.background_call import BackgroundCall
from ccs_stream.clock import wall_clock
from ccs_stream.projections.metric_events import ObservedOperation, StoreMetricEvent
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Micros

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_NAMED: Final = {
    "langsmith": ("langsmith", "LangSmithExporter", "langsmith"),
    "opentelemetry": ("opentelemetry", "OpenTelemetryExporter", "otel"),
}
"""By what users type: the module here, its class, and the extra that brings what it imports."""
_CHOICES: Final = "telemetry is 'opentelemetry', 'langsmith', a TelemetryExporter or None"


class UnknownTelemetry(UsageError, TypeError):
    """No exporter can be made of this. A `TypeError` as well, for that is what agent-coherence raises."""


class TelemetryExporter(abc.ABC):
    """What users write to send metric events wherever they like."""

    @abc.abstractmethod
    def on_event(self, event: StoreMetricEvent) -> None:
        """Told of each event, in order, in a thread aside."""


class Exporter(abc.ABC):
    """What the store tells. Written by users only where metric events do not suffice."""

    def capture(self) -> object:
        """What `export` needs of the caller's context. In the caller's thread, at each read or write: a look-up."""
        return None

    links: ClassVar[bool] = False
    """Whether it links reads to writes: whether it is asked what follows, and given `ObservedOperation.written_by`."""

    def begin_write(  # most begin nothing
        self,
        agent: str,  # noqa: ARG002
        namespace: tuple[str, ...],  # noqa: ARG002
        key: str,  # noqa: ARG002
        artifact: ArtifactId,  # noqa: ARG002
    ) -> object | None:
        """A write begins. In the caller's thread, before the commit; `export` is given it instead of what is captured.

        Where the commit raises, `failed_write` is; for a write that has to be tried another way, neither.
        """
        return None

    def trace_parent_of(self, begun: object) -> str | None:  # noqa: ARG002  # as above
        """The W3C traceparent that the write carries on the log. In the caller's thread."""
        return None

    def failed_write(self, begun: object, error: BaseException, failed_at: Micros) -> None:  # noqa: B027  # as above
        """The commit of what was begun has raised. In the thread aside."""

    @abc.abstractmethod
    def export(self, observed: ObservedOperation, captured: object) -> None:
        """Told of each read and write, in order, in a thread aside, with what was captured when it happened."""

    def on_degraded(self, *, degraded: bool) -> None:  # noqa: B027  # most have nothing to do
        """Told when the store begins and ceases to answer without its log."""

    def close(self) -> None:  # noqa: B027  # as above
        """Nothing more is told. In the thread aside."""


class _Telling(Exporter):
    """Tells an `on_event` of a user's. Whoever made it closes it: it may be told by other stores, too."""

    def __init__(self, on_event: Callable[[StoreMetricEvent], object]) -> None:
        self._on_event = on_event

    def export(self, observed: ObservedOperation, captured: object) -> None:  # noqa: ARG002  # nothing was captured
        self._on_event(observed.event)


def exporter_of(option: object) -> Exporter | None:
    """The exporter that `telemetry=option` asks for; None for None.

    Raises `UnknownTelemetry` for what is none, and `ImportError` where the package that it needs is not installed.
    """
    if option is None or isinstance(option, Exporter):
        return option
    if isinstance(option, str):
        return _named(option)
    if isinstance(option, type):
        raise UnknownTelemetry(f"{_CHOICES}; got a class: make an exporter of it, with {option.__name__}(...)")
    on_event = getattr(option, "on_event", None)
    if not callable(on_event):
        raise UnknownTelemetry(f"{_CHOICES}; got {option!r}, which has no method on_event(event)")
    return _Telling(on_event)


def _named(name: str) -> Exporter:
    if name not in _NAMED:
        raise UnknownTelemetry(f"{_CHOICES}; got {name!r}")
    module, kind, extra = _NAMED[name]
    try:
        home = importlib.import_module(f"ccs_stream.adapters.telemetry.{module}")
    except ImportError as error:
        raise ImportError(f"telemetry={name!r} needs a package: pip install 'ccs-stream[{extra}]'") from error
    exporter: Exporter = getattr(home, kind)()
    return exporter


class Telemetry:
    """An exporter, and the thread that tells it. One for a store; for all threads."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._uncaptured = 0
        self._aside: BackgroundCall[Callable[[], object]] = BackgroundCall("telemetry", _call)

    @property
    def failed(self) -> int:
        """Times that the exporter raised."""
        return self._aside.failed + self._uncaptured

    @property
    def dropped(self) -> int:
        """Things that were not told, because the exporter was too far behind."""
        return self._aside.dropped

    @property
    def links(self) -> bool:
        """Whether the exporter links reads to writes."""
        return self._exporter.links

    def capture(self) -> object:
        """What the exporter needs of the caller's context; call this where the read or write happens."""
        return self._asked(self._exporter.capture)

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> object | None:
        """What the exporter begins for a write; call this where the write happens, before the commit."""
        return self._asked(functools.partial(self._exporter.begin_write, agent, namespace, key, artifact))

    def trace_parent_of(self, begun: object) -> str | None:
        """The W3C traceparent of what was begun."""
        return self._asked(functools.partial(self._exporter.trace_parent_of, begun))

    def failed_write(self, begun: object, error: BaseException) -> None:
        """Have the exporter told, some time, that the commit of what was begun has raised."""
        self._aside.give(functools.partial(self._exporter.failed_write, begun, error, wall_clock()))

    def _asked(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except Exception:
            self._uncaptured += 1
            if self._uncaptured == 1:
                LOG.exception("telemetry captured no context; nothing else is affected. Later ones are counted")
            return None

    def give(self, observed: ObservedOperation, captured: object) -> None:
        """Have the exporter told, some time."""
        self._aside.give(functools.partial(self._exporter.export, observed, captured))

    def degraded(self, *, degraded: bool) -> None:
        """Have it told that the store began or ceased to answer without its log."""
        self._aside.give(functools.partial(self._exporter.on_degraded, degraded=degraded))

    def settle(self, timeout_s: float) -> bool:
        """Wait until all that was given is told; False when that takes longer."""
        return self._aside.settle(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Tell what is left, close the exporter, wait at most so long for both. Whether all was told."""
        self._aside.give(self._exporter.close)
        return self._aside.close(timeout_s)


def _call(thing: Callable[[], object]) -> object:
    return thing()
