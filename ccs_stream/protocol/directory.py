"""The directory: the state of a workspace, with who holds which copy, at which version, under which reservation.

Coordinators keep one for each workspace. Guarantees: the whole state is a fold of the log (`evolve`), read by `decide`
through `View`. Does not: hold bodies; it holds their hashes and where the log keeps them.

Three indexes are derived and not part of the state hash: what each participant holds, what exists under each scope,
and the heap of times at which a reservation or a life ends. `rebuild_indexes` makes them anew from the rest. Two facts
beside the hashed state cannot be derived again: why and when a grant was reclaimed, and when an owner's E grant began.
They come from folding the log, or from a snapshot new enough to contain them.
"""

import dataclasses
import heapq
import operator
from collections.abc import Iterable, Iterator, MutableMapping, MutableSet
from typing import Final, Protocol, TypeVar

from ccs_stream.protocol.ids import (
    NOBODY,
    ArtifactId,
    CommandNumber,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    Scope,
    SequenceNumber,
    SessionId,
    Version,
)
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.reclaims import Reclaim
from ccs_stream.protocol.settings import DEFAULT_SETTINGS, WorkspaceSettings
from ccs_stream.protocol.states import GrantState

K_contra = TypeVar("K_contra", contravariant=True)
V_co = TypeVar("V_co", covariant=True)
K = TypeVar("K")
S = TypeVar("S", "ArtifactState", "SessionState", "ParticipantState")

ENDED_SESSIONS_KEPT = 65_536
"""Ids of ended sessions that are remembered, for the refusals of their late commands; older ones are unknown
sessions."""


NO_PARTICIPANTS: Final[frozenset[ParticipantNumber]] = frozenset()
"""The empty set that artifacts share: a set of its own for each would be a fifth of what an artifact takes."""


@dataclasses.dataclass(slots=True)
class ArtifactState:
    """One artifact. `version` 0 means that it was registered by a reservation and never written."""

    artifact: ArtifactId
    scope: Scope
    key: str
    version: Version = Version(0)
    deleted: bool = False
    sequence: SequenceNumber = SequenceNumber(0)
    """Sequence of the event that made the current version."""
    content_type: str = ""
    content_encoding: str = ""
    content_hash: Hash = Hash(b"")
    content_size: int = 0
    content_index: int | None = None
    content_locator: bytes | None = None
    writer: ParticipantNumber = NOBODY
    writer_agent: str = ""
    created_at: Micros = Micros(0)
    updated_at: Micros = Micros(0)
    expires_at: Micros | None = None
    ttl_us: Micros | None = None
    index_fields: tuple[str, ...] | None = None
    owner: ParticipantNumber = NOBODY
    """The one participant in M or E, if any; then there are no sharers."""
    owner_state: GrantState = GrantState.INVALID
    owned_since: Micros = Micros(0)
    sharers: set[ParticipantNumber] | frozenset[ParticipantNumber] = NO_PARTICIPANTS
    fence: Fence = Fence(0)
    reserved_by: ParticipantNumber = NOBODY
    reserved_until: Micros = Micros(0)
    reclaimed: frozenset[ParticipantNumber] = NO_PARTICIPANTS
    """The participants that lost a reservation or a grant here and have not read since: their writes are refused."""
    born: Version = dataclasses.field(default=Version(0), compare=False)
    """The version with which it came into being, or came back after a delete. 0 where that was before the snapshot that
    the state was restored from. Not part of the state hash."""

    @property
    def exists(self) -> bool:
        """True if there is something to read, expired or not."""
        return self.version > 0 and not self.deleted

    def expired(self, now: Micros) -> bool:
        """True if its life is over at `now`, whether the log has an event for that or not."""
        return self.expires_at is not None and self.expires_at <= now

    def readable(self, now: Micros) -> bool:
        """True if a reader finds something at `now`."""
        return self.version > 0 and not self.deleted and (self.expires_at is None or self.expires_at > now)

    def reserved(self, now: Micros) -> bool:
        """True if a reservation is in force at `now`."""
        return self.reserved_by != NOBODY and self.reserved_until > now

    def state_of(self, participant: ParticipantNumber) -> GrantState:
        """The grant the directory records for `participant`."""
        if participant == self.owner and participant != NOBODY:
            return self.owner_state
        return GrantState.SHARED if participant in self.sharers else GrantState.INVALID

    def holds(self, participant: ParticipantNumber) -> bool:
        """True if `participant` has a copy of the current version."""
        return participant == self.owner or participant in self.sharers

    def share(self, participant: ParticipantNumber) -> None:
        """Record that `participant` holds a copy in S."""
        if isinstance(self.sharers, set):
            self.sharers.add(participant)
        else:
            self.sharers = {participant}

    def unshare(self, participants: Iterable[ParticipantNumber]) -> None:
        """Record that none of `participants` holds a copy in S."""
        if self.sharers:
            self.sharers = self.sharers.difference(participants) or NO_PARTICIPANTS

    def copy(self) -> "ArtifactState":
        """A copy for a reader without the lock. It shares the sets of holders; do not change it."""
        # copy.copy goes by way of pickling, and takes six times as long.
        return ArtifactState(*_ARTIFACT_VALUES(self))

    def fork(self) -> "ArtifactState":
        """A copy whose changes do not show here."""
        other = self.copy()
        if other.sharers:
            other.sharers = set(other.sharers)
        return other


@dataclasses.dataclass(slots=True)
class ParticipantState:
    """One (agent, session), alive as long as its session."""

    number: ParticipantNumber
    agent: str
    session_id: SessionId
    held: MutableSet[ArtifactId] = dataclasses.field(default_factory=set)
    reserved: set[ArtifactId] = dataclasses.field(default_factory=set)
    reclaimed: dict[ArtifactId, Reclaim | None] = dataclasses.field(default_factory=dict)
    """Why and when it lost each artifact that it has not read since; None where that is not known."""
    owned: MutableMapping[ArtifactId, Micros] = dataclasses.field(default_factory=dict)
    """Artifacts that it holds in M or E, and since when, longest first. Kept only with crash recovery on."""

    def fork(self) -> "ParticipantState":
        """A copy whose changes do not show here."""
        return ParticipantState(
            self.number,
            self.agent,
            self.session_id,
            set(self.held),
            set(self.reserved),
            dict(self.reclaimed),
            dict(self.owned),
        )


@dataclasses.dataclass(slots=True)
class SessionState:
    """One run of a client process: its participants, and the window of its last command numbers."""

    session_id: SessionId
    joined_at: Micros
    active_at: Micros
    renewed_until: Micros = Micros(0)
    highest: CommandNumber = CommandNumber(0)
    participants: dict[str, ParticipantNumber] = dataclasses.field(default_factory=dict)
    window: dict[CommandNumber, int] = dataclasses.field(default_factory=dict)
    """By number, the `dedupe.entry` of its decision: last sequence, kind and subject."""
    process: ProcessIdentity | None = None
    """What its process said about itself; not part of the state hash."""

    def fork(self) -> "SessionState":
        """A copy whose changes do not show here."""
        return SessionState(
            self.session_id,
            self.joined_at,
            self.active_at,
            self.renewed_until,
            self.highest,
            dict(self.participants),
            dict(self.window),
            self.process,
        )


_ARTIFACT_VALUES: Final = operator.attrgetter(*(field.name for field in dataclasses.fields(ArtifactState)))


class Lookup(Protocol[K_contra, V_co]):
    """A mapping as far as the rules need it."""

    def get(self, key: K_contra, /) -> V_co | None:
        """The value of a key, if it is there."""


class View(Protocol):
    """The state as `decide` reads it: a `Directory`, or an `Overlay` on one."""

    sequence: SequenceNumber
    recorded_at: Micros
    settings: WorkspaceSettings
    opened: bool
    participants_ever: int
    unknown_events: int

    @property
    def artifacts(self) -> Lookup[ArtifactId, ArtifactState]:
        """Every artifact whose address was ever registered."""

    @property
    def sessions(self) -> Lookup[SessionId, SessionState]:
        """The live sessions."""

    @property
    def participants(self) -> Lookup[ParticipantNumber, ParticipantState]:
        """The participants of live sessions."""

    def has_ended(self, session_id: SessionId) -> bool:
        """True if the session is known to have ended."""

    def due(self, now: Micros) -> Iterator[ArtifactId]:
        """Artifacts whose reservation or life may have run out at `now`, earliest first. Look at each of them again."""

    def sessions_alive(self) -> Iterator[SessionState]:
        """Every live session."""

    def session_count(self) -> int:
        """How many sessions are alive."""


class MutableState(View, Protocol):
    """A state that `evolve` can change: whatever an `edit_...` method returns belongs to this state alone."""

    last_complete_sequence: SequenceNumber
    """Sequence of the last decision that is folded to its end: a reader without the lock may rely on it."""

    def add_artifact(self, artifact: ArtifactState) -> None:
        """Add a newly registered artifact."""

    def edit_artifact(self, artifact: ArtifactId) -> ArtifactState:
        """The artifact, to be changed. Raises `KeyError` when it was never registered."""

    def mark_existing(self, artifact: ArtifactState) -> None:
        """Enter an artifact that has come into being into the index of what exists."""

    def mark_deleted(self, artifact: ArtifactState) -> None:
        """Remove a deleted artifact from the index of what exists."""

    def add_session(self, session: SessionState) -> None:
        """Add a new session."""

    def edit_session(self, session_id: SessionId) -> SessionState | None:
        """The session, to be changed."""

    def drop_session(self, session_id: SessionId) -> None:
        """Forget a session and remember that it ended."""

    def add_participant(self, participant: ParticipantState) -> None:
        """Add a new participant."""

    def edit_participant(self, number: ParticipantNumber) -> ParticipantState | None:
        """The participant, to be changed."""

    def drop_participant(self, number: ParticipantNumber) -> None:
        """Forget a participant."""

    def drop_copies(self, artifact: ArtifactId, numbers: Iterable[ParticipantNumber]) -> None:
        """Record that these participants no longer hold `artifact`. Participants of ended sessions are passed over."""

    def schedule(self, at: Micros, artifact: ArtifactId) -> None:
        """Remember that a reservation or life of `artifact` runs out at `at`."""


def _taken_over(known: dict[K, S], new: dict[K, S]) -> dict[K, S]:
    """`new`, in its order, with the objects of `known` in the place of those with the same keys."""
    merged: dict[K, S] = {}
    for key, state in new.items():
        kept = merged[key] = known.get(key, state)
        if kept is not state:
            for field in dataclasses.fields(state):
                setattr(kept, field.name, getattr(state, field.name))
    return merged


class Directory:
    """The folded state of one workspace."""

    __slots__ = (
        "agents",
        "artifacts",
        "deadlines",
        "ended_sessions",
        "existing",
        "last_complete_sequence",
        "opened",
        "participants",
        "participants_ever",
        "recorded_at",
        "sequence",
        "sessions",
        "settings",
        "unknown_events",
    )

    def __init__(self) -> None:
        self.sequence = SequenceNumber(0)
        self.last_complete_sequence = SequenceNumber(0)
        self.recorded_at = Micros(0)
        self.opened = False
        self.settings: WorkspaceSettings = DEFAULT_SETTINGS
        self.participants_ever = 0
        self.unknown_events = 0
        self.artifacts: dict[ArtifactId, ArtifactState] = {}
        self.sessions: dict[SessionId, SessionState] = {}
        self.participants: dict[ParticipantNumber, ParticipantState] = {}
        self.agents: dict[ParticipantNumber, str] = {}
        """Agent of every participant there ever was: history names authors long after their sessions ended."""
        self.ended_sessions: dict[SessionId, None] = {}
        self.deadlines: list[tuple[Micros, ArtifactId]] = []
        self.existing: dict[Scope, dict[str, ArtifactId]] = {}
        """By scope and key, the artifacts that exist (expired or not), in the order in which they came into being."""

    def has_ended(self, session_id: SessionId) -> bool:
        return session_id in self.ended_sessions

    def sessions_alive(self) -> Iterator[SessionState]:
        return iter(self.sessions.values())

    def session_count(self) -> int:
        return len(self.sessions)

    def due(self, now: Micros) -> Iterator[ArtifactId]:
        while self.deadlines and not self._holds(*self.deadlines[0]):
            heapq.heappop(self.deadlines)
        return self._earliest_first(now)

    def next_deadline(self) -> Micros | None:
        """The earliest time at which something may run out. A deadline that has moved since counts until it passes."""
        return self.deadlines[0][0] if self.deadlines else None

    def add_artifact(self, artifact: ArtifactState) -> None:
        self.artifacts[artifact.artifact] = artifact

    def edit_artifact(self, artifact: ArtifactId) -> ArtifactState:
        return self.artifacts[artifact]

    def add_session(self, session: SessionState) -> None:
        self.sessions[session.session_id] = session

    def edit_session(self, session_id: SessionId) -> SessionState | None:
        return self.sessions.get(session_id)

    def drop_session(self, session_id: SessionId) -> None:
        self.sessions.pop(session_id, None)
        self.ended_sessions[session_id] = None
        while len(self.ended_sessions) > ENDED_SESSIONS_KEPT:
            del self.ended_sessions[next(iter(self.ended_sessions))]

    def add_participant(self, participant: ParticipantState) -> None:
        self.participants[participant.number] = participant
        self.agents[participant.number] = participant.agent

    def edit_participant(self, number: ParticipantNumber) -> ParticipantState | None:
        return self.participants.get(number)

    def drop_participant(self, number: ParticipantNumber) -> None:
        self.participants.pop(number, None)

    def drop_copies(self, artifact: ArtifactId, numbers: Iterable[ParticipantNumber]) -> None:
        participants = self.participants
        for number in numbers:
            participant = participants.get(number)
            if participant is not None:
                participant.held.discard(artifact)

    def mark_existing(self, artifact: ArtifactState) -> None:
        self.existing.setdefault(artifact.scope, {})[artifact.key] = artifact.artifact

    def mark_deleted(self, artifact: ArtifactState) -> None:
        keys = self.existing.get(artifact.scope)
        if keys is not None:
            keys.pop(artifact.key, None)
            if not keys:
                del self.existing[artifact.scope]

    def schedule(self, at: Micros, artifact: ArtifactId) -> None:
        heapq.heappush(self.deadlines, (at, artifact))

    def become(self, other: "Directory") -> None:
        """Take over the state of `other`, which was folded from the same log and is not used any more.

        Artifacts, sessions and participants that readers have at hand stay those of this directory.
        """
        other.artifacts = _taken_over(self.artifacts, other.artifacts)
        other.sessions = _taken_over(self.sessions, other.sessions)
        other.participants = _taken_over(self.participants, other.participants)
        for name in Directory.__slots__:
            setattr(self, name, getattr(other, name))

    def rebuild_indexes(self) -> None:
        """Derive the indexes from artifacts and participants, as after loading a snapshot."""
        self.deadlines, self.existing = [], {}
        beside = {number: (each.reclaimed, each.owned) for number, each in self.participants.items()}
        for participant in self.participants.values():
            participant.held, participant.reserved, participant.reclaimed, participant.owned = set(), set(), {}, {}
        by_creation = sorted(self.artifacts.values(), key=lambda each: (each.created_at, each.sequence))
        for artifact in by_creation:
            if artifact.exists:
                self.mark_existing(artifact)
            if artifact.expires_at is not None:
                self.schedule(artifact.expires_at, artifact.artifact)
            if artifact.reserved_by != NOBODY:
                self.schedule(artifact.reserved_until, artifact.artifact)
                self.participants[artifact.reserved_by].reserved.add(artifact.artifact)
            for number in artifact.reclaimed:
                self.participants[number].reclaimed[artifact.artifact] = beside[number][0].get(artifact.artifact)
            for number in (*artifact.sharers, artifact.owner):
                if number != NOBODY:
                    self.participants[number].held.add(artifact.artifact)
        if self.settings.crash_recovery:
            owned = (each for each in by_creation if each.owner != NOBODY)
            taken = ((beside[each.owner][1].get(each.artifact, each.owned_since), each) for each in owned)
            for since, artifact in sorted(taken, key=operator.itemgetter(0)):
                self.participants[artifact.owner].owned[artifact.artifact] = since

    def _holds(self, at: Micros, artifact: ArtifactId) -> bool:
        """True unless the reservation or the life that was to end then was ended or moved meanwhile."""
        state = self.artifacts[artifact]
        lapsed = state.reserved_by != NOBODY and state.reserved_until == at
        return lapsed or (state.exists and state.expires_at == at)

    def _earliest_first(self, now: Micros) -> Iterator[ArtifactId]:
        """The artifacts whose deadlines have passed and still hold.

        Walks down the heap as far as it is asked to, and leaves it as it is, so that a sweep costs what it ends. A
        deadline that was moved or met leaves the heap when it is the earliest, so that the heap cannot grow.
        """
        deadlines = self.deadlines
        ahead = [(deadlines[0], 0)] if deadlines else []
        while ahead:
            (at, artifact), place = heapq.heappop(ahead)
            if at > now:
                return
            for below in (2 * place + 1, 2 * place + 2):
                if below < len(deadlines):
                    heapq.heappush(ahead, (deadlines[below], below))
            if self._holds(at, artifact):
                yield artifact
