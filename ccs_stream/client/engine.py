"""What an agent can do, as steps: the one implementation behind every sync and async method, and behind adapters.

Guarantees: a read answers from the folded state at a known position; a write is reported when it is durable, under the
version its author's execution scope had last read; a conflict carries the current version and value. Does not: know
frameworks, or what a namespace means.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.client.bodies import Bodies, Body
from ccs_stream.client.committing import UNNUMBERED, Outgoing, Settling, commit_of
from ccs_stream.client.copies import Rules
from ccs_stream.client.fallback import Fallback, may_queue
from ccs_stream.client.freshness import Freshness
from ccs_stream.client.refusals import error_of
from ccs_stream.client.results import Written
from ccs_stream.client.scopes import ExecutionScope, Scopes
from ccs_stream.client.served import Served
from ccs_stream.client.serving import Serving
from ccs_stream.client.session import ClientSession
from ccs_stream.client.steps import Ask, Steps, Work, run, run_async
from ccs_stream.client.values import check_text, content_of, decode
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.coordinator.ticket import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import (
    Change,
    Command,
    Heartbeat,
    Join,
    Read,
    Refresh,
)
from ccs_stream.protocol.deliveries import DeliveryFreshness, DeliveryOutcome, DeliverySource
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import CcsError, ContentMissing, LogDiverged, TooLarge, VersionConflict
from ccs_stream.protocol.events import (
    CommandRefused,
    Event,
    GrantIssued,
    ParticipantJoined,
    RefusalReason,
    WriteCommitted,
)
from ccs_stream.protocol.ids import (
    NOBODY,
    ArtifactId,
    Scope,
    SessionId,
    Version,
    artifact_id,
)

ADDRESSES_MAX: Final = 200_000
"""Artifact ids remembered by address: deriving one costs three microseconds."""
_LOST: Final = (RefusalReason.SESSION_ENDED, RefusalReason.UNKNOWN_SESSION, RefusalReason.UNKNOWN_PARTICIPANT)


class Engine:
    """The operations of one workspace, for all its agents."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        bodies: Bodies,
        freshness: Freshness = Freshness.LATEST,
        rules: Rules | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.state = coordinator.state
        self.bodies = bodies
        self._settling = Settling(coordinator.state, bodies)
        coordinator.on_bodies = self._learn_bodies
        self.freshness = freshness
        self.scopes = Scopes()
        self.session = ClientSession()
        self.serving = Serving(coordinator, self.session, freshness, rules)
        self.copies = self.serving.copies
        """Which copies may be served as they are."""
        self.fallback: Fallback | None = None
        """What there is while the log cannot be used, where that was asked for."""
        self.addresses: dict[tuple[Scope, str], ArtifactId] = {}
        """Ids of addresses asked for before."""

    def address(self, scope: Scope, key: str) -> ArtifactId:
        """The id of an address."""
        name = (scope, key)
        found = self.addresses.get(name)
        if found is None:
            check_text(key, "a key")
            for part in scope:
                check_text(part, "a part of a scope")
            if len(self.addresses) >= ADDRESSES_MAX:
                for old in list(itertools.islice(self.addresses, ADDRESSES_MAX // 10)):
                    self.addresses.pop(old, None)
            found = self.addresses[name] = artifact_id(self.coordinator.workspace, scope, key)
        return found

    def _learn_bodies(self, events: Sequence[Event], contents: Sequence[bytes]) -> None:
        """Bodies came with decisions, whoever made them: what an agent asks for next need not be fetched."""
        for event in events:
            if type(event) is WriteCommitted and event.content_index is not None:
                state = self.state.artifacts.get(event.artifact)
                if state is not None:
                    self.bodies.keep(state, contents[event.content_index], event.version)

    # Asking.

    def ask(
        self, agent: str, build: Callable[[SessionId], Command], work: Callable[[], object] | None = None
    ) -> Steps[Answer]:
        """Have a command of `agent` decided, joining first where needed; once more if the log ended the session."""
        for attempt in (1, 2):
            session = self.session
            if agent not in session.joined:
                joined = yield from self._join(session, agent)
                if joined is not None and attempt == 1:
                    self._replace(session)
                    continue
            answer: Answer = yield Ask(build(session.session_id), session.numbers, work)
            refusal = answer.refusal
            if refusal is not None and refusal.reason in _LOST and attempt == 1:
                self._replace(session)
                continue
            return answer
        raise AssertionError("unreachable: the second attempt returns")

    def _join(self, session: ClientSession, agent: str) -> Steps[RefusalReason | None]:
        check_text(agent, "an agent's name")
        answer: Answer = yield Ask(Join(session_id=session.session_id, number=UNNUMBERED, agent=agent), session.numbers)
        if answer.refusal is not None:
            return answer.refusal.reason
        for event in answer.events:
            if type(event) is ParticipantJoined:
                session.joined[agent] = event.participant
        if agent not in session.joined:
            # Another thread joined it between our look and our command.
            known = self.state.session(session.session_id)
            if known is not None:
                session.joined[agent] = known.participants[agent]
        return None

    def _replace(self, lost: ClientSession) -> None:
        if self.session is lost:
            self.session = self.serving.session = ClientSession()

    # Reading.

    def fresh(self, freshness: Freshness | None, at_least: Position | str | None) -> Steps[None]:
        """Fold what the freshness asked for needs. Raises `LogDiverged` when the log ends before `at_least`."""
        wanted = freshness or self.freshness
        try:
            if at_least is not None:
                position = Position.parse(at_least)
                if self.state.sequence < position.sequence:
                    yield Work()
                self._require_reached(position)
            elif wanted is Freshness.LATEST and not self.degraded and self.coordinator.behind():
                yield Work()
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

    def hit(self, agent: str, artifact: ArtifactId, tick: int | None = None) -> Body | None:
        """The body `agent` may be served as it stands: it holds a copy, and the body is here. Takes no lock.

        `tick` is the number of the call, where it is not counted yet. Whoever serves it tells `serving.delivered`.
        """
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
            or (state.expires_at is not None and state.expires_at <= self.coordinator.clock())
            or participant in state.reclaimed
            or state.reserved_by == participant
            or (self.copies.active and not self.copies.may_serve(agent, artifact, state.scope, state.key, tick))
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
        self, agent: str, artifact: ArtifactId, scope: ExecutionScope, *, freshness: DeliveryFreshness | None = None
    ) -> Steps[Served | None]:
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
        self, agent: str, artifact: ArtifactId, scope: ExecutionScope, freshness: DeliveryFreshness | None
    ) -> Steps[Served | None]:
        serving, sequence = self.serving, self.state.settled  # before looking: what is looked at is at least as new
        hit = self.hit(agent, artifact)
        if hit is not None:
            with self.coordinator.lock:
                seen, position = self.state.artifacts[artifact].copy(), self.coordinator.position
            if seen.version == hit.version:
                scope.saw(artifact, hit.version)
                serving.delivered(agent, artifact, hit, sequence, scope, freshness=freshness)
                return Served(seen, position, hit, hit=True)
        state = self.state.artifacts.get(artifact)
        if state is None:
            scope.saw(artifact, Version(0))
            serving.found_nothing(agent, artifact, Version(0), sequence, scope, freshness=freshness)
            return None
        if self.copies.active and not self.copies.may_serve(agent, artifact, state.scope, state.key):
            yield Work()  # a copy that is used up is compared with the end of the log, whatever freshness was asked for
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
        if not seen.readable(self.coordinator.clock()):
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
        return Served(seen, position, body, hit=False)

    def push(self, agent: str, artifact: ArtifactId) -> Steps[Body | None]:
        """Get `agent` a copy of the current version unasked; None where it has one, or there is nothing.

        Its execution scopes have read nothing by that: to write over it, an agent reads first.
        """
        state = self.state.artifacts[artifact]
        if not self._needs_grant(agent, state) or not state.readable(self.coordinator.clock()):
            return None
        aside = ExecutionScope()
        answer = yield from self.ask(
            agent, lambda session: Read(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )
        if answer.refusal is not None:
            raise self.error_of(answer.refusal, f"push of {state.key!r}")
        with self.coordinator.lock:
            seen, at = state.copy(), self.state.settled
        if not seen.readable(self.coordinator.clock()):
            return None
        body = self.bodies.get(artifact)
        if body is None or body.version != seen.version:
            body = yield from self.fetch(seen)
        self.serving.delivered(agent, artifact, body, at, aside, source=DeliverySource.BROADCAST)
        return body

    def read_all(
        self,
        readers: Sequence[tuple[str | None, ArtifactId, ExecutionScope]],
        *,
        freshness: DeliveryFreshness | None = None,
    ) -> Steps[list[Served | None]]:
        """Artifacts as they stand at one position, each for an agent (or nobody); takes no copies, appends nothing.

        Raises `ContentMissing` for a body that was redacted.
        """
        if self.fallback is not None and self.fallback.active:
            known = self.fallback
            return [known.read(agent, artifact, scope) for agent, artifact, scope in readers]
        with self.coordinator.lock:
            position, now = self.coordinator.position, self.coordinator.clock()
            hits = [None if agent is None else self.hit(agent, artifact) for agent, artifact, _ in readers]
            states = [
                None if (found := self.state.artifacts.get(each)) is None else found.copy() for _, each, _ in readers
            ]
        served: list[Served | None] = []
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
            served.append(Served(state, position, body, hit=hit is not None))
        return served

    def fetch(self, seen: ArtifactState) -> Steps[Body]:
        """The body of an artifact as it stands in `seen`, from the log; kept where it is still current."""
        kept: list[Body] = []
        yield Work(lambda: kept.append(self.bodies.keep(seen, self.bodies.fetch(seen), seen.version)))
        return kept[0]

    def _needs_grant(self, agent: str, state: ArtifactState) -> bool:
        participant = self.session.joined.get(agent)
        now = self.coordinator.clock()
        if state.exists and state.expired(now):
            return True
        if participant is None:
            return state.exists
        if participant in state.reclaimed or (state.reserved_by == participant and not state.reserved(now)):
            return True
        return state.exists and not state.holds(participant)

    # Writing.

    def prepare(self, content_type: str, body: bytes, *, inline_left: int, what: str) -> Outgoing:
        """A body on its way into a commit. Raises `TooLarge` before anything is appended."""
        settings = self.state.settings
        content = content_of(content_type, body)
        if content.size > settings.maximum_content_bytes:
            raise TooLarge(
                f"{what}: the body has {content.size} bytes, the workspace allows {settings.maximum_content_bytes}: "
                "split it, or open a workspace with a larger maximum_content_bytes",
                reason=RefusalReason.CONTENT_TOO_LARGE.value,
            )
        return Outgoing(content, body, uploaded=content.size > min(settings.inline_content_bytes, inline_left))

    def commit(
        self,
        agent: str,
        changes: Sequence[Change],
        scope: ExecutionScope,
        what: str,
        outgoing: Sequence[Outgoing] = (),
        *,
        atomic: bool = True,
    ) -> Steps[list[Written]]:
        """Commit changes, all or none; one result a change. Raises `Refused` and its kinds.

        While the log cannot be used they may be kept for later, where that was asked for; several only if they need not
        be `atomic`.
        """
        fallback = self.fallback
        if fallback is None:
            return (yield from self._commit(agent, changes, scope, what, outgoing))
        if not fallback.active:
            try:
                return (yield from self._commit(agent, changes, scope, what, outgoing))
            except Exception as error:
                if not fallback.takes(error) or not may_queue(error):
                    raise
        return fallback.write(agent, changes, outgoing, scope, what=what, atomic=atomic)

    def _commit(
        self,
        agent: str,
        changes: Sequence[Change],
        scope: ExecutionScope,
        what: str,
        outgoing: Sequence[Outgoing],
    ) -> Steps[list[Written]]:
        uploads = [each for each in outgoing if each.uploaded]
        answer = yield from self.ask(
            agent,
            lambda session: commit_of(session, agent, tuple(changes)),
            functools.partial(self._upload, uploads) if uploads else None,
        )
        if answer.refusal is not None:
            raise (yield from self._refused(agent, answer.refusal, scope, what))
        written = self._settling.all(answer, changes, outgoing, scope)
        for change, each in zip(changes, written, strict=True):
            self.serving.wrote(agent, change, each, scope)
        return written

    # The short way of `commit`, without steps, for what happens most: one change of an agent that has joined, and no
    # upload. None when it is not that simple, or the session was lost, or it may have to wait for the log to be back;
    # then nothing was changed, and `commit` does it.

    def commit_now(
        self, agent: str, change: Change, scope: ExecutionScope, sent: Outgoing | None, what: str
    ) -> Written | None:
        """One change, in the calling thread. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded) or self.fallback is not None:
            return None
        answer = self.coordinator.execute(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            written = self._settling.one(answer, change, sent, scope)
            self.serving.wrote(agent, change, written, scope)
            return written
        if refusal.reason in _LOST:
            return None
        raise run(self.coordinator, self._refused(agent, refusal, scope, what))

    async def commit_soon(
        self, agent: str, change: Change, scope: ExecutionScope, sent: Outgoing | None, what: str
    ) -> Written | None:
        """One change, in the running event loop. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded) or self.fallback is not None:
            return None
        answer = await self.coordinator.execute_async(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            written = self._settling.one(answer, change, sent, scope)
            self.serving.wrote(agent, change, written, scope)
            return written
        if refusal.reason in _LOST:
            return None
        raise await run_async(self.coordinator, self._refused(agent, refusal, scope, what))

    def _refused(self, agent: str, refusal: CommandRefused, scope: ExecutionScope, what: str) -> Steps[CcsError]:
        """The error for a refusal, with what there is now where that was not what was expected."""
        error = self.error_of(refusal, what)
        if isinstance(error, VersionConflict) and refusal.artifact is not None:
            # Given, but not read: to write again, its author reads again.
            aside = ExecutionScope()
            aside.context = scope.context
            served = (yield from self.read_all([(agent, refusal.artifact, aside)]))[0]
            error.current_value = None if served is None else decode(served.state.content_type, served.body.body)
        return error

    def error_of(self, refusal: CommandRefused, what: str) -> CcsError:
        """The error for a refusal of a command of this session."""
        return error_of(refusal, what, self.state, self.session.session_id)

    def _upload(self, outgoing: Sequence[Outgoing]) -> None:
        """Keep bodies too large to travel inline, before the decision that names them."""
        for each in outgoing:
            if each.content.locator is None:
                each.content.locator = self.coordinator.store.put_content(each.body)
                each.content.body = None
                each.content.uploaded_at = self.coordinator.clock()

    def refresh(self, agent: str, artifact: ArtifactId) -> Steps[None]:
        """Extend a life to its full TTL, where a tenth of it has passed."""
        state = self.state.artifacts.get(artifact)
        if state is None or state.ttl_us is None or state.expires_at is None:
            return
        remaining = state.expires_at - self.coordinator.clock()
        if (state.ttl_us - remaining) * 10 < state.ttl_us:
            return
        yield from self.ask(
            agent, lambda session: Refresh(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )

    def heartbeat(self) -> Steps[None]:
        """Tell the log that this session is alive, where that matters."""
        session = self.session
        if session.joined:
            yield Ask(Heartbeat(session_id=session.session_id, number=UNNUMBERED), session.numbers)


def _granted(answer: Answer | None) -> Version:
    if answer is not None:
        for event in answer.events:
            if type(event) is GrantIssued:
                return event.version
    return Version(0)
