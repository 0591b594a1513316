"""Each invariant is broken once by hand, and seen to be found."""

import dataclasses
from collections.abc import Callable
from typing import Self

import pytest

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.projections.invariants import EXAMPLES_KEPT, FindingKind, Invariants
from ccs_stream.protocol import events as ev
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.ids import (
    ArtifactId,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
    Version,
)
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.records import START, Chain

A = ArtifactId(b"a" * 16)
S = SessionId(b"s" * 16)
ONE, TWO = ParticipantNumber(1), ParticipantNumber(2)
M, E, SHARED, I = GrantState.MODIFIED, GrantState.EXCLUSIVE, GrantState.SHARED, GrantState.INVALID  # noqa: E741


class Log:
    """Checks decisions as they are made up."""

    def __init__(self) -> None:
        self.chain = Chain("w")
        self.found = Invariants()
        self.decide(ev.WorkspaceOpened(**dataclasses.asdict(WorkspaceSettings())))
        self.decide(ev.ParticipantJoined(participant=ONE, agent="one", session_id=S))
        self.decide(ev.ParticipantJoined(participant=TWO, agent="two", session_id=SessionId(b"t" * 16)))
        self.decide(ev.ArtifactRegistered(artifact=A, scope=(), key="k"), self.write(1))

    def decide(self, *events: ev.Event, number: int = 0, session: SessionId = S) -> Self:
        """One decision, as it would be read from a log."""
        known = [event for event in events if not isinstance(event, ev.UnknownEvent)]
        draft = self.chain.draft(known or (), session_id=session, number=number, kind=CommandKind.COMMIT)
        record, _ = DEFAULT_CODEC.decode_record(draft.head)
        assert isinstance(record, DecisionRecord)
        self.found.decision(record, events)
        return self

    def write(
        self, version: int, *, by: ParticipantNumber = ONE, base: int | None = None, previous: int | None = None
    ) -> ev.WriteCommitted:
        """A write whose links are right unless given otherwise."""
        return ev.WriteCommitted(
            artifact=A,
            participant=by,
            version=Version(version),
            base_version=None if base is None else Version(base),
            previous_sequence=SequenceNumber(self.last if previous is None else previous),
            content_type="",
            content_encoding="",
            content_hash=Hash(bytes(32)),
            content_size=0,
            content_index=None,
        )

    @property
    def last(self) -> int:
        """Sequence of the event that made the current version."""
        known = self.found._artifacts.get(A)  # what the test would otherwise have to count itself
        return 0 if known is None else known.sequence


def read(by: ParticipantNumber, version: int, state: GrantState) -> ev.GrantIssued:
    """A grant."""
    return ev.GrantIssued(artifact=A, participant=by, version=Version(version), to_state=state)


def named(owner: int, sharers: list[int], version: int, state: GrantState = M) -> ev.GrantsInvalidated:
    """An invalidation."""
    return ev.GrantsInvalidated(
        artifact=A,
        version=Version(version),
        owner=ParticipantNumber(owner),
        owner_state=state if owner else I,
        sharers=[ParticipantNumber(each) for each in sharers],
    )


def deleted(log: Log, version: int) -> ev.ArtifactDeleted:
    """A tombstone."""
    return ev.ArtifactDeleted(
        artifact=A,
        participant=ONE,
        version=Version(version),
        base_version=None,
        previous_sequence=SequenceNumber(log.last),
        reason=ev.DeleteReason.DELETED,
    )


def acquired(by: ParticipantNumber, fence: int, seconds: int = 1000) -> ev.ReservationAcquired:
    """A reservation."""
    until = Micros(START + seconds * 1_000_000)
    return ev.ReservationAcquired(artifact=A, participant=by, fence=Fence(fence), until=until)


def ended(by: ParticipantNumber, fence: int, reason: ev.ReservationEndReason) -> ev.ReservationEnded:
    """Its end."""
    return ev.ReservationEnded(artifact=A, participant=by, fence=Fence(fence), reason=reason)


def expired_then_writes(log: Log) -> None:
    """A reservation that ran out, and a write by its holder."""
    log.decide(acquired(ONE, 1, seconds=0))
    log.decide(ended(ONE, 2, ev.ReservationEndReason.EXPIRED))
    log.decide(log.write(2))


REFUSED = ev.CommandRefused(
    agent="one",
    reason=ev.RefusalReason.RESERVED,
    detail="",
    artifact=None,
    current_version=None,
    fence=None,
    subject=0,
)

BREACHES: list[tuple[FindingKind, Callable[[Log], object]]] = [
    (FindingKind.VERSION, lambda log: log.decide(log.write(3))),
    (FindingKind.VERSION, lambda log: log.decide(log.write(1))),
    (FindingKind.VERSION, lambda log: log.decide(deleted(log, 2), named(1, [], 2)).decide(deleted(log, 3))),
    (FindingKind.LINK, lambda log: log.decide(log.write(2, previous=1))),
    (FindingKind.INVALIDATION, lambda log: log.decide(log.write(2, by=TWO, base=1))),
    (FindingKind.INVALIDATION, lambda log: log.decide(log.write(2, by=TWO, base=1), named(0, [], 2))),
    (FindingKind.INVALIDATION, lambda log: log.decide(log.write(2, by=TWO, base=1), named(1, [2], 2))),
    (FindingKind.INVALIDATION, lambda log: log.decide(log.write(2, by=TWO, base=1), named(1, [], 2, E))),
    (FindingKind.INVALIDATION, lambda log: log.decide(named(1, [], 1))),
    (FindingKind.INVALIDATION, lambda log: log.decide(deleted(log, 2))),
    (FindingKind.GRANT, lambda log: log.decide(read(TWO, 7, SHARED))),
    (FindingKind.GRANT, lambda log: log.decide(read(TWO, 1, I))),
    (FindingKind.GRANT, lambda log: log.decide(deleted(log, 2), named(1, [], 2)).decide(read(TWO, 2, E))),
    (FindingKind.SINGLE_WRITER, lambda log: log.decide(read(TWO, 1, E))),
    (FindingKind.SINGLE_WRITER, lambda log: log.decide(read(TWO, 1, M))),
    (
        FindingKind.FENCE,
        lambda log: log.decide(acquired(ONE, 1)).decide(ended(ONE, 1, ev.ReservationEndReason.RELEASED)),
    ),
    (FindingKind.RESERVATION, lambda log: log.decide(acquired(ONE, 1)).decide(acquired(TWO, 2))),
    (FindingKind.RESERVATION, lambda log: log.decide(acquired(TWO, 1)).decide(log.write(2))),
    (FindingKind.RESERVATION, lambda log: log.decide(ended(TWO, 1, ev.ReservationEndReason.RELEASED))),
    (
        FindingKind.RESERVATION,
        lambda log: log.decide(acquired(ONE, 1)).decide(ended(ONE, 2, ev.ReservationEndReason.EXPIRED)),
    ),
    (FindingKind.ZOMBIE_WRITE, expired_then_writes),
    (
        FindingKind.GRANT,
        lambda log: log.decide(
            ev.GrantReclaimed(artifact=A, participant=TWO, from_state=M, trigger=ev.ReclaimTrigger.MAXIMUM_HOLD)
        ),
    ),
    (FindingKind.UNKNOWN_ARTIFACT, lambda log: log.decide(ev.ArtifactRegistered(artifact=A, scope=(), key="k"))),
    (
        FindingKind.UNKNOWN_ARTIFACT,
        lambda log: log.decide(dataclasses.replace(read(ONE, 0, I), artifact=ArtifactId(b"?" * 16))),
    ),
    (FindingKind.UNKNOWN_PARTICIPANT, lambda log: log.decide(read(ParticipantNumber(9), 1, SHARED))),
    (
        FindingKind.UNKNOWN_PARTICIPANT,
        lambda log: log.decide(ev.ParticipantJoined(participant=ONE, agent="x", session_id=S)),
    ),
    (
        FindingKind.UNKNOWN_PARTICIPANT,
        lambda log: log.decide(ev.SessionEnded(session_id=SessionId(b"?" * 16), reason=ev.SessionEndReason.LEFT)),
    ),
    (
        FindingKind.REPEATED_COMMAND,
        lambda log: log.decide(read(ONE, 1, M), number=5).decide(read(ONE, 1, M), number=5),
    ),
    (FindingKind.REFUSAL, lambda log: log.decide(REFUSED, read(ONE, 1, M))),
    (FindingKind.FIRST_EVENT, lambda log: log.decide(ev.WorkspaceOpened(**dataclasses.asdict(WorkspaceSettings())))),
    (FindingKind.UNKNOWN_EVENT, lambda log: log.decide(ev.UnknownEvent(fingerprint=b"12345678", size=3))),
    (FindingKind.LOST_UPDATE, lambda log: log.decide(log.write(2, by=TWO), named(1, [], 2))),
    (FindingKind.LOST_UPDATE, lambda log: log.decide(log.write(2, by=TWO, base=0), named(1, [], 2))),
]


@pytest.mark.parametrize(("kind", "breach"), BREACHES, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(BREACHES)])
def test_a_breach_is_found(kind: FindingKind, breach: Callable[[Log], object]) -> None:
    log = Log()
    assert log.found.counts == {}
    breach(log)
    assert kind in log.found.counts, log.found.counts
    assert log.found.examples[kind][0].detail


def test_every_kind_that_events_can_show_is_broken_above() -> None:
    by_records = {
        FindingKind.VOID_RECORD,
        FindingKind.HASH_CHAIN,
        FindingKind.MISSING_HEAD,
        FindingKind.CORRUPT_RECORD,
        FindingKind.CUT_TAIL,
    }
    by_records |= {FindingKind.DIVERGED, FindingKind.CONTENT, FindingKind.CLOCK}
    by_deliveries = {FindingKind.DELIVERY, FindingKind.STALE_DELIVERY, FindingKind.DELIVERY_GAP}
    assert {kind for kind, _ in BREACHES} == set(FindingKind) - by_records - by_deliveries


def test_a_clock_that_goes_back_is_found() -> None:
    log = Log()
    log.chain.recorded_at = Micros(START - 1)
    log.decide(read(ONE, 1, M))
    assert log.found.counts == {FindingKind.CLOCK: 1}


def test_examples_are_bounded_and_all_are_counted() -> None:
    log = Log()
    for _ in range(EXAMPLES_KEPT * 3):
        log.decide(named(1, [], 1))
    assert log.found.counts[FindingKind.INVALIDATION] == EXAMPLES_KEPT * 3
    assert len(log.found.examples[FindingKind.INVALIDATION]) == EXAMPLES_KEPT


def test_an_allowed_history_has_no_finding() -> None:
    log = Log()
    log.decide(read(TWO, 1, SHARED))
    log.decide(log.write(2, by=TWO, base=1), named(0, [1], 2))
    log.decide(acquired(TWO, 1))
    log.decide(log.write(3, by=TWO, base=2))
    log.decide(ended(TWO, 2, ev.ReservationEndReason.RELEASED))
    log.decide(deleted(log, 4), named(2, [], 4))
    log.decide(log.write(5, by=ONE))
    log.decide(REFUSED, number=9)
    log.decide(ev.SessionEnded(session_id=S, reason=ev.SessionEndReason.LEFT))
    assert log.found.counts == {}
