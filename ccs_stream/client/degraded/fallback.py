"""What is read and written while the log cannot be used: the local copy, and the outbox.

Guarantees: while the mode is degraded nobody waits for the log. A read is answered from what this process holds, marked
stale: the newest change that waits in the outbox, else the version that was last folded; where its body is not here,
the read is refused rather than answered with less. A write is refused, or kept in the outbox, conditional on the base
its author had read (else on what was known here). Does not: keep several changes as one decision; those are refused.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from ccs_stream.client.cache.content_cache import CachedContent, ContentCache
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.read_result import ReadResult
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.degraded.mode import DegradedMode, which
from ccs_stream.client.degraded.outbox import Outbox, Wanted
from ccs_stream.client.degraded.outbox_file import Entry, EntryKind, EntryState
from ccs_stream.client.operations.commit import PendingContent
from ccs_stream.client.results import Written
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import ArtifactChange, Write
from ccs_stream.protocol.deliveries import DeliveryFreshness
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import LogBusy, LogUnavailable, OutcomeUnknown
from ccs_stream.protocol.ids import ArtifactId, Hash, Scope, Version

LOOK_S = 1.0
"""How long a look at where the state stands may wait for whoever tries the log just now."""
_STALE = DeliveryFreshness.STALE


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxTicket:
    """A change that was put into an outbox, as whoever wrote or saw it remembers it."""

    number: int
    _outbox: Outbox

    def still(self) -> bool:
        """Whether it waits."""
        entry = self._outbox.entry(self.number)
        return entry is not None and entry.state is EntryState.WAITING

    def made(self) -> Version | None:
        """The version it made; None where it was refused, or made none."""
        entry = self._outbox.entry(self.number)
        return entry.version if entry is not None and entry.state is EntryState.DONE else None


class Fallback:
    """One for a workspace with `on_error="degrade"`."""

    def __init__(
        self,
        coordinator: Coordinator,
        bodies: ContentCache,
        serving: DeliveryRecorder,
        degradation: DegradedMode,
        outbox: Outbox | None,
    ) -> None:
        self.degradation = degradation
        self.outbox = outbox
        self._coordinator = coordinator
        self._state = coordinator.state
        self._bodies = bodies
        self._serving = serving

    @property
    def active(self) -> bool:
        """Whether the log is not to be used now."""
        return self.degradation.is_degraded

    def takes(self, error: BaseException) -> bool:
        """Whether an error means that the log cannot be used; then that is noted."""
        if not which(error):
            return False
        self.degradation.failed(error)
        return True

    # Reading.

    def read(self, agent: str | None, artifact: ArtifactId, scope: ReadSet) -> ReadResult | None:
        """What is known here; None when, as far as is known, there is nothing. Without an agent, nobody was given it.

        Raises `LogUnavailable`, where the body is not here.
        """
        entry = None if self.outbox is None else self.outbox.latest(artifact)
        state = self._state.artifacts.get(artifact)
        seen = None if state is None else state.copy()
        if entry is not None:
            return self._read_waiting(agent, entry, seen, scope)
        version = Version(0) if seen is None else seen.version
        scope.saw(artifact, version)
        position = self._position()
        if seen is None or not seen.readable(self._coordinator.now()):
            if agent is not None:
                self._serving.found_nothing(agent, artifact, version, position.sequence, scope, freshness=_STALE)
            return None
        body = self._bodies.get(artifact)
        if body is None or body.version != version:
            raise self._unavailable(f"version {version} of {seen.key!r} is known, and its body is not here")
        if agent is not None:
            self._serving.delivered(agent, artifact, body, position.sequence, scope, freshness=_STALE)
        return ReadResult(seen, position, body, hit=True, stale=True, degraded=True)

    def _read_waiting(
        self, agent: str | None, entry: Entry, seen: ArtifactState | None, scope: ReadSet
    ) -> ReadResult | None:
        """A change that waits. It has no version yet, so it is no comparand and no delivery of one."""
        if self.outbox is not None:
            scope.waiting[entry.artifact] = OutboxTicket(entry.number, self.outbox)
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
        body = CachedContent(state, entry.body, state.version)
        return ReadResult(state, self._position(), body, hit=agent == entry.agent, stale=True, degraded=True)

    # Writing.

    def write(
        self,
        agent: str,
        changes: Sequence[ArtifactChange],
        outgoing: Sequence[PendingContent],
        scope: ReadSet,
        *,
        what: str,
        atomic: bool,
    ) -> list[Written]:
        """Keep changes in the outbox, in order. Raises `LogUnavailable` where there is none, and what `put` raises."""
        if self.outbox is None:
            raise self._unavailable(f"{what} was refused; with outbox=PATH it would be kept until the log is back")
        if atomic and len(changes) > 1:
            raise self._unavailable(
                f"{what} was refused: an outbox keeps changes one by one, and could not promise all or none"
            )
        bodies = {id(each.content): each.body for each in outgoing}
        position = self._position()
        answer = Answer(
            (),
            position.sequence,
            position.sequence,
            self._state.recorded_at,
            position.log_id,
            position.shard,
            position.offset,
            position.hash,
        )
        written: list[Written] = []
        for change in changes:
            base = self._base(change, scope)
            waiting = scope.waiting.get(change.artifact)
            seen = None if waiting is None else waiting.number
            queued = self.outbox.put(agent, self._wanted(change, base, bodies), seen=seen)
            scope.waiting[change.artifact] = OutboxTicket(queued.number, self.outbox)
            written.append(
                Written(
                    version=None,
                    base_version=queued.base_version,
                    overwrote_unseen=False,
                    answer=answer,
                    queued=queued.number,
                )
            )
        self.degradation.watch()
        return written

    def _base(self, change: ArtifactChange, scope: ReadSet) -> Version | None:
        if change.base_version is not None or change.artifact in scope.versions:
            return change.base_version
        state = self._state.artifacts.get(change.artifact)
        return None if state is None or not state.readable(self._coordinator.now()) else state.version

    def _wanted(self, change: ArtifactChange, base: Version | None, bodies: dict[int, bytes]) -> Wanted:
        if type(change) is Write:
            return Wanted(
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
        return Wanted(scope=scope, key=key, content_type=None, body=None, base_version=base, reason=change.reason)

    def _address(self, artifact: ArtifactId) -> tuple[Scope, str]:
        state = self._state.artifacts.get(artifact)
        if state is not None:
            return state.scope, state.key
        entry = None if self.outbox is None else self.outbox.latest(artifact)
        if entry is None:
            raise self._unavailable("nothing is known of what was to be deleted")
        return entry.scope, entry.key

    # Within.

    def _position(self) -> Position:
        """Where the folded state stands. Raises `LogBusy` when whoever tries the log keeps it for too long."""
        if not self._coordinator.lock.acquire(timeout=LOOK_S):
            raise LogBusy("somebody waits for the log, and nothing can be said of where it stands: try again")
        try:
            return self._coordinator.position
        finally:
            self._coordinator.lock.release()

    def _unavailable(self, what: str) -> LogUnavailable:
        error = self.degradation.last_error
        return LogUnavailable(f"the log cannot be used now, and {what} ({error})")


def may_queue(error: BaseException) -> bool:
    """Whether what met this error is known not to be in the log; else it must not be queued as well."""
    return not isinstance(error, OutcomeUnknown)
