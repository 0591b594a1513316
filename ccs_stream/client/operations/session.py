"""The session of a workspace's client: has commands decided, joins agents, and knows the ids of addresses.

The reader, the writer and reservations submit their commands through `CommandSession`.

Guarantees: an agent joins the log when it first acts. A session that the log has ended is replaced by a new one, and
the command that was refused for that is submitted once more, because a refused command changed nothing. Does not: carry
grants or reservations over; they ended with the session.
"""

import dataclasses
import itertools
import uuid
from collections.abc import Callable
from typing import Final

from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.errors import error_of
from ccs_stream.client.operations.steps import Steps, Submit
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.commands import Command, Heartbeat, Join, Refresh
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.events import CommandRefused, ParticipantJoined, RefusalReason
from ccs_stream.protocol.ids import ArtifactId, CommandNumber, ParticipantNumber, Scope, SessionId, artifact_id
from ccs_stream.protocol.limits import check_scope, check_text
from ccs_stream.protocol.process_identity import ProcessIdentity

ADDRESSES_MAX: Final = 200_000
"""Artifact ids remembered by address: deriving one costs three microseconds."""
UNNUMBERED: Final = CommandNumber(0)
"""The coordinator gives a command its number when it decides it, so that numbers follow the order of decisions."""
LOST: Final = (RefusalReason.SESSION_ENDED, RefusalReason.UNKNOWN_SESSION, RefusalReason.UNKNOWN_PARTICIPANT)
"""Refusals that say that the session, or its part in the workspace, is gone."""


@dataclasses.dataclass(slots=True)
class ClientSession:
    """One session: its id, the counter of its commands, and the agents that have joined."""

    session_id: SessionId = dataclasses.field(default_factory=lambda: SessionId(uuid.uuid4().bytes))
    numbers: CommandCounter = dataclasses.field(default_factory=CommandCounter)
    joined: dict[str, ParticipantNumber] = dataclasses.field(default_factory=dict)


class CommandSession:
    """Submits the commands of one workspace's client, under whichever session is under way."""

    def __init__(self, coordinator: Coordinator, identity: ProcessIdentity | None = None) -> None:
        """`identity` is recorded with each agent that joins."""
        self.coordinator = coordinator
        self.current = ClientSession()
        """The session under way. Take it once for a command: another thread may replace it."""
        self.on_replaced: Callable[[SessionId], object] | None = None
        """Called with the id of a new session."""
        self.addresses: dict[tuple[Scope, str], ArtifactId] = {}
        """Ids of the addresses used before; their texts have been checked."""
        self._state = coordinator.state
        self._identity = (identity or ProcessIdentity()).members()

    def address(self, scope: Scope, key: str) -> ArtifactId:
        """The id of an address. Raises `UsageError` for a text that the log cannot hold."""
        name = (scope, key)
        try:
            found = self.addresses.get(name)
        except TypeError:  # what cannot be a key of a mapping is neither a text nor a tuple of texts
            found = None
        if found is None:
            check_text(key, "a key")
            check_scope(scope)
            if len(self.addresses) >= ADDRESSES_MAX:
                for old in list(itertools.islice(self.addresses, ADDRESSES_MAX // 10)):
                    self.addresses.pop(old, None)
            found = self.addresses[name] = artifact_id(self.coordinator.workspace, scope, key)
        return found

    def submit(
        self,
        agent: str,
        build: Callable[[SessionId], Command],
        work: Callable[[], object] | None = None,
        read_set: ReadSet | None = None,
    ) -> Steps[Answer]:
        """Have a command of `agent` decided, after the `work` it needs. Joins first where needed.

        Submits the command once more if the log has ended the session. `read_set` learns what a write made.
        """
        for attempt in (1, 2):
            session = self.current
            if agent not in session.joined:
                refused = yield from self._join(session, agent)
                if refused is not None and attempt == 1:
                    self._replace(session)
                    continue
            answer: Answer = yield Submit(build(session.session_id), session.numbers, work, read_set)
            refusal = answer.refusal
            if refusal is not None and refusal.reason in LOST and attempt == 1:
                self._replace(session)
                continue
            return answer
        raise AssertionError("unreachable: the second attempt returns")

    def _join(self, session: ClientSession, agent: str) -> Steps[RefusalReason | None]:
        check_text(agent, "an agent's name")
        join = Join(session_id=session.session_id, number=UNNUMBERED, agent=agent, **self._identity)
        answer: Answer = yield Submit(join, session.numbers)
        if answer.refusal is not None:
            return answer.refusal.reason
        for event in answer.events:
            if type(event) is ParticipantJoined:
                session.joined[agent] = event.participant
        if agent not in session.joined:
            # Another thread joined the agent between our look and our command.
            known = self._state.sessions.get(session.session_id)
            if known is not None:
                session.joined[agent] = known.participants[agent]
        return None

    def _replace(self, lost: ClientSession) -> None:
        if self.current is lost:
            session = ClientSession()
            if self.on_replaced is not None:  # first: after an interrupt in between, it is done again
                self.on_replaced(session.session_id)
            self.current = session

    def error_of(self, refusal: CommandRefused, what: str) -> CcsError:
        """The error for a refusal of a command of this session."""
        return error_of(refusal, what, self._state, self.current.session_id)

    def refresh(self, agent: str, artifact: ArtifactId) -> Steps[None]:
        """Extend the life of an artifact to its full TTL, where a tenth of the TTL has passed."""
        state = self._state.artifacts.get(artifact)
        if state is None or state.ttl_us is None or state.expires_at is None:
            return
        remaining = state.expires_at - self.coordinator.now()
        if (state.ttl_us - remaining) * 10 < state.ttl_us:
            return
        yield from self.submit(
            agent, lambda session: Refresh(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact)
        )

    def heartbeat(self) -> Steps[None]:
        """Renew the session on the log, where an agent has joined."""
        session = self.current
        if session.joined:
            yield Submit(Heartbeat(session_id=session.session_id, number=UNNUMBERED), session.numbers)
