"""Where decisions are in a partition, without a broker."""

from ccs_stream.log.kafka.sequence_index import STRIDE, SequenceIndex
from ccs_stream.protocol.events import ArtifactDeleted, CommandAnswered, DeleteReason, Event, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Hash, ParticipantNumber, SequenceNumber, Version

A = ArtifactId(bytes(16))


def written(replaces: int) -> WriteCommitted:
    return WriteCommitted(
        artifact=A,
        participant=ParticipantNumber(1),
        version=Version(1),
        base_version=None,
        previous_sequence=SequenceNumber(replaces),
        content_type="",
        content_encoding="",
        content_hash=Hash(bytes(32)),
        content_size=0,
        content_index=0,
    )


def deleted(replaces: int) -> ArtifactDeleted:
    return ArtifactDeleted(
        artifact=A,
        participant=ParticipantNumber(1),
        version=Version(2),
        base_version=None,
        previous_sequence=SequenceNumber(replaces),
        reason=DeleteReason.DELETED,
    )


NOTHING: Event = CommandAnswered(original_sequence=SequenceNumber(0))


def test_only_versions_that_are_current_are_remembered_each() -> None:
    index = SequenceIndex()
    index.learn(1, 10, [NOTHING, written(0)])
    assert (index.offset_of(2), index.offset_of(1)) == (10, None)
    index.learn(3, 11, [written(2)])
    assert (index.offset_of(2), index.offset_of(3)) == (None, 11)
    index.learn(4, 12, [deleted(3)])
    assert index.offset_of(3) is None


def test_a_decision_not_far_before_is_found_for_every_sequence() -> None:
    index = SequenceIndex()
    for number in range(10 * STRIDE):
        index.learn(2 * number + 1, 3 * number, [NOTHING, NOTHING])
    for sequence in range(1, 20 * STRIDE + 1):
        at = index.before(sequence)
        assert at is not None
        number = (sequence - 1) // 2
        assert at <= 3 * number < at + 3 * STRIDE
    assert index.before(20 * STRIDE + 1) is None


def test_a_decision_reported_twice_is_passed_over_and_a_gap_forgets_earlier_ones() -> None:
    index = SequenceIndex()
    index.learn(1, 10, [NOTHING])
    index.learn(1, 99, [NOTHING])
    assert index.before(1) == 10
    index.learn(50, 60, [NOTHING])
    assert index.before(1) is None
    assert index.before(50) == 60


def test_a_snapshot_says_where_current_versions_are() -> None:
    index = SequenceIndex()
    index.pin({7: 70, 9: 90}, 9)
    index.learn(10, 100, [written(7)])
    assert [index.offset_of(sequence) for sequence in (7, 9, 10)] == [None, 90, 100]
    index.pin({1: 1}, 1)  # later than what was read: not believed
    assert index.offset_of(1) is None
