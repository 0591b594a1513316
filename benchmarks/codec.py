"""The codec made from the schemas against fastavro over the same schemas: the records that hot paths write and read.

Guarantees: both write the same bytes and read the same bytes, in turns; fastavro is given the fields ready-made and
returns them as it reads them, without the dataclass that ours is made from and becomes. Does not: read a log.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks.report import Row, at_least, duration
from benchmarks.run import Run
from benchmarks.timing import in_turns
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.deliveries import NAME, decode_delivery, deliveries_registry, encode_delivery
from ccs_stream.log.envelope import decode_head, encode_head, encode_tail
from ccs_stream.log.schemas import PREFIX_BYTES, Schema, log_registry
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.events import Event, GrantIssued, GrantsInvalidated, WriteCommitted
from ccs_stream.protocol.ids import (
    ArtifactId,
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
    Version,
)
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.states import GrantState

TARGET: Final = 1.0
"""It would not be worth its code if it were slower than fastavro."""
_ID: Final = bytes(range(16))
_AT: Final = Micros(1_750_000_000_123_456)
_WRITE: Final = WriteCommitted(
    artifact=ArtifactId(_ID),
    participant=ParticipantNumber(3),
    version=Version(7),
    base_version=Version(6),
    previous_sequence=SequenceNumber(123_456),
    content_type="application/json",
    content_encoding="",
    content_hash=Hash(bytes(32)),
    content_size=1_024,
    content_index=0,
)
_EVENTS: Final[tuple[Event, ...]] = (
    _WRITE,
    GrantIssued(
        artifact=ArtifactId(_ID), participant=ParticipantNumber(9), version=Version(7), to_state=GrantState.SHARED
    ),
    GrantsInvalidated(
        artifact=ArtifactId(_ID),
        version=Version(8),
        owner=ParticipantNumber(3),
        owner_state=GrantState.MODIFIED,
        sharers=[ParticipantNumber(number) for number in range(1, 21)],
    ),
)
_DECISION: Final = DecisionRecord(
    workspace="workspace",
    epoch=Epoch(3),
    leader_id=LeaderId(_ID),
    index=DecisionIndex(12_345),
    first_sequence=SequenceNumber(23_456),
    session_id=SessionId(_ID),
    number=CommandNumber(4_321),
    command_kind=CommandKind.COMMIT,
    command_offset=98_765,
    recorded_at=_AT,
    prev_hash=Hash(bytes(32)),
    critical=True,
    events=(DEFAULT_CODEC.encode_event(_WRITE),),
)
_DELIVERY: Final = DeliveryRecorded(
    session_id=SessionId(_ID),
    number=1_234,
    agent="planner",
    artifact=ArtifactId(_ID),
    version=Version(7),
    content_hash=bytes(32),
    source=DeliverySource.CACHE_HIT,
    outcome=DeliveryOutcome.CONTENT,
    freshness=DeliveryFreshness.LATEST,
    valid_at_sequence=SequenceNumber(123_456),
    at=_AT,
    form=DeliveryForm.FULL,
)


def rows(run: Run) -> Iterator[Row]:
    """Each record, written and read."""
    yield from _compared(run, "Decision", log_registry().current("Decision"), _DECISION, _encode_decision, decode_head)
    for event in _EVENTS:
        name, encode = type(event).__name__, DEFAULT_CODEC.encode_event
        schema = log_registry().by_prefix[encode(event)[:PREFIX_BYTES]]
        yield from _compared(run, name, schema, event, encode, DEFAULT_CODEC.decode_event)
    schema = deliveries_registry().current(NAME)
    yield from _compared(run, NAME, schema, _DELIVERY, encode_delivery, decode_delivery)


def _encode_decision(record: DecisionRecord) -> bytes:
    return encode_head(record) + encode_tail(record.contents)


def _compared(
    run: Run,
    name: str,
    schema: Schema,
    value: Any,
    encode: Callable[[Any], bytes],
    decode: Callable[[bytes], object],
) -> Iterator[Row]:
    run.now(f"the codec of {name}")
    fields, data = dataclasses.asdict(value), encode(value)
    if schema.write(fields) != data:
        raise AssertionError(f"fastavro writes a {name} otherwise")
    timings = in_turns(
        run.effort,
        {
            "encode": lambda: encode(value),
            "fastavro writes": lambda: schema.write(fields),
            "decode": lambda: decode(data),
            "fastavro reads": lambda: schema.read(data),
        },
    )
    for ours, theirs in (("encode", "fastavro writes"), ("decode", "fastavro reads")):
        yield Row(
            f"{ours} a {name}",
            duration(timings.seconds(ours)),
            theirs,
            duration(timings.seconds(theirs)),
            timings.ratio(theirs, ours),
            "x faster",
            at_least(TARGET),
        )
