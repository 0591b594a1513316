"""What an agent can do, as steps: the one implementation behind every sync and async method, and behind adapters.

Guarantees: a read answers from the folded state at a known position; a write is reported when it is durable, under the
version its author's execution scope had last read; a conflict carries the current version and value. Does not: know
frameworks, or what a namespace means.
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ccs_stream.client.bodies import Bodies, Body
from ccs_stream.client.committing import UNNUMBERED, Outgoing, Settling, commit_of
from ccs_stream.client.freshness import Freshness
from ccs_stream.client.refusals import error_of
from ccs_stream.client.results import Written
from ccs_stream.client.scopes import ExecutionScope, Scopes
from ccs_stream.client.session import ClientSession
from ccs_stream.client.steps import Ask, Steps, Wait, Work, run, run_async
from ccs_stream.client.values import check_text, content_of, decode
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.coordinator.ticket import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import (
    Acquire,
    Change,
    Command,
    Heartbeat,
    Join,
    Read,
    Refresh,
    Release,
)
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import CcsError, LogDiverged, Reserved, TooLarge, VersionConflict
from ccs_stream.protocol.events import (
    CommandRefused,
    Event,
    GrantIssued,
    ParticipantJoined,
    RefusalReason,
    ReservationAcquired,
    WriteCommitted,
)
from ccs_stream.protocol.ids import (
    ArtifactId,
    Fence,
    Micros,
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

    def __init__(self, coordinator: Coordinator, *, bodies: Bodies, freshness: Freshness = Freshness.LATEST) -> None:
        self.coordinator = coordinator
        self.state = coordinator.state
        self.bodies = bodies
        self._settling = Settling(coordinator.state, bodies)
        coordinator.on_bodies = self._learn_bodies
        self.freshness = freshness
        self.scopes = Scopes()
        self.session = ClientSession()
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
            self.session = ClientSession()

    # Reading.

    def fresh(self, freshness: Freshness | None, at_least: Position | str | None) -> Steps[None]:
        """Fold what the freshness asked for needs. Raises `LogDiverged` when the log ends before `at_least`."""
        wanted = freshness or self.freshness
        if at_least is not None:
            position = Position.parse(at_least)
            if self.state.sequence < position.sequence:
                yield Work()
            self._require_reached(position)
        elif wanted is Freshness.LATEST and self.coordinator.behind():
            yield Work()

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

    def hit(self, agent: str, artifact: ArtifactId) -> Body | None:
        """The body `agent` may be served as it stands: it holds a copy, and the body is here. Takes no lock."""
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
        ):
            return None
        return body

    def read(
        self, agent: str, artifact: ArtifactId, scope: ExecutionScope
    ) -> Steps[tuple[ArtifactState, Position] | None]:
        """Get `agent` a copy of the current version; None when there is nothing.

        Returns a private view of the artifact and the position it was taken at: others may write while the body is
        fetched, so a position asked for later could lie beyond the next version.

        The body is then in `self.bodies`, unless it was redacted, which raises `ContentMissing`.
        """
        state = self.state.artifacts.get(artifact)
        if state is None:
            scope.saw(artifact, Version(0))
            return None
        answer: Answer | None = None
        if self._needs_grant(agent, state):
            answer = yield from self.ask(
                agent,
                lambda session: Read(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact),
            )
            if answer.refusal is not None:
                raise error_of(answer.refusal, f"read of {state.key!r}")
        with self.coordinator.lock:
            seen, position = state.copy(), self.coordinator.position
        granted = _granted(answer)
        # The version the grant names, if somebody wrote since; what is returned is the newer one, granted or not.
        scope.saw(artifact, max(seen.version, granted))
        if not seen.readable(self.coordinator.clock()):
            return None
        body = self.bodies.get(artifact)
        if body is None or body.version != seen.version:
            yield Work(lambda: self.bodies.keep(seen, self.bodies.fetch(seen), seen.version))
        return seen, position

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
    ) -> Steps[list[Written]]:
        """Commit changes, all or none; one result a change. Raises `Refused` and its kinds."""
        uploads = [each for each in outgoing if each.uploaded]
        answer = yield from self.ask(
            agent,
            lambda session: commit_of(session, agent, tuple(changes)),
            functools.partial(self._upload, uploads) if uploads else None,
        )
        if answer.refusal is not None:
            raise (yield from self._refused(answer.refusal, what))
        return self._settling.all(answer, changes, outgoing, scope)

    # The short way of `commit`, without steps, for what happens most: one change of an agent that has joined, and no
    # upload. None when it is not that simple, or the session was lost; then nothing was changed, and `commit` does it.

    def commit_now(
        self, agent: str, change: Change, scope: ExecutionScope, sent: Outgoing | None, what: str
    ) -> Written | None:
        """One change, in the calling thread. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded):
            return None
        answer = self.coordinator.execute(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            return self._settling.one(answer, change, sent, scope)
        if refusal.reason in _LOST:
            return None
        raise run(self.coordinator, self._refused(refusal, what))

    async def commit_soon(
        self, agent: str, change: Change, scope: ExecutionScope, sent: Outgoing | None, what: str
    ) -> Written | None:
        """One change, in the running event loop. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded):
            return None
        answer = await self.coordinator.execute_async(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            return self._settling.one(answer, change, sent, scope)
        if refusal.reason in _LOST:
            return None
        raise await run_async(self.coordinator, self._refused(refusal, what))

    def _refused(self, refusal: CommandRefused, what: str) -> Steps[CcsError]:
        """The error for a refusal, with what there is now where that was not what was expected."""
        error = error_of(refusal, what)
        if isinstance(error, VersionConflict) and refusal.artifact is not None:
            error.current_value = yield from self.current_value(refusal.artifact)
        return error

    def _upload(self, outgoing: Sequence[Outgoing]) -> None:
        """Keep bodies too large to travel inline, before the decision that names them."""
        for each in outgoing:
            if each.content.locator is None:
                each.content.locator = self.coordinator.store.put_content(each.body)
                each.content.body = None
                each.content.uploaded_at = self.coordinator.clock()

    def current_value(self, artifact: ArtifactId) -> Steps[Any]:
        """The value now, without taking a copy of it for anybody; None when there is nothing."""
        with self.coordinator.lock:
            state = self.state.artifacts.get(artifact)
            seen = None if state is None else state.copy()
        if seen is None or not seen.readable(self.coordinator.clock()):
            return None
        body = self.bodies.get(artifact)
        if body is None or body.version != seen.version:
            kept: list[Body] = []
            yield Work(lambda: kept.append(self.bodies.keep(seen, self.bodies.fetch(seen), seen.version)))
            body = kept[0]
        return decode(seen.content_type, body.body)

    # Reserving.

    def acquire(
        self, agent: str, scope: Scope, key: str, *, duration: Micros, wait_s: float, holder: ExecutionScope
    ) -> Steps[Fence]:
        """A reservation, waiting for another's release for at most `wait_s`. Raises `Reserved`."""
        artifact = self.address(scope, key)
        deadline = time.monotonic() + wait_s
        while True:
            answer = yield from self.ask(
                agent,
                lambda session: Acquire(
                    session_id=session,
                    number=UNNUMBERED,
                    agent=agent,
                    artifact=artifact,
                    scope=scope,
                    key=key,
                    duration_us=duration,
                ),
            )
            refusal = answer.refusal
            if refusal is None:
                fence = next(event.fence for event in answer.events if type(event) is ReservationAcquired)
                holder.fences[artifact] = fence
                return fence
            error = error_of(refusal, f"acquire of {key!r}")
            left = deadline - time.monotonic()
            if not isinstance(error, Reserved) or left <= 0:
                raise error
            yield Wait(functools.partial(self._released, artifact), left)

    def _released(self, artifact: ArtifactId) -> bool:
        return not self.state.artifacts[artifact].reserved(self.coordinator.clock())

    def release(self, agent: str, scope: Scope, key: str, fence: Fence, holder: ExecutionScope) -> Steps[None]:
        """End one's reservation. Raises `Reclaimed` when it was lost before."""
        artifact = self.address(scope, key)
        holder.fences.pop(artifact, None)
        answer = yield from self.ask(
            agent,
            lambda session: Release(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact, fence=fence),
        )
        if answer.refusal is not None:
            raise error_of(answer.refusal, f"release of {key!r}")

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
