"""Reads: serves the copy that an agent holds, or gets it a grant and the content.

The engine holds one `Reader`; agents, workspaces and adapters reach it through the engine.

Guarantees: a read answers from the folded state at a known position. Every read ends in `DeliveryRecorder`. While the
log cannot be used a read is answered in degraded mode, where the workspace has it. Does not: write.
"""

from collections.abc import Coroutine, Sequence
from typing import Any

from ccs_stream.client.cache.content_cache import CachedContent, ContentCache
from ccs_stream.client.cache.copy_tracker import CopyTracker
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_result import ReadContent, ReadResult
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.ports import DegradedOperations
from ccs_stream.client.operations.session import UNNUMBERED, CommandSession
from ccs_stream.client.operations.steps import AskIfBehind, LookAtState, RunBlocking, Steps, run, run_async
from ccs_stream.coordinator.answer import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import Read
from ccs_stream.protocol.deliveries import DeliveryOutcome, DeliverySource
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import ContentMissing, LogDiverged
from ccs_stream.protocol.events import GrantIssued
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Micros, Version


class Reader:
    """Reads for the agents of one workspace."""

    def __init__(
        self,
        session: CommandSession,
        contents: ContentCache,
        copies: CopyTracker,
        recorder: DeliveryRecorder,
        freshness: Freshness,
    ) -> None:
        self.degraded: DegradedOperations | None = None
        """How reads are answered while the log cannot be used, where `on_error="degrade"`."""
        self.freshness = freshness
        """The default of reads."""
        self._coordinator = session.coordinator
        self._state = session.coordinator.state
        self._session = session
        self._contents = contents
        self._copies = copies
        self._recorder = recorder
        self._reads_latest = freshness is Freshness.LATEST
        self._asks_off_loop = self._reads_latest and not session.coordinator.store.instantaneous
        """True if an event loop may not ask by itself whether the log has moved."""

    # One artifact.

    def read(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None = None,
        refresh_ttl: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost a hit more than all its checks
    ) -> ReadContent | None:
        """The current version for `agent`, in the calling thread; None when there is nothing.

        A current copy whose content is here is served without a lock, and nothing is appended. Raises `ContentMissing`
        for a redacted body, and the `LogError`s of the log.
        """
        content = self._serve_copy(agent, artifact, read_set, namespace)
        if content is not None:
            return content
        call = ReadCall(agent, read_set, namespace, tick=self._copies.tick())
        return run(self._coordinator, self._read_fresh(call, artifact, refresh_ttl=refresh_ttl))

    def read_async(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None = None,
        refresh_ttl: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost a hit more than all its checks
    ) -> Coroutine[Any, Any, ReadContent | None]:
        """As `read`, without a wait of the event loop for a disk or a lock."""
        if self._asks_off_loop:
            steps = self._read_current(agent, artifact, read_set, namespace, refresh_ttl=refresh_ttl)
            return run_async(self._coordinator, steps)
        content = self._serve_copy(agent, artifact, read_set, namespace)
        if content is not None:
            return _ready(content)
        call = ReadCall(agent, read_set, namespace, tick=self._copies.tick())
        return run_async(self._coordinator, self._read_fresh(call, artifact, refresh_ttl=refresh_ttl))

    def _serve_copy(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None,
        *,
        caught_up: bool = False,
    ) -> CachedContent | None:
        """The content of the copy that `agent` holds, where that may be served without a command.

        With `caught_up` the state is known to be folded as far as the read needs. Takes no lock.
        """
        coordinator = self._coordinator
        if self.degraded is not None:
            return None
        if not caught_up and (coordinator.behind() if self._reads_latest else coordinator.stale):
            return None
        copies = self._copies
        sequence = self._state.last_complete_sequence  # before looking: what is looked at is at least as new
        content = self.held(agent, artifact)
        if content is None or content.has_ttl:
            return None
        if not self._recorder.observed and not copies.active:
            read_set.record(artifact, content.version)
            return content
        if copies.active:
            state = self._state.artifacts[artifact]
            if not copies.may_serve(agent, artifact, state.scope, state.key, copies.ticks + 1):
                return None
        tick, recorder = copies.tick(), self._recorder
        call = None if recorder.observer is None else ReadCall(agent, read_set, namespace, tick=tick)
        recorder.finish_read(agent, read_set, artifact, content, sequence, call)
        return content

    def _read_current(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None,
        *,
        refresh_ttl: bool,
    ) -> Steps[ReadContent | None]:
        """Catch up first; then serve the copy, where there is one."""
        yield from self.catch_up(None, None)
        content = self._serve_copy(agent, artifact, read_set, namespace, caught_up=True)
        if content is not None:
            return content
        call = ReadCall(agent, read_set, namespace, tick=self._copies.tick())
        return (yield from self.read_steps(call, artifact, refresh_ttl=refresh_ttl))

    def _read_fresh(self, call: ReadCall, artifact: ArtifactId, *, refresh_ttl: bool) -> Steps[ReadContent | None]:
        yield from self.catch_up(None, None)
        return (yield from self.read_steps(call, artifact, refresh_ttl=refresh_ttl))

    def read_steps(
        self, call: ReadCall, artifact: ArtifactId, *, refresh_ttl: bool = False
    ) -> Steps[ReadResult | None]:
        """Get the call's agent a copy of the current version; None when there is nothing. `catch_up` comes first.

        The result is a private view of the artifact and the position it was taken at: others may write while the
        content is fetched, so a position asked for later could lie beyond the next version.
        """
        self._recorder.begin(call)
        found = yield from self._read_or_degrade(call, artifact)
        if found is not None and refresh_ttl and found.state.ttl_us is not None and call.agent is not None:
            yield from self._session.refresh(call.agent, artifact)
        return found

    def _read_or_degrade(self, call: ReadCall, artifact: ArtifactId) -> Steps[ReadResult | None]:
        degraded = self.degraded
        if degraded is None:
            return (yield from self._read(call, artifact))
        if degraded.active:
            return degraded.read(call, artifact)
        try:
            return (yield from self._read(call, artifact))
        except Exception as error:
            if not degraded.enters_on(error):
                raise
        return degraded.read(call, artifact)

    def _read(self, call: ReadCall, artifact: ArtifactId) -> Steps[ReadResult | None]:
        agent = call.agent
        if agent is None:
            raise AssertionError("a read without an agent takes no copy: use read_all_steps")
        recorder, sequence = self._recorder, self._state.last_complete_sequence  # before looking, as above
        content = self.servable(agent, artifact)
        if content is not None:
            seen, position = yield from self._seen(self._state.artifacts[artifact])
            if seen.version == content.version:
                recorder.finish_read(agent, call.read_set, artifact, content, sequence, call)
                return ReadResult(seen, position, content, hit=True, stale=self._coordinator.stale)
        state = self._state.artifacts.get(artifact)
        if state is None:
            recorder.finish_empty_read(call, artifact, Version(0), sequence)
            return None
        if self._copies.active and not self._copies.may_serve(agent, artifact, state.scope, state.key):
            # A copy that is used up is compared with the end of the log, whatever freshness was asked for.
            yield RunBlocking()
        granted = yield from self._require_grant(agent, artifact, state, "read")
        seen, position = yield from self._seen(state)
        # The version the grant names, if somebody wrote since; what is returned is the newer one, granted or not.
        read = max(seen.version, granted)
        if not seen.readable(self._coordinator.now()):
            recorder.finish_empty_read(call, artifact, seen.version, position.sequence, read=read)
            return None
        content = self._contents.get(artifact)
        if content is None or content.version != seen.version:
            try:
                content = yield from self._fetch(seen)
            except ContentMissing:
                recorder.finish_empty_read(
                    call, artifact, seen.version, position.sequence, outcome=DeliveryOutcome.ERROR, read=read
                )
                raise
        source = DeliverySource.FETCH
        recorder.finish_read(agent, call.read_set, artifact, content, position.sequence, call, source, read)
        return ReadResult(seen, position, content, hit=False, stale=self._coordinator.stale)

    def push_steps(self, agent: str, artifact: ArtifactId) -> Steps[CachedContent | None]:
        """Get `agent` a copy of the current version unasked; None where it has one, or there is nothing.

        No flow has read anything by that: to write over the version, an agent reads first.
        """
        state = self._state.artifacts[artifact]
        if not self._needs_grant(agent, state) or not state.readable(self._coordinator.now()):
            return None
        yield from self._require_grant(agent, artifact, state, "push")
        seen, position = yield from self._seen(state)
        if not seen.readable(self._coordinator.now()):
            return None
        content = self._contents.get(artifact)
        if content is None or content.version != seen.version:
            content = yield from self._fetch(seen)
        at = position.sequence
        self._recorder.finish_read(agent, ReadSet(), artifact, content, at, None, DeliverySource.BROADCAST)
        return content

    # Several artifacts.

    def read_all_steps(self, reads: Sequence[tuple[ReadCall, ArtifactId]]) -> Steps[list[ReadResult | None]]:
        """Artifacts as they stand at one position, each for the agent of its call (or nobody).

        Takes no copies, and so appends nothing. Raises `ContentMissing` for a redacted body.
        """
        degraded = self.degraded
        if degraded is not None and degraded.active:
            return [degraded.read(call, artifact) for call, artifact in reads]
        position, now, held, states = yield from self._seen_all(reads)
        results: list[ReadResult | None] = []
        for (call, artifact), state, copy in zip(reads, states, held, strict=True):
            if state is None or not state.readable(now):
                version = Version(0) if state is None else state.version
                self._recorder.finish_empty_read(call, artifact, version, position.sequence)
                results.append(None)
                continue
            content = copy or self._contents.get(artifact)
            if content is None or content.version != state.version:
                content = yield from self._fetch(state)
            hit = copy is not None
            source = DeliverySource.CACHE_HIT if hit else DeliverySource.FETCH
            self._recorder.finish_read(call.agent, call.read_set, artifact, content, position.sequence, call, source)
            results.append(ReadResult(state, position, content, hit=hit, stale=self._coordinator.stale))
        return results

    def _seen(self, state: ArtifactState) -> Steps[tuple[ArtifactState, Position]]:
        """A private view of an artifact, and the position at which it is taken."""
        return (yield LookAtState(lambda: (state.copy(), self._coordinator.position)))  # type: ignore[no-any-return]

    def _seen_all(
        self, reads: Sequence[tuple[ReadCall, ArtifactId]]
    ) -> Steps[tuple[Position, Micros, list[CachedContent | None], list[ArtifactState | None]]]:
        """The position, the time, the copies that may be served and views of the artifacts, all of one moment."""

        def look() -> object:
            held = [None if call.agent is None else self.servable(call.agent, artifact) for call, artifact in reads]
            states = [
                None if (found := self._state.artifacts.get(artifact)) is None else found.copy()
                for _, artifact in reads
            ]
            return self._coordinator.position, self._coordinator.now(), held, states

        return (yield LookAtState(look))  # type: ignore[no-any-return]

    # Freshness.

    def catch_up(self, freshness: Freshness | None, at_least: Position | str | None) -> Steps[None]:
        """Fold as much of the log as the freshness needs. Raises `LogDiverged` when the log ends before `at_least`."""
        try:
            if at_least is not None:
                position = Position.parse(at_least)
                if self._state.sequence < position.sequence:
                    yield RunBlocking()
                self._require_reached(position)
            elif (freshness or self.freshness) is Freshness.LATEST:
                active = self.degraded is not None and self.degraded.active
                if not active and (yield AskIfBehind()):
                    yield RunBlocking()
        except Exception as error:
            # The read is then answered in degraded mode; but never one that asks for a position.
            if at_least is not None or self.degraded is None or not self.degraded.enters_on(error):
                raise

    def _require_reached(self, position: Position) -> None:
        store = self._coordinator.store
        if position.log_id != store.log_id or position.shard != self._coordinator.workspace:
            raise LogDiverged(
                f"the position is of another log or workspace than {self._coordinator.workspace!r} in "
                f"{store.display_url}: use positions only with the log that gave them"
            )
        if self._state.sequence < position.sequence:
            raise LogDiverged(
                f"{store.display_url} ends at sequence {self._state.sequence} and a position at "
                f"{position.sequence} is known: this is an older copy of the log, such as one made without its -wal "
                "file; restore the newer one"
            )

    # Copies.

    def servable(self, agent: str, artifact: ArtifactId) -> CachedContent | None:
        """The content of the current copy that `agent` holds, unless its strategy refuses to serve it."""
        content = self.held(agent, artifact)
        if content is not None and self._copies.active:
            state = self._state.artifacts[artifact]
            if not self._copies.may_serve(agent, artifact, state.scope, state.key):
                return None
        return content

    def held(self, agent: str, artifact: ArtifactId) -> CachedContent | None:
        """The content of the current copy that `agent` holds, whatever its strategy says. Takes no lock."""
        state = self._state.artifacts.get(artifact)
        if state is None:
            return None
        content = self._contents.get(artifact)
        participant = self._session.current.joined.get(agent)
        if (
            content is None
            or participant is None
            or content.version != state.version
            or not state.holds(participant)
            or state.deleted
            or (state.expires_at is not None and state.expires_at <= self._coordinator.now())
            or participant in state.reclaimed
            or state.reserved_by == participant
        ):
            return None
        return content

    def forget_copies(self, agent: str) -> None:
        """Have every copy that `agent` holds fetched again before it is served."""
        joined = self._session.current.joined
        participant = self._state.participants.get(joined.get(agent, NOBODY))
        if participant is not None:
            with self._coordinator.lock:
                self._copies.forget(agent, set(participant.held))

    def _fetch(self, seen: ArtifactState) -> Steps[CachedContent]:
        """The content of an artifact as it stands in `seen`, from the log; kept where it is still current."""
        return (yield RunBlocking(lambda: self._contents.fetch_and_keep(seen)))  # type: ignore[no-any-return]

    def _require_grant(self, agent: str, artifact: ArtifactId, state: ArtifactState, what: str) -> Steps[Version]:
        """Get `agent` a grant where it needs one; the version that the grant names, else 0."""
        if not self._needs_grant(agent, state):
            return Version(0)
        answer: Answer = yield from self._session.submit(
            agent, lambda session: Read(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )
        if answer.refusal is not None:
            raise self._session.error_of(answer.refusal, f"{what} of {state.key!r}")
        for event in answer.events:
            if type(event) is GrantIssued:
                return event.version
        return Version(0)

    def _needs_grant(self, agent: str, state: ArtifactState) -> bool:
        participant = self._session.current.joined.get(agent)
        now = self._coordinator.now()
        if state.exists and state.expired(now):
            return True
        if participant is None:
            return state.exists
        if participant in state.reclaimed or (state.reserved_by == participant and not state.reserved(now)):
            return True
        return state.exists and not state.holds(participant)


async def _ready(content: CachedContent) -> CachedContent:
    return content
