"""Reads and writes while the log cannot be used: from the local copy, and to the outbox.

`LocalFallback` is the `DegradedOperations` of a workspace with `on_error="degrade"`.

Guarantees: while the mode is degraded no call waits for the log. A read is answered from what this process holds and is
marked stale: the newest change that waits in the outbox, else the version that was last folded. Where its body is not
here, the read is refused. A write is refused, or kept in the outbox, conditional on the base that its author had read
(else on the version known here). Does not: keep several changes as one decision; those are refused.
"""

import dataclasses
import hashlib

from ccs_stream.client.cache.content_cache import ContentCache, cached_content
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.read_result import ReadResult
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.degraded.mode import DegradedMode, is_log_unavailable
from ccs_stream.client.degraded.outbox import Outbox, OutboxChange
from ccs_stream.client.degraded.outbox_file import EntryKind, EntryState, OutboxEntry
from ccs_stream.client.operations.changes import WriteBatch
from ccs_stream.client.results import Written
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import ArtifactChange, Write
from ccs_stream.protocol.deliveries import DeliveryFreshness
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import LogBusy, LogUnavailable, OutcomeUnknown
from ccs_stream.protocol.ids import ArtifactId, Hash, Scope, Version

POSITION_TIMEOUT_S = 1.0
"""How long a look at the position may wait for the thread that probes the log."""
_STALE = DeliveryFreshness.STALE


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxTicket:
    """A change that was put into an outbox, as the flow that wrote or read it remembers it."""

    number: int
    _outbox: Outbox

    def pending(self) -> bool:
        """True if it still waits."""
        entry = self._outbox.entry(self.number)
        return entry is not None and entry.state is EntryState.WAITING

    def version(self) -> Version | None:
        """The version it made; None where it was refused, or made none."""
        entry = self._outbox.entry(self.number)
        return entry.version if entry is not None and entry.state is EntryState.DONE else None


class LocalFallback:
    """The degraded operations of one workspace. For all threads."""

    def __init__(
        self,
        coordinator: Coordinator,
        contents: ContentCache,
        recorder: DeliveryRecorder,
        mode: DegradedMode,
        outbox: Outbox | None,
    ) -> None:
        self._mode = mode
        self._outbox = outbox
        self._coordinator = coordinator
        self._state = coordinator.state
        self._contents = contents
        self._recorder = recorder

    @property
    def active(self) -> bool:
        """True if the log cannot be used now."""
        return self._mode.is_degraded

    def enters_on(self, error: BaseException) -> bool:
        """True if `error` means that the log cannot be used; then degraded mode begins."""
        if not is_log_unavailable(error):
            return False
        self._mode.failed(error)
        return True

    def may_queue(self, error: BaseException) -> bool:
        """True if the write that met `error` is known not to be in the log; else it must not be queued as well."""
        return not isinstance(error, OutcomeUnknown)

    # Reading.

    def read(self, call: ReadCall, artifact: ArtifactId) -> ReadResult | None:
        """The newest version known here; None where nothing is known to exist.

        Raises `LogUnavailable` where the body is not here.
        """
        call.freshness = _STALE
        call.operation = "degraded"
        entry = None if self._outbox is None else self._outbox.latest(artifact)
        state = self._state.artifacts.get(artifact)
        seen = None if state is None else state.copy()
        if entry is not None:
            return self._read_waiting(call, entry, seen)
        version = Version(0) if seen is None else seen.version
        position = self._position()
        if seen is None or not seen.readable(self._coordinator.now()):
            self._recorder.finish_empty_read(call, artifact, version, position.sequence)
            return None
        content = self._contents.get(artifact)
        if content is None or content.version != version:
            call.read_set.record(artifact, version)
            raise self._unavailable(f"version {version} of {seen.key!r} is known, and its body is not here")
        self._recorder.finish_read(call.agent, call.read_set, artifact, content, position.sequence, call)
        return ReadResult(seen, position, content, hit=True, stale=True, degraded=True)

    def _read_waiting(self, call: ReadCall, entry: OutboxEntry, seen: ArtifactState | None) -> ReadResult | None:
        """A change that waits. It has no version yet, so it is no comparand and no delivery of one."""
        if self._outbox is not None:
            call.read_set.queued[entry.artifact] = OutboxTicket(entry.number, self._outbox)
        if entry.kind is EntryKind.DELETE or entry.body is None:
            return None
        state = ArtifactState(entry.artifact, entry.scope, entry.key) if seen is None else seen
        state.content_type = entry.content_type or ""
        state.content_hash = Hash(hashlib.sha256(entry.body).digest())
        state.content_size = len(entry.body)
        state.writer_agent = entry.agent
        state.updated_at = entry.queued_at
        if seen is None or not seen.exists:
            state.created_at, state.deleted = entry.queued_at, False
        content = cached_content(state, entry.body, state.version)
        position, hit = self._position(), call.agent == entry.agent
        self._recorder.observe(call, state, content, position.sequence, hit=hit)
        return ReadResult(state, position, content, hit=hit, stale=True, degraded=True)

    # Writing.

    def write(self, batch: WriteBatch, what: str, *, atomic: bool) -> list[Written]:
        """Keep changes in the outbox, in order.

        Raises `LogUnavailable` where the workspace has no outbox, and what `Outbox.put` raises.
        """
        outbox = self._outbox
        if outbox is None:
            raise self._unavailable(f"{what} was refused; with outbox=PATH it would be kept until the log is back")
        if atomic and len(batch.changes) > 1:
            raise self._unavailable(
                f"{what} was refused: an outbox keeps changes one by one, and could not promise all or none"
            )
        bodies = {id(each.content): each.body for each in batch.contents}
        position = self._position()
        answer = Answer.at(position, self._state.recorded_at)
        read_set = batch.read_set
        written: list[Written] = []
        for change in batch.changes:
            base = self._base(change, read_set)
            before = read_set.queued.get(change.artifact)
            seen = None if before is None else before.number
            queued = outbox.put(batch.agent, self._outbox_change(change, base, bodies), seen=seen)
            read_set.queued[change.artifact] = OutboxTicket(queued.number, outbox)
            written.append(
                Written(
                    version=None,
                    base_version=queued.base_version,
                    overwrote_unseen=False,
                    answer=answer,
                    queued=queued.number,
                )
            )
        self._mode.watch()
        return written

    def _base(self, change: ArtifactChange, read_set: ReadSet) -> Version | None:
        if change.base_version is not None or change.artifact in read_set.versions:
            return change.base_version
        state = self._state.artifacts.get(change.artifact)
        return None if state is None or not state.readable(self._coordinator.now()) else state.version

    def _outbox_change(self, change: ArtifactChange, base: Version | None, bodies: dict[int, bytes]) -> OutboxChange:
        if type(change) is Write:
            return OutboxChange(
                scope=change.scope,
                key=change.key,
                content_type=change.content.content_type,
                body=bodies[id(change.content)],
                base_version=base,
                ttl_us=change.ttl_us,
                index_fields=change.index_fields,
                reason=change.reason,
            )
        scope, key = self._address(change.artifact)
        return OutboxChange(scope=scope, key=key, content_type=None, body=None, base_version=base, reason=change.reason)

    def _address(self, artifact: ArtifactId) -> tuple[Scope, str]:
        state = self._state.artifacts.get(artifact)
        if state is not None:
            return state.scope, state.key
        entry = None if self._outbox is None else self._outbox.latest(artifact)
        if entry is None:
            raise self._unavailable("nothing is known of what was to be deleted")
        return entry.scope, entry.key

    # Position and errors.

    def _position(self) -> Position:
        """The position of the folded state. Raises `LogBusy` where the thread that probes the log holds the lock."""
        lock = self._coordinator.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  # as Condition does
            return self._coordinator.position
        try:
            if lock.acquire(timeout=POSITION_TIMEOUT_S):
                return self._coordinator.position
        finally:  # an interrupt may come once the lock is taken
            try:  # noqa: SIM105  # or on the way into `suppress`
                lock.release()
            except RuntimeError:  # another thread has it
                pass
        raise LogBusy("another thread waits for the log, so the position cannot be read now: try again")

    def _unavailable(self, what: str) -> LogUnavailable:
        error = self._mode.last_error
        return LogUnavailable(f"the log cannot be used now, and {what} ({error})")
