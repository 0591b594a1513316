"""Deliveries held against the log: what is a finding, and what is not."""

import hashlib
from typing import Any

from ccs_stream.projections.deliveries import DeliveryChecks
from ccs_stream.projections.invariants import FindingKind
from ccs_stream.protocol.deliveries import DeliveryFreshness, DeliveryOutcome, DeliveryRecorded, DeliverySource
from ccs_stream.protocol.events import ArtifactDeleted, DeleteReason, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Hash, Micros, ParticipantNumber, SequenceNumber, SessionId, Version

K = ArtifactId(b"k" * 16)


def hash_of(version: int) -> Hash:
    return Hash(hashlib.sha256(str(version).encode()).digest())


def written(version: int) -> WriteCommitted:
    return WriteCommitted(
        artifact=K,
        participant=ParticipantNumber(1),
        version=Version(version),
        base_version=None,
        previous_sequence=SequenceNumber(0),
        content_type="",
        content_encoding="",
        content_hash=hash_of(version),
        content_size=1,
        content_index=0,
    )


def deleted(version: int) -> ArtifactDeleted:
    return ArtifactDeleted(
        artifact=K,
        participant=ParticipantNumber(1),
        version=Version(version),
        base_version=None,
        previous_sequence=SequenceNumber(0),
        reason=DeleteReason.DELETED,
    )


def checks() -> DeliveryChecks:
    """Version 1 made at 3, version 2 at 5, deleted as version 3 at 7, version 4 at 9; the log ends at 9."""
    made = DeliveryChecks()
    for sequence, event in ((3, written(1)), (5, written(2)), (7, deleted(3)), (9, written(4))):
        made.decision(SequenceNumber(sequence), Micros(sequence * 100), [event])
    return made


def delivery(number: int, version: int, valid_at: int, **known: Any) -> DeliveryRecorded:
    return DeliveryRecorded(
        **{
            "session_id": SessionId(b"s" * 16),
            "number": number,
            "agent": "a",
            "artifact": K,
            "version": Version(version),
            "content_hash": hash_of(version),
            "source": DeliverySource.CACHE_HIT,
            "outcome": DeliveryOutcome.CONTENT,
            "freshness": DeliveryFreshness.LATEST,
            "valid_at_sequence": SequenceNumber(valid_at),
            "at": Micros(valid_at * 100),
            **known,
        }
    )


def found(*deliveries: DeliveryRecorded) -> tuple[list[FindingKind], DeliveryChecks]:
    made = checks()
    kinds = [kind for each in deliveries for kind, _, _ in made.delivery(each)]
    return kinds + [kind for kind, _, _ in made.end()], made


def nothing(number: int, version: int, at: int) -> DeliveryRecorded:
    return delivery(number, version, at, content_hash=b"", outcome=DeliveryOutcome.EMPTY)


def test_a_delivery_of_the_current_version_is_no_finding() -> None:
    given = [
        nothing(1, 0, 2),
        delivery(2, 1, 3),
        delivery(3, 1, 4),
        delivery(4, 2, 6),
        nothing(5, 3, 7),
        nothing(6, 3, 8),
        delivery(7, 4, 9),
    ]
    kinds, made = found(*given)
    assert kinds == []
    assert (made.deliveries, made.stale_within_bound) == (7, 0)


def test_a_copy_replaced_at_the_sequence_it_was_valid_at_is_a_finding() -> None:
    assert found(delivery(1, 1, 5))[0] == [FindingKind.STALE_DELIVERY]
    assert found(delivery(1, 2, 8))[0] == [FindingKind.STALE_DELIVERY]
    assert found(nothing(1, 0, 3))[0] == [FindingKind.STALE_DELIVERY], "given as absent, when there was a version"


def test_a_copy_replaced_later_is_stale_within_its_bound() -> None:
    kinds, made = found(delivery(1, 1, 4, at=Micros(501), freshness=DeliveryFreshness.LOCAL))
    assert kinds == []
    assert made.stale_within_bound == 1
    assert found(delivery(1, 1, 4, at=Micros(499)))[1].stale_within_bound == 0


def test_a_delivery_of_a_version_that_is_not_in_the_log_is_a_finding() -> None:
    assert found(delivery(1, 9, 9))[0] == [FindingKind.DELIVERY]
    assert found(delivery(1, 2, 4))[0] == [FindingKind.DELIVERY], "made later"
    assert found(delivery(1, 1, 4, content_hash=hash_of(2)))[0] == [FindingKind.DELIVERY]


def test_a_delivery_that_knows_of_more_than_the_log_finds_a_cut_tail() -> None:
    assert found(delivery(1, 4, 10))[0] == [FindingKind.CUT_TAIL]


def test_numbers_that_are_missing_are_a_gap() -> None:
    kinds, made = found(delivery(1, 4, 9), delivery(3, 4, 9), delivery(5, 4, 9))
    assert kinds == [FindingKind.DELIVERY_GAP]
    assert [detail for _, _, detail in made.end()] == [
        f"session {(b's' * 16).hex()[:8]}: 2 deliveries between numbers 2 and 5 are missing"
    ]


def test_a_head_that_is_missing_is_a_gap() -> None:
    assert found(delivery(2, 4, 9))[0] == [FindingKind.DELIVERY_GAP]


def test_twice_or_out_of_order_is_no_gap() -> None:
    kinds, made = found(*(delivery(number, 4, 9) for number in (1, 3, 3, 2, 2, 4, 1)))
    assert kinds == []
    assert made.deliveries == 4


def test_two_sessions_interleaved_are_no_gaps() -> None:
    other = SessionId(b"t" * 16)
    given = [delivery(n, 4, 9, session_id=session) for n in (1, 2, 3) for session in (other, SessionId(b"s" * 16))]
    assert found(*given)[0] == []
