"""Telemetry: the interface of exporters, and the queue that feeds one without ever holding up a read or write.

`telemetry=` of `ccs_stream.connect` and of the stores takes an exporter, or the name of one in
`ccs_stream.adapters.telemetry`.

Guarantees: an exporter is called in order, with one thing at a time, in a thread of its own. It may raise, hang or be
behind: the read or write that it is told of neither hears of it nor is delayed. A trace is looked up in the event that
made the version asked for, and in no other. Does not: import an SDK before an exporter for it is asked for; try again
what an exporter failed to take.

How: a queue `ccs-telemetry`, whose worker calls the exporter and may block on it.
"""

import abc
import functools
import importlib
import logging
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK
from ccs_stream.log.history import find_decision
from ccs_stream.log.port import LogStore
from ccs_stream.projections.metric_events import ObservedOperation, StoreMetricEvent
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, Version
from ccs_stream.protocol.limits import TRACE_PARENT_BYTES_MAX, check_text, shown

FindTrace = Callable[[ArtifactId, Version, SequenceNumber], str | None]
"""The W3C traceparent of the write that made a version, by the sequence of its event. May wait for the log."""

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_NAMED: Final = {
    "langsmith": ("langsmith", "LangSmithExporter", "langsmith"),
    "opentelemetry": ("opentelemetry", "OpenTelemetryExporter", "otel"),
}
"""By the name that users type: the module of `ccs_stream.adapters.telemetry`, its class, the extra that it needs.

The adapters are above this room, and an exporter is loaded by name, so that no SDK is imported unasked.
"""
WAITING_MAX: Final = 100_000
"""Reads and writes that may wait for an exporter; some 50 MB. Later ones are dropped, and counted."""
_CHOICES: Final = "telemetry is 'opentelemetry', 'langsmith', a TelemetryExporter or None"


class UnknownTelemetry(UsageError, TypeError):
    """No exporter can be made of this. A `TypeError` as well, for that is what agent-coherence raises."""


def _storable(trace_parent: str | None) -> str | None:
    return None if trace_parent is None else check_text(trace_parent, "trace_parent", TRACE_PARENT_BYTES_MAX)


class TelemetryExporter(abc.ABC):
    """Sends metric events to wherever its author likes. The simplest exporter: implement `on_event`."""

    @abc.abstractmethod
    def on_event(self, event: StoreMetricEvent) -> None:
        """Take an event. Called in order, in the telemetry thread."""


class Exporter(abc.ABC):
    """An exporter that sees more than metric events: contexts, traces, positions in the log."""

    def capture(self) -> object:
        """Capture what `export` needs of the caller's context. Called by the caller, at each read and write."""
        return None

    links: ClassVar[bool] = False
    """True if it links reads to writes: then `begin_write` is called, and `written_by` is set."""

    def begin_write(  # most begin nothing
        self,
        agent: str,  # noqa: ARG002
        namespace: tuple[str, ...],  # noqa: ARG002
        key: str,  # noqa: ARG002
        artifact: ArtifactId,  # noqa: ARG002
    ) -> object | None:
        """Begin a write. Called in the caller's thread, before the commit.

        `export` gets what this returns, instead of what `capture` returned. If the commit raises, `failed_write` is
        called instead of `export`. If the commit has to be tried again in another way, neither is called for this
        attempt.
        """
        return None

    def trace_parent_of(self, begun: object) -> str | None:  # noqa: ARG002  # as above
        """The W3C traceparent that the write carries on the log. Called in the caller's thread."""
        return None

    def failed_write(self, begun: object, error: BaseException, failed_at: Micros) -> None:  # noqa: B027  # as above
        """The commit of what was begun raised `error`. Called in the telemetry thread."""

    @abc.abstractmethod
    def export(self, observed: ObservedOperation, captured: object) -> None:
        """Take a read or write, with what was captured when it happened. Called in order, in the telemetry thread."""

    def on_degraded(self, *, degraded: bool) -> None:  # noqa: B027  # most have nothing to do
        """Called when degraded mode begins and when it ends."""

    def close(self) -> None:  # noqa: B027  # as above
        """Called last, in the telemetry thread."""


class _EventFunction(Exporter):
    """Calls a user's `on_event`. Its owner closes it, because other stores may use it, too."""

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
        raise UnknownTelemetry(f"{_CHOICES}; got {shown(option)}, which has no method on_event(event)")
    return _EventFunction(on_event)


def _named(name: str) -> Exporter:
    if name not in _NAMED:
        raise UnknownTelemetry(f"{_CHOICES}; got {shown(name)}")
    module, kind, extra = _NAMED[name]
    try:
        home = importlib.import_module(f"ccs_stream.adapters.telemetry.{module}")
    except ImportError as error:
        raise ImportError(f"telemetry={name!r} needs a package: pip install 'ccs-stream[{extra}]'") from error
    exporter: Exporter = getattr(home, kind)()
    return exporter


class Telemetry:
    """One exporter, and the queue that feeds it. For all threads."""

    def __init__(self, exporter: Exporter, *, waiting_max: int = WAITING_MAX) -> None:
        self._exporter = exporter
        self._uncaptured = 0
        self._queue: BackgroundQueue[Callable[[], object]] = BackgroundQueue.for_each(
            "telemetry", _call, waiting_max=waiting_max
        )

    @property
    def failed(self) -> int:
        """How often the exporter raised."""
        return self._queue.failures + self._uncaptured

    @property
    def dropped(self) -> int:
        """How many reads and writes were not exported, because the exporter was too far behind."""
        return self._queue.dropped

    @property
    def links(self) -> bool:
        """True if the exporter links reads to writes."""
        return self._exporter.links

    def capture(self) -> object:
        """Capture what the exporter needs of the caller's context. Call it where the read or write happens."""
        return self._call_exporter(self._exporter.capture)

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> object | None:
        """Have the exporter begin a write. Call it where the write happens, before the commit."""
        return self._call_exporter(functools.partial(self._exporter.begin_write, agent, namespace, key, artifact))

    def trace_parent_of(self, begun: object) -> str | None:
        """The W3C traceparent of what was begun; None for one that the log cannot hold, which fails no write."""
        return self._call_exporter(lambda: _storable(self._exporter.trace_parent_of(begun)))

    def failed_write(self, begun: object, error: BaseException) -> None:
        """Pass on, in a moment, that the commit of what was begun raised `error`."""
        self._queue.submit(functools.partial(self._exporter.failed_write, begun, error, SYSTEM_CLOCK.now()))

    def _call_exporter(self, method: Callable[[], T]) -> T | None:
        try:
            return method()
        except Exception:
            self._uncaptured += 1
            if self._uncaptured == 1:
                LOG.exception("telemetry captured no context; nothing else is affected. Later ones are counted")
            return None

    def export(self, observed: ObservedOperation, captured: object) -> None:
        """Have the exporter take a read or write, in a moment."""
        self._queue.submit(functools.partial(self._exporter.export, observed, captured))

    def degraded(self, *, degraded: bool) -> None:
        """Pass on, in a moment, that degraded mode began or ended."""
        self._queue.submit(functools.partial(self._exporter.on_degraded, degraded=degraded))

    def flush(self, timeout_s: float) -> bool:
        """Wait until the exporter has taken everything; False when that takes longer."""
        return self._queue.flush(timeout_s)

    def health(self) -> WorkerHealth:
        """The health of the queue."""
        return self._queue.health()

    def close(self, timeout_s: float) -> bool:
        """Export what is left and close the exporter, for at most so long; whether all was done."""
        self._queue.submit(self._exporter.close)
        return self._queue.close(timeout_s)


def _call(task: Callable[[], object]) -> object:
    return task()


def trace_on_log(
    store: LogStore, shard: str, artifact: ArtifactId, version: Version, sequence: SequenceNumber
) -> str | None:
    """The W3C traceparent that a write carries; None where it carries none, or is not there. Raises `LogError`s."""
    decision = find_decision(store, shard, sequence)
    if decision is None:
        return None
    event = decision.event(sequence)
    if type(event) is not WriteCommitted or (event.artifact, event.version) != (artifact, version):
        return None
    return None if event.options is None else event.options.trace_parent
