"""The codec: equal to fastavro byte for byte, and typed errors for everything that is not a record."""

import contextlib
import dataclasses
import json
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log import avro, envelope
from ccs_stream.log.codec import DEFAULT_CODEC, Codec
from ccs_stream.log.fold import fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.schemas import MARKER, RECORD_BYTES_MAX, Registry, Schema, load, log_registry, prefix_of
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.events import (
    EVENT_TYPES,
    ArtifactDeleted,
    GrantIssued,
    GrantsInvalidated,
    UnknownEvent,
    WorkspaceOpened,
    WriteCommitted,
    WriteOptions,
)
from ccs_stream.protocol.ids import GENESIS_HASH, NO_LEADER
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned, LogOpened, LogTruncated
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.records import Chain
from tests.log.samples import EVENTS, RECORDS

longs = st.one_of(st.integers(0, 200), st.integers(0, 2**62))
ids = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
REGISTRY = log_registry()
FROZEN_DECISION_PREFIX = "c30165afeb29ecbd8ba6"
FROZEN_WRITE_PREFIX = "c301fb0b287c7bd3d286"


def by_fastavro(schema: Schema, fields: dict[str, Any]) -> bytes:
    """What fastavro writes."""
    out = BytesIO()
    out.write(schema.prefix)
    fastavro.schemaless_writer(out, schema.parsed, fields)
    return out.getvalue()


def schema_of(event: WriteCommitted) -> Schema:
    """The one under which a write is put: the one from before traces, unless it carries one."""
    if event.options is not None and event.options.trace_parent is not None:
        return REGISTRY.current("WriteCommitted")
    return REGISTRY.by_prefix[bytes.fromhex(FROZEN_WRITE_PREFIX)]


def fields_of(event: WriteCommitted) -> dict[str, Any]:
    """As fastavro takes them; a tuple it would take for a branch of a union and its value."""
    fields = dataclasses.asdict(event)
    if event.options is not None and event.options.index_fields is not None:
        fields["options"]["index_fields"] = list(event.options.index_fields)
    return fields


decisions = st.builds(
    DecisionRecord,
    workspace=st.text(max_size=300),
    epoch=longs,
    leader_id=ids,
    index=longs,
    first_sequence=longs,
    session_id=ids,
    number=longs,
    command_kind=st.sampled_from(CommandKind),
    command_offset=st.none() | longs,
    recorded_at=longs,
    prev_hash=hashes,
    critical=st.booleans(),
    events=st.lists(st.binary(max_size=300), max_size=70).map(tuple),
    contents=st.lists(st.binary(max_size=300), max_size=3).map(tuple),
)


@given(decisions)
def test_the_envelope_is_what_fastavro_writes_and_reads(record: DecisionRecord) -> None:
    head, tail = envelope.encode_head(record), envelope.encode_tail(record.contents)
    assert head + tail == by_fastavro(REGISTRY.current("Decision"), dataclasses.asdict(record))
    decoded, at = envelope.decode_head(head + tail)
    assert at == len(head)
    assert dataclasses.replace(decoded, contents=envelope.decode_tail(tail)) == record


texts = st.text(max_size=100)
writes = st.builds(
    WriteCommitted,
    artifact=ids,
    participant=longs,
    version=longs,
    base_version=st.none() | longs,
    previous_sequence=longs,
    content_type=texts,
    content_encoding=st.text(max_size=10),
    content_hash=hashes,
    content_size=longs,
    content_index=st.none() | longs,
    content_locator=st.none() | st.binary(max_size=200),
    options=st.none()
    | st.builds(
        WriteOptions,
        expires_at=st.none() | longs,
        ttl_us=st.none() | longs,
        index_fields=st.none() | st.lists(texts, max_size=70).map(tuple),
        reason=st.none() | texts,
        trace_parent=st.none() | texts,
    ),
)


@given(writes)
def test_a_write_is_what_fastavro_writes_and_reads(event: WriteCommitted) -> None:
    encoded = DEFAULT_CODEC.encode_event(event)
    schema = schema_of(event)
    assert encoded == by_fastavro(schema, fields_of(event))
    assert DEFAULT_CODEC.decode_event(encoded) == event
    assert schema.read(encoded, REGISTRY.current("WriteCommitted")) == fields_of(event)


@given(writes)
def test_a_write_under_the_schema_that_has_traces_is_read_whether_it_carries_one_or_not(event: WriteCommitted) -> None:
    data = by_fastavro(REGISTRY.current("WriteCommitted"), fields_of(event))
    assert DEFAULT_CODEC.decode_event(data) == event


@pytest.mark.parametrize("name", ["WriteCommitted", "WriteCommitted-options"])
def test_a_write_that_carries_no_trace_is_what_earlier_releases_read(name: str) -> None:
    assert DEFAULT_CODEC.encode_event(EVENTS[name]).hex().startswith(FROZEN_WRITE_PREFIX)


@given(
    st.builds(
        GrantIssued,
        artifact=ids,
        participant=longs,
        version=longs,
        to_state=st.sampled_from(GrantState),
    )
)
def test_a_grant_is_what_fastavro_writes_and_reads(event: GrantIssued) -> None:
    encoded = DEFAULT_CODEC.encode_event(event)
    assert encoded == by_fastavro(REGISTRY.current("GrantIssued"), dataclasses.asdict(event))
    assert DEFAULT_CODEC.decode_event(encoded) == event


@given(
    st.builds(
        GrantsInvalidated,
        artifact=ids,
        version=longs,
        owner=longs,
        owner_state=st.sampled_from(GrantState),
        sharers=st.lists(longs, max_size=300),
    )
)
def test_an_invalidation_is_what_fastavro_writes_and_reads(event: GrantsInvalidated) -> None:
    encoded = DEFAULT_CODEC.encode_event(event)
    assert encoded == by_fastavro(REGISTRY.current("GrantsInvalidated"), dataclasses.asdict(event))
    assert DEFAULT_CODEC.decode_event(encoded) == event


@given(st.integers(0, 2**63 - 1) | st.integers(2**54, 2**56))
def test_times_are_read_as_they_were_written(number: int) -> None:
    for data in (avro.write_long(number), avro.write_long(number) + b"more behind it"):
        assert avro.read_time(data, 0) == (number, len(avro.write_long(number)))


@given(st.integers(0, 2**63 - 1))
def test_numbers_are_read_as_they_were_written(number: int) -> None:
    assert avro.read_long(avro.write_long(number), 0) == (number, len(avro.write_long(number)))


def test_fields_of_dataclasses_are_those_of_their_schemas() -> None:
    for cls in (*EVENT_TYPES, LogOpened, LogTruncated, LeaderClaimed, LeaderResigned):
        names = [field["name"] for field in REGISTRY.current(cls.__name__).source["fields"]]
        assert [field.name for field in dataclasses.fields(cls)] == names
    names = [field["name"] for field in REGISTRY.current("Decision").source["fields"]]
    assert [field.name for field in dataclasses.fields(DecisionRecord)] == names


def test_the_fingerprint_is_that_of_the_specification() -> None:
    # The Avro project's own test data: CRC-64-AVRO of "null" is 63dd24e7cc258f8a, little-endian in the header.
    canonical = fastavro.schema.to_parsing_canonical_form("null")
    assert bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))[::-1].hex() == "63dd24e7cc258f8a"
    assert prefix_of(REGISTRY.current("Decision").source)[:2] == MARKER


def test_the_envelope_is_frozen() -> None:
    """This record never changes: not by an optional field, not by a comment's meaning."""
    assert REGISTRY.current("Decision").prefix.hex() == FROZEN_DECISION_PREFIX


WHOLE = {**{name: DEFAULT_CODEC.encode_event(event) for name, event in EVENTS.items()}}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_an_event_cut_at_any_byte_is_corrupt(name: str) -> None:
    whole = WHOLE[name]
    for length in range(len(whole)):
        with pytest.raises(CorruptRecord):
            DEFAULT_CODEC.decode_event(whole[:length])
    with pytest.raises(CorruptRecord):
        DEFAULT_CODEC.decode_event(whole + b"\x00")


def test_a_decision_cut_at_any_byte_is_corrupt() -> None:
    draft = Chain("w").draft(list(EVENTS.values())[:3], contents=(b"body",))
    for length in range(len(draft.head)):
        with pytest.raises(CorruptRecord):
            DEFAULT_CODEC.decode_record(draft.head[:length])
    tail = envelope.encode_tail(draft.contents)
    for length in range(1, len(tail)):
        with pytest.raises(CorruptRecord):
            envelope.decode_tail(tail[:length])


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_an_event_with_a_flipped_bit_is_corrupt_or_another_event(name: str, data: st.DataObject) -> None:
    altered = bytearray(WHOLE[name])
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        event = DEFAULT_CODEC.decode_event(bytes(altered))
    except CorruptRecord:
        return
    # fastavro reads any byte but 0 as true; the hash chain tells that the record was altered.
    assert event != EVENTS[name] or name == "WorkspaceOpened"


@given(decisions, st.data())
def test_a_decision_with_a_flipped_bit_never_raises_anything_else(record: DecisionRecord, data: st.DataObject) -> None:
    altered = bytearray(envelope.encode_head(record))
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(CorruptRecord):
        DEFAULT_CODEC.decode_record(bytes(altered))


@given(st.binary(max_size=400))
def test_random_bytes_are_corrupt(noise: bytes) -> None:
    for decode in (DEFAULT_CODEC.decode_event, DEFAULT_CODEC.decode_record):
        with pytest.raises(CorruptRecord):
            decode(noise)


def test_a_record_of_another_log_s_kind_is_refused_as_unknown() -> None:
    with pytest.raises(UnknownSchema, match="upgrade"):
        DEFAULT_CODEC.decode_record(MARKER + b"12345678" + b"body")
    with pytest.raises(CorruptRecord, match="stands where a record"):
        DEFAULT_CODEC.decode_record(DEFAULT_CODEC.encode_event(EVENTS["GrantIssued"]))


def test_an_oversized_record_is_refused_unread() -> None:
    prefix = REGISTRY.current("LogOpened").prefix
    with pytest.raises(CorruptRecord, match="more than any log of ours"):
        DEFAULT_CODEC.decode_record(prefix + bytes(RECORD_BYTES_MAX))


def planted(*, critical: bool) -> tuple[MemoryLog, Chain]:
    """A log in which a later release has written an event that this one does not know."""
    future = load(
        {"type": "record", "name": "ArtifactPinned", "namespace": "ccs.log", "fields": [{"name": "a", "type": "long"}]}
    )
    store, chain = MemoryLog(), Chain("w")
    settings = EVENTS["WorkspaceOpened"]
    assert isinstance(settings, WorkspaceOpened)
    drafts = [
        chain.draft([settings]),
        chain.draft(raw_events=[future.prefix + b"\x02"], critical=critical),
        chain.draft(),
    ]
    with store.turn("w"):
        store.append("w", drafts, 0)
    return store, chain


def test_a_future_event_that_is_not_critical_is_counted_and_passed_over() -> None:
    store, chain = planted(critical=False)
    reader, state = ShardReader(store, "w"), Directory()
    events = [event for entry in fold_log(reader, state) for event in entry.events]
    assert sum(isinstance(event, UnknownEvent) for event in events) == 1
    assert (state.unknown_events, state.sequence) == (1, chain.sequence)


def test_a_future_event_that_is_critical_stops_a_fold_and_is_marked_by_tools() -> None:
    store, _ = planted(critical=True)
    reader = ShardReader(store, "w")
    with pytest.raises(UnknownSchema, match="upgrade") as caught:
        list(reader.read())
    assert "sequence 2" in str(caught.value)
    tolerant = ShardReader(store, "w", tolerant=True)
    assert sum(isinstance(event, UnknownEvent) for entry in tolerant.read() for event in entry.events) == 1


def older_schema(name: str, *, without: str) -> dict[str, Any]:
    """A schema as it may have been released before a field was added."""
    source: dict[str, Any] = json.loads(json.dumps(REGISTRY.current(name).source))
    source["fields"] = [field for field in source["fields"] if field["name"] != without]
    return source


def test_an_event_written_before_an_optional_field_was_added_is_read() -> None:
    older = load(older_schema("ArtifactDeleted", without="note"), current=False)
    codec = Codec(Registry([older, *(schema for schema in REGISTRY.by_prefix.values())]))
    event = EVENTS["ArtifactDeleted"]
    assert isinstance(event, ArtifactDeleted)
    out = BytesIO()
    out.write(older.prefix)
    fields = dataclasses.asdict(event)
    del fields["note"]
    fastavro.schemaless_writer(out, older.parsed, fields)
    assert codec.decode_event(out.getvalue()) == dataclasses.replace(event, note=None)


def test_an_upcaster_turns_old_fields_into_today_s() -> None:
    source = older_schema("ArtifactDeleted", without="note")
    next(field for field in source["fields"] if field["name"] == "reason")["type"]["symbols"] = ["deleted", "expired"]
    older = load(source, current=False)

    def shout(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "note": "upcast"}

    codec = Codec(Registry([older, *REGISTRY.by_prefix.values()]), steps={("ArtifactDeleted", older.prefix): shout})
    event = EVENTS["ArtifactDeleted"]
    out = BytesIO()
    out.write(older.prefix)
    fields = dataclasses.asdict(event)
    del fields["note"]
    fastavro.schemaless_writer(out, older.parsed, fields)
    decoded = codec.decode_event(out.getvalue())
    assert isinstance(decoded, ArtifactDeleted)
    assert decoded.note == "upcast"


def test_the_first_decision_is_chained_to_nothing() -> None:
    record, _ = DEFAULT_CODEC.decode_record(Chain("w").draft().head)
    assert isinstance(record, DecisionRecord)
    assert (record.prev_hash, record.leader_id) == (GENESIS_HASH, NO_LEADER)
    assert set(RECORDS) == {"LogOpened", "LogTruncated", "LeaderClaimed", "LeaderResigned"}
