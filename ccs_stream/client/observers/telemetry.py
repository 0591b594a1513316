"""What telemetry is asked and told of a store, and which trace a version was written in, as the log says.

Guarantees: whoever exports telemetry is a port, and nothing of any SDK is known here; a trace is looked up in the event
that made the version asked for, and in no other. Does not: look into a trace; what an author put on the log is text.
"""

from collections.abc import Callable
from typing import Protocol

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import LogStore
from ccs_stream.projections.metric_events import ObservedOperation
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, SequenceNumber, Version
from ccs_stream.protocol.records import DecisionRecord

LookUp = Callable[[ArtifactId, Version, SequenceNumber], str | None]
"""The W3C traceparent of the write that made a version, by the sequence of its event. May wait for the log."""


class Telemetry(Protocol):
    """Whoever exports telemetry; see `ccs_stream.adapters.telemetry`."""

    @property
    def links(self) -> bool:
        """Whether reads are linked to writes: whether `begin_write` and `written_by` are of any use."""

    def capture(self) -> object:
        """What is needed of the caller's context; called where the read or write happens."""

    def begin_write(self, agent: str, namespace: tuple[str, ...], key: str, artifact: ArtifactId) -> object | None:
        """A write begins; called where it happens, before the commit. What comes of it is told of what is returned."""

    def trace_parent_of(self, begun: object) -> str | None:
        """The W3C traceparent of what was begun; None where nobody could follow it."""

    def failed_write(self, begun: object, error: BaseException) -> None:
        """What was begun came to nothing, or nobody knows what it came to. Told aside."""

    def give(self, observed: ObservedOperation, captured: object) -> None:
        """Told aside, with what was captured, or begun."""

    def degraded(self, *, degraded: bool) -> None:
        """The store began, or ceased, to answer without its log."""

    def settle(self, timeout_s: float) -> bool:
        """Wait until all was told."""

    def close(self, timeout_s: float) -> bool:
        """Tell what is left."""


def trace_on_log(
    store: LogStore, shard: str, artifact: ArtifactId, version: Version, sequence: SequenceNumber
) -> str | None:
    """The trace that a write carries; None where it carries none, or is not there. Raises what the store raises."""
    stored = store.find(shard, sequence)
    record = None if stored is None else DEFAULT_CODEC.decode_record(stored.head)[0]
    if type(record) is not DecisionRecord:
        return None
    event = DEFAULT_CODEC.decode_event(record.events[sequence - record.first_sequence])
    if type(event) is not WriteCommitted or (event.artifact, event.version) != (artifact, version):
        return None
    return None if event.options is None else event.options.trace_parent
