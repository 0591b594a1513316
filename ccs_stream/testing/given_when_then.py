"""Tests of the pure core as stories: given what happened, when a command comes, then these events follow.

    story = Story()
    story.given(story.write("planner", "plan"))
    story.when(story.read("reviewer", "plan")).then(ParticipantJoined, GrantIssued)

Guarantees: it runs the real `decide` and `fold`, and nothing else; there is no I/O, and time passes only with `after`.
Does not: encode anything; `ccs_stream.testing.records` does.
"""

import hashlib
from typing import Self

from ccs_stream.protocol.commands import (
    Acquire,
    ArtifactChange,
    Command,
    Commit,
    Content,
    Erase,
    Evict,
    Heartbeat,
    Join,
    Leave,
    Open,
    Read,
    Refresh,
    Release,
    Sweep,
    Write,
    WriteMode,
)
from ccs_stream.protocol.decide import Decision, decide
from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.events import CommandRefused, Event, RefusalReason
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import (
    NO_SESSION,
    ArtifactId,
    CommandNumber,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    SessionId,
    Version,
    artifact_id,
)
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.protocol.states import GrantState

WORKSPACE = "story"


def session_of(name: str) -> SessionId:
    """The session id for a name in stories."""
    return SessionId(hashlib.sha256(name.encode()).digest()[:16])


class Story:
    """One workspace, opened, with agents that join when they first act.

    An actor is written `agent` or `agent@session`; without a session the agent has one of its own.
    """

    def __init__(self, settings: WorkspaceSettings | None = None) -> None:
        self.state = Directory()
        self.now = Micros(1_750_000_000_000_000)
        self.decision: Decision | None = None
        self._pending: Command | None = None
        self._numbers: dict[SessionId, int] = {}
        self._perform(Open(session_id=NO_SESSION, number=CommandNumber(0), settings=settings or WorkspaceSettings()))

    # Telling.

    def given(self, *commands: Command) -> Self:
        """These commands were carried out."""
        for command in commands:
            decision = self._perform(command)
            assert decision.refusal is None, f"given {command}, which was refused: {decision.refusal}"
        return self

    def after(self, seconds: float) -> Self:
        """So many seconds pass."""
        self.now = Micros(self.now + round(seconds * SECOND_US))
        return self

    def when(self, command: Command) -> Self:
        """Decide this command, and fold the decision."""
        self.decision = self._perform(command)
        return self

    def then(self, *expected: type[Event] | Event) -> Self:
        """Exactly these events followed: a type stands for any event of that type."""
        events = self.events
        names = [type(event).__name__ for event in events]
        assert len(events) == len(expected), f"expected {[_name(each) for each in expected]}, got {names}"
        for event, wanted in zip(events, expected, strict=True):
            if isinstance(wanted, type):
                assert type(event) is wanted, f"expected {wanted.__name__}, got {event}"
            else:
                assert event == wanted, f"expected {wanted}, got {event}"
        return self

    def refused(self, reason: RefusalReason) -> Self:
        """The command was refused for this reason, and nothing else followed."""
        assert [type(event) for event in self.events] == [CommandRefused], f"expected a refusal, got {self.events}"
        refusal = self.events[0]
        assert isinstance(refusal, CommandRefused)
        assert refusal.reason is reason, f"expected {reason}, got {refusal.reason}: {refusal.detail}"
        return self

    def nothing(self) -> Self:
        """The command changed nothing."""
        return self.then()

    @property
    def events(self) -> list[Event]:
        """The events that followed the last `when`."""
        assert self.decision is not None, "nothing was asked for yet"
        return self.decision.events

    @property
    def refusal(self) -> CommandRefused:
        """The refusal that followed the last `when`."""
        assert self.decision is not None
        assert self.decision.refusal is not None
        return self.decision.refusal

    # Looking.

    def artifact(self, key: str) -> ArtifactState:
        """The artifact of a key. Raises `KeyError` if it was never registered."""
        return self.state.artifacts[self.id(key)]

    def id(self, key: str) -> ArtifactId:
        """The artifact's id."""
        return artifact_id(WORKSPACE, (), key)

    def participant(self, who: str) -> ParticipantNumber:
        """The number of an actor that has joined. Raises `KeyError` otherwise."""
        agent, session = self._who(who)
        return self.state.sessions[session].participants[agent]

    def grant(self, who: str, key: str) -> GrantState:
        """The state of an actor's copy."""
        return self.artifact(key).state_of(self.participant(who))

    # Commands.

    def join(self, who: str, *, number: int | None = None) -> Join:
        """A command to join."""
        agent, session = self._who(who)
        return Join(session_id=session, number=self._number(session, number), agent=agent)

    def read(self, who: str, key: str, *, number: int | None = None) -> Read:
        """A command to read."""
        agent, session = self._joined(who)
        return Read(session_id=session, number=self._number(session, number), agent=agent, artifact=self.id(key))

    def write(  # noqa: PLR0913  # the options of a write
        self,
        who: str,
        key: str,
        text: str = "text",
        *,
        base: int | None = None,
        cas: bool = False,
        fence: int | None = None,
        ttl_s: float | None = None,
        number: int | None = None,
        size: int | None = None,
        uploaded_at: Micros | None = None,
    ) -> Commit:
        """A command to write; with `cas`, only over version `base`."""
        change = self.change(key, text, base=base, cas=cas, fence=fence, ttl_s=ttl_s)
        if size is not None:
            change.content.size = size
        change.content.uploaded_at = uploaded_at
        return self.commit(who, change, number=number)

    def change(  # the options of a write
        self,
        key: str,
        text: str = "text",
        *,
        base: int | None = None,
        cas: bool = False,
        fence: int | None = None,
        ttl_s: float | None = None,
    ) -> Write:
        """One write of a commit."""
        body = text.encode()
        content = Content(
            content_type="text/plain",
            content_encoding="",
            content_hash=Hash(hashlib.sha256(body).digest()),
            size=len(body),
            body=body,
        )
        return Write(
            artifact=self.id(key),
            scope=(),
            key=key,
            content=content,
            mode=WriteMode.COMPARE_AND_SET if cas else WriteMode.LAST_WRITER_WINS,
            base_version=None if base is None else Version(base),
            fence=None if fence is None else Fence(fence),
            ttl_us=None if ttl_s is None else Micros(round(ttl_s * SECOND_US)),
        )

    def erase(self, key: str, *, base: int | None = None, cas: bool = False, fence: int | None = None) -> Erase:
        """One delete of a commit."""
        return Erase(
            artifact=self.id(key),
            mode=WriteMode.COMPARE_AND_SET if cas else WriteMode.LAST_WRITER_WINS,
            base_version=None if base is None else Version(base),
            fence=None if fence is None else Fence(fence),
        )

    def commit(self, who: str, *changes: ArtifactChange, number: int | None = None) -> Commit:
        """A command with several changes, all or none."""
        agent, session = self._joined(who)
        return Commit(session_id=session, number=self._number(session, number), agent=agent, changes=changes)

    def delete(
        self, who: str, key: str, *, base: int | None = None, cas: bool = False, fence: int | None = None
    ) -> Commit:
        """A command to delete."""
        return self.commit(who, self.erase(key, base=base, cas=cas, fence=fence))

    def acquire(self, who: str, key: str, seconds: float = 10) -> Acquire:
        """A command to take a reservation."""
        agent, session = self._joined(who)
        return Acquire(
            session_id=session,
            number=self._number(session, None),
            agent=agent,
            artifact=self.id(key),
            scope=(),
            key=key,
            duration_us=Micros(round(seconds * SECOND_US)),
        )

    def release(self, who: str, key: str, fence: int) -> Release:
        """A command to end a reservation."""
        agent, session = self._joined(who)
        return Release(
            session_id=session,
            number=self._number(session, None),
            agent=agent,
            artifact=self.id(key),
            fence=Fence(fence),
        )

    def refresh(self, who: str, key: str) -> Refresh:
        """A command to extend the life of an artifact."""
        agent, session = self._joined(who)
        return Refresh(session_id=session, number=self._number(session, None), agent=agent, artifact=self.id(key))

    def heartbeat(self, who: str) -> Heartbeat:
        """A command to renew the session."""
        _, session = self._who(who)
        return Heartbeat(session_id=session, number=self._number(session, None))

    def leave(self, who: str) -> Leave:
        """A command to end the actor's session."""
        _, session = self._who(who)
        return Leave(session_id=session, number=self._number(session, None))

    def evict(self, who: str, target: str) -> Evict:
        """A command to end another's session."""
        _, session = self._who(who)
        return Evict(session_id=session, number=self._number(session, None), target=self._who(target)[1])

    def sweep(self, limit: int = 100) -> Sweep:
        """The sweep that a coordinator makes."""
        return Sweep(session_id=NO_SESSION, number=CommandNumber(0), limit=limit)

    # Within.

    def _who(self, who: str) -> tuple[str, SessionId]:
        agent, _, session = who.partition("@")
        return agent, session_of(session or agent)

    def _joined(self, who: str) -> tuple[str, SessionId]:
        agent, session = self._who(who)
        known = self.state.sessions.get(session)
        if not self.state.has_ended(session) and (known is None or agent not in known.participants):
            self._perform(self.join(who))
        return agent, session

    def _number(self, session: SessionId, number: int | None) -> CommandNumber:
        if number is None:
            number = self._numbers[session] = self._numbers.get(session, 0) + 1
        return CommandNumber(number)

    def _perform(self, command: Command) -> Decision:
        decision = decide(self.state, command, self.now)
        if decision.events:
            fold(
                self.state,
                decision.events,
                recorded_at=max(self.now, self.state.recorded_at),
                session_id=command.session_id,
                number=command.number,
                kind=command.KIND,
            )
        return decision


def _name(expected: type[Event] | Event) -> str:
    return expected.__name__ if isinstance(expected, type) else type(expected).__name__
