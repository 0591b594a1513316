"""The state as it would be after decisions that are not in the log yet.

`coordinator.batch` decides a batch of commands on an `Overlay`. Guarantees: an overlay answers like the directory it
lies on and never changes it, so that it can be thrown away; making one, and editing a participant on it, costs nothing
that grows with the size of the state. Does not: answer commands; only decisions that are in the log do.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSet
from typing import Generic, TypeVar

from ccs_stream.protocol.directory import ArtifactState, Directory, ParticipantState, SessionState
from ccs_stream.protocol.ids import ArtifactId, Micros, ParticipantNumber, SessionId

T = TypeVar("T")
V = TypeVar("V")


class LayeredSet(MutableSet[T]):
    """A set with changes laid over another one, which stays as it is: a participant may hold 100,000 copies."""

    __slots__ = ("_added", "_below", "_gone")

    def __init__(self, below: MutableSet[T]) -> None:
        self._below = below
        self._added: set[T] = set()
        self._gone: set[T] = set()

    def __contains__(self, value: object) -> bool:
        return value in self._added or (value in self._below and value not in self._gone)

    def __iter__(self) -> Iterator[T]:
        yield from self._added
        for value in self._below:
            if value not in self._gone and value not in self._added:
                yield value

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, value: T) -> None:
        """Add it here."""
        self._added.add(value)
        self._gone.discard(value)

    def discard(self, value: T) -> None:
        """Remove it here."""
        self._added.discard(value)
        self._gone.add(value)


class LayeredMap(MutableMapping[T, V]):
    """A mapping with changes laid over another one, which stays as it is and comes first: it is the older."""

    __slots__ = ("_added", "_below", "_gone")

    def __init__(self, below: MutableMapping[T, V]) -> None:
        self._below = below
        self._added: dict[T, V] = {}
        self._gone: set[T] = set()
        """Keys below that are gone, or were added again since."""

    def __getitem__(self, key: T) -> V:
        if key in self._added:
            return self._added[key]
        if key in self._gone:
            raise KeyError(key)
        return self._below[key]

    def __setitem__(self, key: T, value: V) -> None:
        self._added[key] = value
        self._gone.add(key)

    def __delitem__(self, key: T) -> None:
        if key in self._added:
            del self._added[key]
        elif key in self._gone or key not in self._below:
            raise KeyError(key)
        self._gone.add(key)

    def __iter__(self) -> Iterator[T]:
        for key in self._below:
            if key not in self._gone:
                yield key
        yield from self._added

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _laid_over(participant: ParticipantState) -> ParticipantState:
    """Like `ParticipantState.fork`, without copying everything the participant holds."""
    return ParticipantState(
        participant.number,
        participant.agent,
        participant.session_id,
        LayeredSet(participant.held),
        set(participant.reserved),
        dict(participant.reclaimed),
        LayeredMap(participant.owned),
    )


class _Overlaid(Generic[T, V]):
    """A mapping with changes laid over another one: what was edited here, and None for what was dropped here."""

    __slots__ = ("below", "own")

    def __init__(self, below: Mapping[T, V]) -> None:
        self.below = below
        self.own: dict[T, V | None] = {}

    def get(self, key: T, /) -> V | None:
        """The value of a key, if it is there."""
        own = self.own
        return own[key] if key in own else self.below.get(key)


class Overlay:
    """A directory as it would be after further decisions, which are not in the log yet.

    Everything edited is copied first; thrown away, it leaves no trace below. Nothing is ever answered from it.
    """

    __slots__ = (
        "_base",
        "_ended",
        "artifacts",
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

    def __init__(self, base: Directory) -> None:
        self._base = base
        self.sequence = self.last_complete_sequence = base.sequence
        self.recorded_at = base.recorded_at
        self.opened = base.opened
        self.settings = base.settings
        self.participants_ever = base.participants_ever
        self.unknown_events = base.unknown_events
        self.artifacts = _Overlaid(base.artifacts)
        self.sessions = _Overlaid(base.sessions)
        self.participants = _Overlaid(base.participants)
        self._ended: set[SessionId] = set()

    def has_ended(self, session_id: SessionId) -> bool:
        return session_id in self._ended or self._base.has_ended(session_id)

    def sessions_alive(self) -> Iterator[SessionState]:
        own = self.sessions.own
        for session in own.values():
            if session is not None:
                yield session
        for session in self._base.sessions_alive():
            if session.session_id not in own:
                yield session

    def session_count(self) -> int:
        return sum(1 for _ in self.sessions_alive())

    def due(self, now: Micros) -> Iterator[ArtifactId]:
        return self._base.due(now)

    def add_artifact(self, artifact: ArtifactState) -> None:
        self.artifacts.own[artifact.artifact] = artifact

    def edit_artifact(self, artifact: ArtifactId) -> ArtifactState:
        own = self.artifacts.own.get(artifact)
        if own is None:
            own = self.artifacts.own[artifact] = self._base.edit_artifact(artifact).fork()
        return own

    def mark_existing(self, artifact: ArtifactState) -> None:
        """Nothing: `decide` looks nothing up by its address."""

    def mark_deleted(self, artifact: ArtifactState) -> None:
        """Nothing, for the same reason."""

    def add_session(self, session: SessionState) -> None:
        self.sessions.own[session.session_id] = session

    def edit_session(self, session_id: SessionId) -> SessionState | None:
        own = self.sessions.own
        if session_id not in own:
            below = self.sessions.below.get(session_id)
            own[session_id] = None if below is None else below.fork()
        return own[session_id]

    def drop_session(self, session_id: SessionId) -> None:
        self.sessions.own[session_id] = None
        self._ended.add(session_id)

    def add_participant(self, participant: ParticipantState) -> None:
        self.participants.own[participant.number] = participant

    def edit_participant(self, number: ParticipantNumber) -> ParticipantState | None:
        own = self.participants.own
        if number not in own:
            below = self.participants.below.get(number)
            own[number] = None if below is None else _laid_over(below)
        return own[number]

    def drop_participant(self, number: ParticipantNumber) -> None:
        self.participants.own[number] = None

    def drop_copies(self, artifact: ArtifactId, numbers: Iterable[ParticipantNumber]) -> None:
        for number in numbers:
            participant = self.edit_participant(number)
            if participant is not None:
                participant.held.discard(artifact)

    def schedule(self, at: Micros, artifact: ArtifactId) -> None:
        """Nothing: an overlay lives shorter than any deadline, and the fold schedules again."""
