"""Having commands decided: the session, its agents, the ids of what they address, and what is folded.

Guarantees: an agent joins the log when it first acts; a session that the log has ended is replaced, and what it was
refused for that is asked once more. Does not: read or write artifacts.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.client.cache.content_cache import ContentCache
from ccs_stream.client.cache.copy_tracker import StrategyRules
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_set import ReadSets
from ccs_stream.client.degraded.fallback import Fallback
from ccs_stream.client.operations.client_session import ClientSession
from ccs_stream.client.operations.commit import UNNUMBERED, CommitResults
from ccs_stream.client.operations.errors import error_of
from ccs_stream.client.operations.steps import Steps, Submit
from ccs_stream.client.values import check_text
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.commands import Command, Heartbeat, Join, Refresh
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.events import CommandRefused, Event, ParticipantJoined, RefusalReason, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Scope, SessionId, artifact_id

ADDRESSES_MAX: Final = 200_000
"""Artifact ids remembered by address: deriving one costs three microseconds."""
LOST: Final = (RefusalReason.SESSION_ENDED, RefusalReason.UNKNOWN_SESSION, RefusalReason.UNKNOWN_PARTICIPANT)
"""Refusals that say that the session, or its part in the workspace, is gone."""


class CommandSession:
    """The part of an `Engine` that all others stand on."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        bodies: ContentCache,
        freshness: Freshness = Freshness.LATEST,
        rules: StrategyRules | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.state = coordinator.state
        self.bodies = bodies
        self._settling = CommitResults(coordinator.state, bodies)
        coordinator.on_bodies = self._learn_bodies
        self.freshness = freshness
        self.scopes = ReadSets()
        self.session = ClientSession()
        self.serving = DeliveryRecorder(coordinator, self.session, freshness, rules)
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
            answer: Answer = yield Submit(build(session.session_id), session.numbers, work)
            refusal = answer.refusal
            if refusal is not None and refusal.reason in LOST and attempt == 1:
                self._replace(session)
                continue
            return answer
        raise AssertionError("unreachable: the second attempt returns")

    def _join(self, session: ClientSession, agent: str) -> Steps[RefusalReason | None]:
        check_text(agent, "an agent's name")
        answer: Answer = yield Submit(
            Join(session_id=session.session_id, number=UNNUMBERED, agent=agent), session.numbers
        )
        if answer.refusal is not None:
            return answer.refusal.reason
        for event in answer.events:
            if type(event) is ParticipantJoined:
                session.joined[agent] = event.participant
        if agent not in session.joined:
            # Another thread joined it between our look and our command.
            known = self.state.sessions.get(session.session_id)
            if known is not None:
                session.joined[agent] = known.participants[agent]
        return None

    def _replace(self, lost: ClientSession) -> None:
        if self.session is lost:
            self.session = self.serving.session = ClientSession()

    def error_of(self, refusal: CommandRefused, what: str) -> CcsError:
        """The error for a refusal of a command of this session."""
        return error_of(refusal, what, self.state, self.session.session_id)

    def refresh(self, agent: str, artifact: ArtifactId) -> Steps[None]:
        """Extend a life to its full TTL, where a tenth of it has passed."""
        state = self.state.artifacts.get(artifact)
        if state is None or state.ttl_us is None or state.expires_at is None:
            return
        remaining = state.expires_at - self.coordinator.now()
        if (state.ttl_us - remaining) * 10 < state.ttl_us:
            return
        yield from self.ask(
            agent, lambda session: Refresh(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )

    def heartbeat(self) -> Steps[None]:
        """Tell the log that this session is alive, where that matters."""
        session = self.session
        if session.joined:
            yield Submit(Heartbeat(session_id=session.session_id, number=UNNUMBERED), session.numbers)
