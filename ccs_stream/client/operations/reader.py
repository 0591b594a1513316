"""Reading, as steps: copies that may be served as they stand, grants, bodies, and pushes.

Guarantees: a read answers from the folded state at a known position, and is told of as a delivery; while the log cannot
be used it is answered from what is known here, where that was asked for. Does not: write.
"""

from collections.abc import Sequence

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_result import ReadResult
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.commit import UNNUMBERED
from ccs_stream.client.operations.session import CommandSession
from ccs_stream.client.operations.steps import RunBlocking, Steps
from ccs_stream.coordinator.answer import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import Read
from ccs_stream.protocol.deliveries import DeliveryFreshness, DeliveryOutcome, DeliverySource
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import ContentMissing, LogDiverged
from ccs_stream.protocol.events import GrantIssued
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Version


class Reader(CommandSession):
    """The part of an `Engine` that reads."""

    def fresh(self, freshness: Freshness | None, at_least: Position | str | None) -> Steps[None]:
        """Fold what the freshness asked for needs. Raises `LogDiverged` when the log ends before `at_least`."""
        wanted = freshness or self.freshness
        try:
            if at_least is not None:
                position = Position.parse(at_least)
                if self.state.sequence < position.sequence:
                    yield RunBlocking()
                self._require_reached(position)
            elif wanted is Freshness.LATEST and not self.degraded and self.coordinator.behind():
                yield RunBlocking()
        except Exception as error:
            # What is known here, marked stale, is then what a read is answered with; never for a position asked for.
            if at_least is not None or self.fallback is None or not self.fallback.takes(error):
                raise

    def _require_reached(self, position: Position) -> None:
        store = self.coordinator.store
        if position.log_id != store.log_id or position.shard != self.coordinator.workspace:
            raise LogDiverged(
                f"the position is of another log or workspace than {self.coordinator.workspace!r} in "
                f"{store.display_url}: use positions only with the log that gave them"
            )
        if self.state.sequence < position.sequence:
            raise LogDiverged(
                f"{store.display_url} ends at sequence {self.state.sequence} and a position at "
                f"{position.sequence} is known: this is an older copy of the log, such as one made without its -wal "
                "file; restore the newer one"
            )

    @property
    def degraded(self) -> bool:
        """Whether the log is not to be used now."""
        return self.fallback is not None and self.fallback.active

    @property
    def stale(self) -> bool:
        """Whether the log cannot be reached now, so that the state may be older than it should be."""
        return self.coordinator.stale or self.degraded

    def hit(self, agent: str, artifact: ArtifactId, tick: int | None = None) -> CachedContent | None:
        """The body `agent` may be served as it stands: it holds a copy, and the body is here. Takes no lock.

        `tick` is the number of the call, where it is not counted yet. Whoever serves it tells `serving.delivered`.
        """
        body = self.held(agent, artifact)
        if body is not None and self.copies.active:
            state = self.state.artifacts[artifact]
            if not self.copies.may_serve(agent, artifact, state.scope, state.key, tick):
                return None
        return body

    def held(self, agent: str, artifact: ArtifactId) -> CachedContent | None:
        """As `hit`, whatever the strategies say."""
        state = self.state.artifacts.get(artifact)
        if state is None:
            return None
        body = self.bodies.get(artifact)
        participant = self.session.joined.get(agent)
        if (
            body is None
            or participant is None
            or body.version != state.version
            or not state.holds(participant)
            or state.deleted
            or (state.expires_at is not None and state.expires_at <= self.coordinator.now())
            or participant in state.reclaimed
            or state.reserved_by == participant
        ):
            return None
        return body

    def forget_copies(self, agent: str) -> None:
        """Have every copy that `agent` holds fetched again before it is served."""
        participant = self.state.participants.get(self.session.joined.get(agent, NOBODY))
        if participant is not None:
            with self.coordinator.lock:
                self.copies.forget(agent, set(participant.held))

    def read(
        self, agent: str, artifact: ArtifactId, scope: ReadSet, *, freshness: DeliveryFreshness | None = None
    ) -> Steps[ReadResult | None]:
        """Get `agent` a copy of the current version; None when there is nothing.

        What is served is a private view of the artifact and the position it was taken at: others may write while the
        body is fetched, so a position asked for later could lie beyond the next version. Raises `ContentMissing` for
        a body that was redacted. While the log cannot be used, it is what is known here, where that was asked for.
        """
        fallback = self.fallback
        if fallback is None:
            return (yield from self._read(agent, artifact, scope, freshness))
        if fallback.active:
            return fallback.read(agent, artifact, scope)
        try:
            return (yield from self._read(agent, artifact, scope, freshness))
        except Exception as error:
            if not fallback.takes(error):
                raise
        return fallback.read(agent, artifact, scope)

    def _read(
        self, agent: str, artifact: ArtifactId, scope: ReadSet, freshness: DeliveryFreshness | None
    ) -> Steps[ReadResult | None]:
        serving, sequence = (
            self.serving,
            self.state.last_complete_sequence,
        )  # before looking: what is looked at is at least as new
        hit = self.hit(agent, artifact)
        if hit is not None:
            with self.coordinator.lock:
                seen, position = self.state.artifacts[artifact].copy(), self.coordinator.position
            if seen.version == hit.version:
                scope.saw(artifact, hit.version)
                serving.delivered(agent, artifact, hit, sequence, scope, freshness=freshness)
                return ReadResult(seen, position, hit, hit=True, stale=self.coordinator.stale)
        state = self.state.artifacts.get(artifact)
        if state is None:
            scope.saw(artifact, Version(0))
            serving.found_nothing(agent, artifact, Version(0), sequence, scope, freshness=freshness)
            return None
        if self.copies.active and not self.copies.may_serve(agent, artifact, state.scope, state.key):
            # A copy that is used up is compared with the end of the log, whatever freshness was asked for.
            yield RunBlocking()
        answer: Answer | None = None
        if self._needs_grant(agent, state):
            answer = yield from self.ask(
                agent,
                lambda session: Read(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact),
            )
            if answer.refusal is not None:
                raise self.error_of(answer.refusal, f"read of {state.key!r}")
        with self.coordinator.lock:
            seen, position = state.copy(), self.coordinator.position
        granted = _granted(answer)
        # The version the grant names, if somebody wrote since; what is returned is the newer one, granted or not.
        scope.saw(artifact, max(seen.version, granted))
        if not seen.readable(self.coordinator.now()):
            serving.found_nothing(agent, artifact, seen.version, position.sequence, scope, freshness=freshness)
            return None
        body = self.bodies.get(artifact)
        if body is None or body.version != seen.version:
            try:
                body = yield from self.fetch(seen)
            except ContentMissing:
                gone = DeliveryOutcome.ERROR
                at = position.sequence
                serving.found_nothing(agent, artifact, seen.version, at, scope, outcome=gone, freshness=freshness)
                raise
        fetched = DeliverySource.FETCH
        serving.delivered(agent, artifact, body, position.sequence, scope, source=fetched, freshness=freshness)
        return ReadResult(seen, position, body, hit=False, stale=self.coordinator.stale)

    def push(self, agent: str, artifact: ArtifactId) -> Steps[CachedContent | None]:
        """Get `agent` a copy of the current version unasked; None where it has one, or there is nothing.

        Its execution scopes have read nothing by that: to write over it, an agent reads first.
        """
        state = self.state.artifacts[artifact]
        if not self._needs_grant(agent, state) or not state.readable(self.coordinator.now()):
            return None
        aside = ReadSet()
        answer = yield from self.ask(
            agent, lambda session: Read(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )
        if answer.refusal is not None:
            raise self.error_of(answer.refusal, f"push of {state.key!r}")
        with self.coordinator.lock:
            seen, at = state.copy(), self.state.last_complete_sequence
        if not seen.readable(self.coordinator.now()):
            return None
        body = self.bodies.get(artifact)
        if body is None or body.version != seen.version:
            body = yield from self.fetch(seen)
        self.serving.delivered(agent, artifact, body, at, aside, source=DeliverySource.BROADCAST)
        return body

    def read_all(
        self,
        readers: Sequence[tuple[str | None, ArtifactId, ReadSet]],
        *,
        freshness: DeliveryFreshness | None = None,
    ) -> Steps[list[ReadResult | None]]:
        """Artifacts as they stand at one position, each for an agent (or nobody); takes no copies, appends nothing.

        Raises `ContentMissing` for a body that was redacted.
        """
        if self.fallback is not None and self.fallback.active:
            known = self.fallback
            return [known.read(agent, artifact, scope) for agent, artifact, scope in readers]
        with self.coordinator.lock:
            position, now = self.coordinator.position, self.coordinator.now()
            hits = [None if agent is None else self.hit(agent, artifact) for agent, artifact, _ in readers]
            states = [
                None if (found := self.state.artifacts.get(each)) is None else found.copy() for _, each, _ in readers
            ]
        served: list[ReadResult | None] = []
        for (agent, artifact, scope), state, hit in zip(readers, states, hits, strict=True):
            version = Version(0) if state is None else state.version
            scope.saw(artifact, version)
            if state is None or not state.readable(now):
                if agent is not None:
                    at = position.sequence
                    self.serving.found_nothing(agent, artifact, version, at, scope, freshness=freshness)
                served.append(None)
                continue
            body = hit or self.bodies.get(artifact)
            if body is None or body.version != version:
                body = yield from self.fetch(state)
            if agent is not None:
                source = DeliverySource.FETCH if hit is None else DeliverySource.CACHE_HIT
                at = position.sequence
                self.serving.delivered(agent, artifact, body, at, scope, source=source, freshness=freshness)
            served.append(ReadResult(state, position, body, hit=hit is not None, stale=self.coordinator.stale))
        return served

    def fetch(self, seen: ArtifactState) -> Steps[CachedContent]:
        """The body of an artifact as it stands in `seen`, from the log; kept where it is still current."""
        kept: list[CachedContent] = []
        yield RunBlocking(lambda: kept.append(self.bodies.keep(seen, self.bodies.fetch(seen), seen.version)))
        return kept[0]

    def _needs_grant(self, agent: str, state: ArtifactState) -> bool:
        participant = self.session.joined.get(agent)
        now = self.coordinator.now()
        if state.exists and state.expired(now):
            return True
        if participant is None:
            return state.exists
        if participant in state.reclaimed or (state.reserved_by == participant and not state.reserved(now)):
            return True
        return state.exists and not state.holds(participant)


def _granted(answer: Answer | None) -> Version:
    if answer is not None:
        for event in answer.events:
            if type(event) is GrantIssued:
                return event.version
    return Version(0)
