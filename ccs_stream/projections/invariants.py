"""The invariants that every log must satisfy, checked on the events themselves.

`ccs-replay verify` and tests use them. Guarantees: an independent account. It knows what the events say and nothing of
how they were decided or folded, so that it finds errors that `decide` and `evolve` would make in the same way. Memory
is bounded by the state and by a few examples of each kind of finding. Does not: look into bodies, or see records that
are not in the log; a cut tail needs an anchor.

Two severities: a `violation` means that this software did not write the log as it is; a `loss` is an agent's work that
another one's write replaced unseen, which last-writer-wins allows and the log records.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Final, assert_never

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.ids import NOBODY, ArtifactId, ParticipantNumber, SessionId
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.states import GrantState

EXAMPLES_KEPT: Final = 20
"""Findings of one kind that are kept as examples; the rest are counted."""
_NUMBERS_KEPT: Final = 1_024
"""Command numbers of a session remembered to notice one used twice; at least the widest dedupe window in use."""


class FindingKind(enum.StrEnum):
    """The kinds of findings; see `severity`."""

    LOST_UPDATE = "lost_update"
    VOID_RECORD = "void_record"
    HASH_CHAIN = "hash_chain"
    MISSING_HEAD = "missing_head"
    CORRUPT_RECORD = "corrupt_record"
    CUT_TAIL = "cut_tail"
    DIVERGED = "diverged"
    CONTENT = "content"
    FIRST_EVENT = "first_event"
    CLOCK = "clock"
    VERSION = "version"
    LINK = "link"
    SINGLE_WRITER = "single_writer"
    GRANT = "grant"
    INVALIDATION = "invalidation"
    FENCE = "fence"
    RESERVATION = "reservation"
    ZOMBIE_WRITE = "zombie_write"
    UNKNOWN_ARTIFACT = "unknown_artifact"
    UNKNOWN_PARTICIPANT = "unknown_participant"
    REPEATED_COMMAND = "repeated_command"
    REFUSAL = "refusal"
    UNKNOWN_EVENT = "unknown_event"
    DELIVERY = "delivery"
    """An agent was given a version that the log does not have."""
    STALE_DELIVERY = "stale_delivery"
    """An agent was given, as the current one, a version that had been replaced."""
    DELIVERY_GAP = "delivery_gap"
    """Deliveries of a session are missing from the record."""

    @property
    def severity(self) -> str:
        """`violation` or `loss`."""
        return "loss" if self in (FindingKind.LOST_UPDATE, FindingKind.DELIVERY_GAP) else "violation"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One violated invariant or lost update."""

    kind: FindingKind
    sequence: int
    """Sequence of the event, or the last one before it; 0 where none is known."""
    detail: str


@dataclasses.dataclass(slots=True)
class _Artifact:
    name: str
    version: int = 0
    deleted: bool = False
    sequence: int = 0
    writer: int = 0
    owner: int = 0
    owner_state: GrantState = GrantState.INVALID
    sharers: set[int] = dataclasses.field(default_factory=set)
    fence: int = 0
    reserved_by: int = 0
    reserved_until: int = 0
    reclaimed: set[int] = dataclasses.field(default_factory=set)


class Invariants:
    """Call `decision` for every admitted decision in order; then read `counts` and `examples`."""

    def __init__(self) -> None:
        self.counts: dict[FindingKind, int] = {}
        self.examples: dict[FindingKind, list[Finding]] = {}
        self.events = 0
        self._sequence = 0
        self._recorded_at = 0
        self._artifacts: dict[ArtifactId, _Artifact] = {}
        self._agents: dict[ParticipantNumber, str] = {}
        self._sessions: dict[SessionId, set[ParticipantNumber]] = {}
        self._numbers: dict[SessionId, dict[int, None]] = {}
        # Holders that a decision's writes and deletes made stale; its GrantsInvalidated must name them by its end.
        self._stale: dict[ArtifactId, tuple[int, GrantState, set[int]]] = {}

    @property
    def violations(self) -> int:
        """How many findings are violations."""
        return sum(count for kind, count in self.counts.items() if kind.severity == "violation")

    @property
    def losses(self) -> int:
        """How many updates were lost."""
        return self.counts.get(FindingKind.LOST_UPDATE, 0)

    def find(self, kind: FindingKind, detail: str, sequence: int | None = None) -> None:
        """Record a finding."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_KEPT:
            at = self._sequence if sequence is None else sequence
            examples.append(Finding(kind=kind, sequence=at, detail=detail))

    def decision(self, record: DecisionRecord, events: Sequence[ev.Event]) -> None:
        """Check one admitted decision."""
        if record.recorded_at < self._recorded_at:
            self.find(
                FindingKind.CLOCK, f"recorded {self._recorded_at - record.recorded_at} us before the decision before it"
            )
        self._recorded_at = max(self._recorded_at, record.recorded_at)
        if len(events) > 1 and any(type(event) is ev.CommandRefused for event in events):
            self.find(FindingKind.REFUSAL, "a refused command left more than its refusal")
        for event in events:
            self._sequence += 1
            self.events += 1
            if self._sequence == 1 and type(event) is not ev.WorkspaceOpened:
                self.find(FindingKind.FIRST_EVENT, f"sequence 1 is a {type(event).__name__}, not WorkspaceOpened")
            self._event(event)
        if record.number and record.session_id in self._sessions:
            self._number(record, events)
        if self._stale:
            for artifact, (owner, _, sharers) in self._stale.items():
                left = sorted({*sharers, *((owner,) if owner else ())})
                name = self._artifacts[artifact].name
                self.find(
                    FindingKind.INVALIDATION,
                    f"{name}: the copies of participants {left} became stale and were not named",
                )
            self._stale.clear()

    def _number(self, record: DecisionRecord, events: Sequence[ev.Event]) -> None:
        """Check that a number is decided once, apart from refusals that say that it was used."""
        first = events[0] if events else None
        if type(first) is ev.CommandRefused and first.reason is ev.RefusalReason.NUMBER_REUSED:
            return
        numbers = self._numbers.setdefault(record.session_id, {})
        if record.number in numbers:
            session = record.session_id.hex()[:8]
            self.find(FindingKind.REPEATED_COMMAND, f"number {record.number} of session {session} was decided twice")
        numbers[record.number] = None
        if len(numbers) > _NUMBERS_KEPT:
            del numbers[next(iter(numbers))]

    def _event(self, event: ev.Event) -> None:
        match event:
            case ev.WriteCommitted():
                self._write(event)
            case ev.GrantIssued():
                self._grant(event)
            case ev.GrantsInvalidated():
                self._invalidated(event)
            case ev.ArtifactDeleted():
                self._deleted(event)
            case ev.ArtifactRegistered():
                if event.artifact in self._artifacts:
                    self.find(FindingKind.UNKNOWN_ARTIFACT, f"{event.key!r} was registered twice")
                else:
                    self._artifacts[event.artifact] = _Artifact("/".join((*event.scope, event.key)))
            case ev.ReservationAcquired():
                self._acquired(event)
            case ev.ReservationEnded():
                self._ended(event)
            case ev.GrantReclaimed():
                self._reclaimed(event)
            case ev.ParticipantJoined():
                if event.participant in self._agents:
                    self.find(FindingKind.UNKNOWN_PARTICIPANT, f"participant {event.participant} joined twice")
                self._agents[event.participant] = event.agent
                self._sessions.setdefault(event.session_id, set()).add(event.participant)
            case ev.SessionEnded():
                self._session_ended(event)
            case ev.ExpiryExtended():
                self._artifact(event.artifact)
            case ev.UnknownEvent():
                self.find(FindingKind.UNKNOWN_EVENT, f"an event of unknown schema {event.fingerprint.hex()}")
            case ev.WorkspaceOpened():
                if self._sequence != 1:
                    self.find(FindingKind.FIRST_EVENT, "the workspace was opened twice")
            case ev.SessionRenewed() | ev.CommandRefused() | ev.CommandAnswered():
                pass
            case _:
                assert_never(event)

    def _artifact(self, artifact: ArtifactId) -> _Artifact:
        known = self._artifacts.get(artifact)
        if known is None:
            self.find(FindingKind.UNKNOWN_ARTIFACT, f"artifact {artifact.hex()} was never registered")
            known = self._artifacts[artifact] = _Artifact(artifact.hex())
        return known

    def _who(self, participant: ParticipantNumber) -> str:
        agent = self._agents.get(participant)
        if agent is None:
            self.find(FindingKind.UNKNOWN_PARTICIPANT, f"participant {participant} acts and never joined")
            return f"participant {participant}"
        return agent

    def _versions(self, artifact: _Artifact, version: int, previous: int) -> None:
        if version != artifact.version + 1:
            self.find(FindingKind.VERSION, f"{artifact.name}: version {version} follows version {artifact.version}")
        if previous != artifact.sequence:
            self.find(
                FindingKind.LINK, f"{artifact.name}: names sequence {previous} as replaced, it was {artifact.sequence}"
            )
        artifact.version = version
        artifact.sequence = self._sequence

    def _may_write(self, artifact: _Artifact, participant: int) -> None:
        if participant in artifact.reclaimed:
            who = self._who(ParticipantNumber(participant))
            self.find(FindingKind.ZOMBIE_WRITE, f"{artifact.name}: {who!r} wrote after a reclaim without having read")
        reserved = artifact.reserved_by and artifact.reserved_until > self._recorded_at
        if reserved and artifact.reserved_by != participant:
            who = self._who(ParticipantNumber(participant))
            self.find(FindingKind.RESERVATION, f"{artifact.name}: {who!r} wrote while another held the reservation")

    def _write(self, event: ev.WriteCommitted) -> None:
        artifact, writer = self._artifact(event.artifact), event.participant
        who = self._who(writer)
        self._may_write(artifact, writer)
        replaced, existed = artifact.version, artifact.version > 0 and not artifact.deleted
        if existed and event.base_version != replaced and artifact.writer != writer:
            base = "never read it" if event.base_version is None else f"had read version {event.base_version}"
            self.find(
                FindingKind.LOST_UPDATE,
                f"{artifact.name}: {who!r} replaced version {replaced} by "
                f"{self._who(ParticipantNumber(artifact.writer))!r} with version {event.version}, and {base}",
            )
        self._versions(artifact, event.version, event.previous_sequence)
        artifact.deleted = False
        owner = artifact.owner if artifact.owner != writer else 0
        artifact.sharers.discard(writer)
        if owner or artifact.sharers:
            self._stale[event.artifact] = (owner, artifact.owner_state, artifact.sharers)
            artifact.sharers = set()
        artifact.owner, artifact.owner_state, artifact.writer = writer, GrantState.MODIFIED, writer

    def _deleted(self, event: ev.ArtifactDeleted) -> None:
        artifact = self._artifact(event.artifact)
        if event.reason is ev.DeleteReason.DELETED:
            self._who(event.participant)
            self._may_write(artifact, event.participant)
        if artifact.deleted or artifact.version == 0:
            self.find(FindingKind.VERSION, f"{artifact.name}: deleted while it did not exist")
        self._versions(artifact, event.version, event.previous_sequence)
        artifact.deleted = True
        if artifact.owner or artifact.sharers:
            self._stale[event.artifact] = (artifact.owner, artifact.owner_state, artifact.sharers)
            artifact.owner, artifact.owner_state, artifact.sharers = 0, GrantState.INVALID, set()

    def _invalidated(self, event: ev.GrantsInvalidated) -> None:
        artifact = self._artifact(event.artifact)
        stale = self._stale.pop(event.artifact, None)
        if stale is None and event.owner == NOBODY and event.version == artifact.version:
            # The readers were too many for one record: some of them lost their copies before another was granted one.
            left = artifact.sharers.difference(event.sharers)
            if len(left) == len(artifact.sharers) - len(event.sharers) and event.sharers:
                artifact.sharers = left
                return
        if stale is None:
            self.find(FindingKind.INVALIDATION, f"{artifact.name}: copies invalidated without a write or delete of it")
            return
        owner, owner_state, sharers = stale
        if (event.owner, set(event.sharers)) != (owner, sharers) or (owner and event.owner_state is not owner_state):
            self.find(
                FindingKind.INVALIDATION,
                f"{artifact.name}: names owner {event.owner} and sharers {sorted(event.sharers)[:10]}, the holders "
                f"were owner {owner} and sharers {sorted(sharers)[:10]}",
            )

    def _grant(self, event: ev.GrantIssued) -> None:
        artifact, reader = self._artifact(event.artifact), event.participant
        self._who(reader)
        artifact.reclaimed.discard(reader)
        if event.version != artifact.version:
            self.find(
                FindingKind.GRANT,
                f"{artifact.name}: a copy of version {event.version}, the current is {artifact.version}",
            )
        exists = artifact.version > 0 and not artifact.deleted
        if event.to_state is GrantState.INVALID:
            if exists:
                self.find(FindingKind.GRANT, f"{artifact.name}: nothing was granted, though there is something to read")
            return
        if not exists:
            self.find(FindingKind.GRANT, f"{artifact.name}: a copy of what does not exist")
        if reader == artifact.owner:
            if event.to_state is not artifact.owner_state:
                self.find(FindingKind.GRANT, f"{artifact.name}: its owner was granted {event.to_state}")
            return
        others = artifact.owner or artifact.sharers - {reader}
        if event.to_state is GrantState.EXCLUSIVE:
            if others:
                self.find(FindingKind.SINGLE_WRITER, f"{artifact.name}: an exclusive copy while others hold one")
            artifact.owner, artifact.owner_state = reader, GrantState.EXCLUSIVE
        elif event.to_state is GrantState.SHARED:
            if artifact.owner:
                artifact.sharers.add(artifact.owner)
                artifact.owner, artifact.owner_state = 0, GrantState.INVALID
            artifact.sharers.add(reader)
        else:
            self.find(FindingKind.SINGLE_WRITER, f"{artifact.name}: a reader was granted {event.to_state}")

    def _fence(self, artifact: _Artifact, fence: int) -> None:
        if fence <= artifact.fence:
            self.find(FindingKind.FENCE, f"{artifact.name}: fence {fence} follows fence {artifact.fence}")
        artifact.fence = fence

    def _acquired(self, event: ev.ReservationAcquired) -> None:
        artifact = self._artifact(event.artifact)
        self._who(event.participant)
        if artifact.reserved_by:
            self.find(FindingKind.RESERVATION, f"{artifact.name}: acquired while a reservation was not ended")
        self._fence(artifact, event.fence)
        artifact.reserved_by, artifact.reserved_until = event.participant, event.until

    def _ended(self, event: ev.ReservationEnded) -> None:
        artifact = self._artifact(event.artifact)
        if artifact.reserved_by != event.participant:
            self.find(
                FindingKind.RESERVATION, f"{artifact.name}: ended for participant {event.participant}, who held none"
            )
        expired = event.reason is ev.ReservationEndReason.EXPIRED
        if expired and artifact.reserved_until > self._recorded_at:
            self.find(FindingKind.RESERVATION, f"{artifact.name}: expired before its time")
        self._fence(artifact, event.fence)
        artifact.reserved_by = artifact.reserved_until = 0
        if expired:
            artifact.reclaimed.add(event.participant)

    def _reclaimed(self, event: ev.GrantReclaimed) -> None:
        artifact = self._artifact(event.artifact)
        if artifact.owner != event.participant or artifact.owner_state is not event.from_state:
            self.find(
                FindingKind.GRANT,
                f"{artifact.name}: reclaimed from participant {event.participant}, who did not own it",
            )
        artifact.owner, artifact.owner_state = 0, GrantState.INVALID
        artifact.reclaimed.add(event.participant)

    def _session_ended(self, event: ev.SessionEnded) -> None:
        participants = self._sessions.pop(event.session_id, None)
        self._numbers.pop(event.session_id, None)
        if participants is None:
            self.find(FindingKind.UNKNOWN_PARTICIPANT, f"session {event.session_id.hex()[:8]} ended and never began")
            return
        for artifact in self._artifacts.values():
            artifact.sharers -= participants
            artifact.reclaimed -= participants
            if artifact.owner in participants:
                artifact.owner, artifact.owner_state = 0, GrantState.INVALID
            if artifact.reserved_by in participants:
                artifact.reserved_by = artifact.reserved_until = 0
                artifact.fence += 1
