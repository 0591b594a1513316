"""The transitions of grants, with their triggers: the state log, folded from the events.

The client's state log and `ccs-replay transitions` show them. Guarantees: fed every admitted decision in order, from
the first or from the place of a directory, it yields the same transitions on every host; the states that they leave are
those of the directory at that decision's end; a write costs as many transitions as there are holders, once each. Memory
is bounded by the grants that are held and the participants that are alive. Does not: show events that change no grant's
state (another reader beside a sharer) or concern no grant (reservations, refusals, extended lives).

The order of one call's transitions, and their triggers, are those of agent-coherence 0.6, whose users read such logs: a
write takes the copies of others, then takes hold of the artifact, then commits, and then each of the others is
notified. There the versions begin at 2, here at 1, and there a delete is not shown. Of its triggers, `register`,
`update`, `timeout` and `unknown` have no event here and are never yielded.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Final, Self, assert_never

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Micros, ParticipantNumber, SequenceNumber, SessionId, Version
from ccs_stream.protocol.states import GrantState


class TransitionTrigger(enum.StrEnum):
    """The causes of transitions."""

    REGISTER = "register"
    FETCH = "fetch"
    WRITE = "write"
    COMMIT = "commit"
    INVALIDATE = "invalidate"
    UPDATE = "update"
    TIMEOUT = "timeout"
    RECLAIM_HEARTBEAT = "reclaim_heartbeat"
    RECLAIM_MAX_HOLD = "reclaim_max_hold"
    UNKNOWN = "unknown"


# A name of the module costs a third of what a member of an enum costs to look up, and a fold does that most of all.
_M: Final = GrantState.MODIFIED
_E: Final = GrantState.EXCLUSIVE
_S: Final = GrantState.SHARED
_I: Final = GrantState.INVALID
_FETCH: Final = TransitionTrigger.FETCH
_WRITE: Final = TransitionTrigger.WRITE
_COMMIT: Final = TransitionTrigger.COMMIT
_INVALIDATE: Final = TransitionTrigger.INVALIDATE
_RECLAIM: Final = {
    ev.ReclaimTrigger.SESSION_SILENT: TransitionTrigger.RECLAIM_HEARTBEAT,
    ev.ReclaimTrigger.MAXIMUM_HOLD: TransitionTrigger.RECLAIM_MAX_HOLD,
}


@dataclasses.dataclass(slots=True)
class Transition:
    """One grant that changed, or that a commit or an invalidation confirmed. Not to be changed."""

    artifact: ArtifactId
    agent: str
    """Name of the participant's agent; empty only where a log names a participant that never joined."""
    participant: ParticipantNumber
    from_state: GrantState
    to_state: GrantState
    trigger: TransitionTrigger
    version: Version
    """Version of the artifact at that moment."""
    content_hash: str | None
    """SHA-256 in hex, on the committer's own commit; else None."""
    sequence: SequenceNumber
    """Log sequence of the event that caused it."""
    recorded_at: Micros


class _Grants:
    """The holders of one artifact; kept only while there are any."""

    __slots__ = ("owner", "owner_state", "sharers", "version")

    def __init__(
        self, version: Version, owner: ParticipantNumber, owner_state: GrantState, sharers: set[ParticipantNumber]
    ) -> None:
        self.version = version
        self.owner = owner
        self.owner_state = owner_state
        self.sharers = sharers

    def state_of(self, participant: ParticipantNumber) -> GrantState:
        if participant == self.owner:
            return self.owner_state
        return _S if participant in self.sharers else _I


class _Holder:
    """One living participant."""

    __slots__ = ("agent", "held")

    def __init__(self, agent: str, held: set[ArtifactId]) -> None:
        self.agent = agent
        self.held = held


class Transitions:
    """Folds decisions into transitions."""

    def __init__(self) -> None:
        self._artifacts: dict[ArtifactId, _Grants] = {}
        self._holders: dict[ParticipantNumber, _Holder] = {}
        self._sessions: dict[SessionId, dict[str, ParticipantNumber]] = {}

    @classmethod
    def from_directory(cls, directory: Directory) -> Self:
        """A fold that goes on from the place up to which `directory` is folded. The directory is not kept."""
        made = cls()
        for artifact in directory.artifacts.values():
            if artifact.owner != NOBODY or artifact.sharers:
                made._artifacts[artifact.artifact] = _Grants(
                    artifact.version, artifact.owner, artifact.owner_state, set(artifact.sharers)
                )
        for number, participant in directory.participants.items():
            made._holders[number] = _Holder(participant.agent, set(participant.held))
        for session_id, session in directory.sessions.items():
            made._sessions[session_id] = dict(session.participants)
        return made

    def decision(
        self, first_sequence: SequenceNumber, recorded_at: Micros, events: Sequence[ev.Event]
    ) -> list[Transition]:
        """Fold one admitted decision; returns its transitions, in order."""
        found: list[Transition] = []
        sequence = first_sequence
        for event in events:
            self._event(event, sequence, recorded_at, found)
            sequence = SequenceNumber(sequence + 1)
        return found

    def _event(self, event: ev.Event, sequence: SequenceNumber, at: Micros, found: list[Transition]) -> None:
        match event:
            case ev.WriteCommitted():
                self._written(event, sequence, at, found)
            case ev.GrantIssued():
                self._issued(event, sequence, at, found)
            case ev.GrantsInvalidated():
                self._invalidated(event, sequence, at, found)
            case ev.ParticipantJoined():
                self._holders[event.participant] = _Holder(event.agent, set())
                self._sessions.setdefault(event.session_id, {})[event.agent] = event.participant
            case ev.SessionEnded():
                self._session_ended(event, sequence, at, found)
            case ev.GrantReclaimed():
                self._lose(event.artifact, event.participant, _RECLAIM[event.trigger], None, sequence, at, found)
            case (
                # A delete's holders are named by the event that follows it.
                ev.ArtifactDeleted()
                | ev.ArtifactRegistered()
                | ev.CommandAnswered()
                | ev.CommandRefused()
                | ev.ExpiryExtended()
                | ev.ReservationAcquired()
                | ev.ReservationEnded()
                | ev.SessionRenewed()
                | ev.UnknownEvent()
                | ev.WorkspaceOpened()
            ):
                pass
            case _:
                assert_never(event)

    def _written(self, event: ev.WriteCommitted, sequence: SequenceNumber, at: Micros, found: list[Transition]) -> None:
        artifact, writer, version = event.artifact, event.participant, event.version
        before = Version(version - 1)
        holder = self._holder(writer)
        agent = holder.agent
        grants = self._artifacts.get(artifact)
        if grants is None:
            self._artifacts[artifact] = _Grants(version, writer, _M, set())
            if version == 1:
                # There are no holders of an artifact that did not exist: its author takes hold of it as a reader does.
                found.append(Transition(artifact, agent, writer, _I, _E, _FETCH, before, None, sequence, at))
                from_state = _E
            else:
                from_state = _I
            holder.held.add(artifact)
        else:
            if grants.owner == writer:
                from_state = grants.owner_state
            else:
                from_state = _S if writer in grants.sharers else _I
                self._take(artifact, grants, writer, before, sequence, at, found)
                holder.held.add(artifact)
                grants.owner = writer
            grants.owner_state = _M
            grants.version = version
        found.append(Transition(artifact, agent, writer, from_state, _E, _WRITE, before, None, sequence, at))
        content_hash = event.content_hash.hex()
        found.append(Transition(artifact, agent, writer, _E, _M, _COMMIT, version, content_hash, sequence, at))

    def _take(
        self,
        artifact: ArtifactId,
        grants: _Grants,
        writer: ParticipantNumber,
        version: Version,
        sequence: SequenceNumber,
        at: Micros,
        found: list[Transition],
    ) -> None:
        """Take the copies of all holders but the writer."""
        if grants.owner != NOBODY:
            holder = self._holder(grants.owner)
            holder.held.discard(artifact)
            found.append(
                Transition(
                    artifact, holder.agent, grants.owner, grants.owner_state, _I, _WRITE, version, None, sequence, at
                )
            )
        if grants.sharers:
            for number in sorted(grants.sharers):
                if number != writer:
                    holder = self._holder(number)
                    holder.held.discard(artifact)
                    found.append(
                        Transition(artifact, holder.agent, number, _S, _I, _WRITE, version, None, sequence, at)
                    )
            grants.sharers = set()

    def _issued(self, event: ev.GrantIssued, sequence: SequenceNumber, at: Micros, found: list[Transition]) -> None:
        artifact, reader, to_state = event.artifact, event.participant, event.to_state
        if to_state is _I:
            return
        grants = self._artifacts.get(artifact)
        if grants is None:
            grants = self._artifacts[artifact] = _Grants(event.version, NOBODY, _I, set())
        from_state = grants.state_of(reader)
        if from_state is to_state:
            return  # a reader whose reservation was reclaimed has read again, and held its copy all along
        owner = grants.owner
        if owner not in (NOBODY, reader):
            agent = self._holder(owner).agent
            found.append(
                Transition(artifact, agent, owner, grants.owner_state, _S, _FETCH, event.version, None, sequence, at)
            )
        if to_state is _E:
            grants.owner, grants.owner_state = reader, _E
        else:
            if owner != NOBODY:
                grants.sharers.add(owner)
                grants.owner, grants.owner_state = NOBODY, _I
            grants.sharers.add(reader)
        holder = self._holder(reader)
        holder.held.add(artifact)
        found.append(
            Transition(artifact, holder.agent, reader, from_state, to_state, _FETCH, event.version, None, sequence, at)
        )

    def _invalidated(
        self, event: ev.GrantsInvalidated, sequence: SequenceNumber, at: Micros, found: list[Transition]
    ) -> None:
        """One transition a holder: after a write from I, as its copy was taken; after a delete from its state."""
        artifact, version = event.artifact, event.version
        named = event.sharers if event.owner == NOBODY else [event.owner, *event.sharers]
        for number in named:
            self._lose(artifact, number, _INVALIDATE, version, sequence, at, found)

    def _session_ended(
        self, event: ev.SessionEnded, sequence: SequenceNumber, at: Micros, found: list[Transition]
    ) -> None:
        for number in sorted(self._sessions.pop(event.session_id, {}).values()):
            # Sorted, because the order of a set is another one in each process.
            for artifact in sorted(self._holder(number).held):
                self._lose(artifact, number, _INVALIDATE, None, sequence, at, found)
            self._holders.pop(number, None)

    def _lose(
        self,
        artifact: ArtifactId,
        number: ParticipantNumber,
        trigger: TransitionTrigger,
        version: Version | None,
        sequence: SequenceNumber,
        at: Micros,
        found: list[Transition],
    ) -> None:
        """A participant holds no copy from now on; `version` None stands for the version of the copy it held."""
        holder = self._holder(number)
        grants, from_state = self._artifacts.get(artifact), _I
        if grants is not None:
            if version is None:
                version = grants.version
            if grants.owner == number:
                from_state = grants.owner_state
                grants.owner, grants.owner_state = NOBODY, _I
            elif number in grants.sharers:
                from_state = _S
                grants.sharers.discard(number)
            if from_state is not _I:
                holder.held.discard(artifact)
                if grants.owner == NOBODY and not grants.sharers:
                    del self._artifacts[artifact]
        found.append(
            Transition(
                artifact, holder.agent, number, from_state, _I, trigger, version or Version(0), None, sequence, at
            )
        )

    def _holder(self, number: ParticipantNumber) -> _Holder:
        return self._holders.get(number) or _Holder("", set())
