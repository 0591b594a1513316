"""The interfaces that the operations call: degraded mode, and the observer of writes.

Guarantees: the operations know neither how degraded mode answers nor what observers do. Does not: implement them;
`client/degraded` and `client/observers` do.
"""

from collections.abc import Sequence
from typing import Protocol

from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.read_result import ReadResult
from ccs_stream.client.operations.changes import WriteBatch
from ccs_stream.client.results import Written
from ccs_stream.coordinator.answer import Answer
from ccs_stream.protocol.ids import ArtifactId, Micros


class DegradedOperations(Protocol):
    """Reads and writes while the log cannot be used. The workspace gives the engine one where `on_error="degrade"`."""

    @property
    def active(self) -> bool:
        """True if the log cannot be used now."""

    def enters_on(self, error: BaseException) -> bool:
        """True if `error` means that the log cannot be used; then degraded mode begins."""

    def may_queue(self, error: BaseException) -> bool:
        """True if the write that met `error` is known not to be in the log, so that it may be queued instead."""

    def read(self, call: ReadCall, artifact: ArtifactId) -> ReadResult | None:
        """The newest version known here; None where nothing is known to exist. Raises `LogUnavailable`."""

    def write(self, batch: WriteBatch, what: str, *, atomic: bool) -> list[Written]:
        """Keep the changes for later, in order. Raises `LogUnavailable` where they cannot be kept."""


class WriteObserver(Protocol):
    """Called with each write. Its methods must neither wait nor raise."""

    def now(self) -> Micros:
        """The time, where the observer wants to know how long calls take; else 0."""

    def begin(self, batch: WriteBatch) -> Sequence[object | None]:
        """A commit of `batch` begins; returns what was begun for each write."""

    def failed(self, begun: Sequence[object | None], error: BaseException) -> None:
        """The commit announced with `begin` raised `error`."""

    def wrote(
        self,
        batch: WriteBatch,
        answer: Answer,
        *,
        tick: int,
        began_at: Micros,
        queued: bool = False,
        begun: Sequence[object | None] = (),
    ) -> None:
        """The batch was committed in one decision, or (`queued`) waits in the outbox."""
