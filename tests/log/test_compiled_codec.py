"""Codecs made from a schema and a dataclass: any schema that they take, what they refuse, and what is garbled."""

import dataclasses
import enum
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log.avro import write_long
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.compiled_decoder import compile_decoder
from ccs_stream.log.compiled_encoder import compile_encoder
from ccs_stream.log.schemas import Schema, load, log_registry
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.events import EVENT_TYPES, GrantIssued, GrantsInvalidated, ParticipantJoined, WriteCommitted
from ccs_stream.protocol.ids import Micros, ParticipantNumber
from ccs_stream.protocol.records import LeaderClaimed, LeaderResigned, LogOpened, LogTruncated
from ccs_stream.protocol.states import GrantState
from tests.log.samples import EVENTS

GIVEN: dict[str, Any] = {**EVENTS}
NAMES = [cls.__name__ for cls in (*EVENT_TYPES, LogOpened, LogTruncated, LeaderClaimed, LeaderResigned)]
LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 20_000)


def values_of(avro_type: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value of a type, as fastavro takes it."""
    if isinstance(avro_type, list):
        return st.one_of([values_of(each, named) for each in avro_type])
    if isinstance(avro_type, str) and avro_type in named:
        avro_type = named[avro_type]
    if isinstance(avro_type, dict) and "name" in avro_type:
        named[avro_type["name"]] = avro_type
    match avro_type if isinstance(avro_type, str) else avro_type["type"]:
        case "null":
            return st.none()
        case "long":
            return LONGS
        case "boolean":
            return st.booleans()
        case "string":
            return st.text(max_size=150)
        case "bytes":
            return st.binary(max_size=150)
        case "fixed":
            return st.binary(min_size=avro_type["size"], max_size=avro_type["size"])
        case "enum":
            return st.sampled_from(avro_type["symbols"])
        case "array":
            return st.lists(values_of(avro_type["items"], named), max_size=5)
        case "map":
            return st.dictionaries(st.text(max_size=5), values_of(avro_type["values"], named), max_size=4)
        case "record":
            fields = {each["name"]: values_of(each["type"], named) for each in avro_type["fields"]}
            return st.fixed_dictionaries(fields)
        case kind:
            raise AssertionError(kind)


def by_fastavro(schema: Schema, fields: dict[str, Any]) -> bytes:
    out = BytesIO(schema.prefix)
    out.seek(0, 2)
    fastavro.schemaless_writer(out, schema.parsed, fields)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_fastavro_writes_is_read_and_written_again(name: str, data: st.DataObject) -> None:
    current = log_registry().current(name)
    fields = data.draw(values_of(current.source, {}))
    written = by_fastavro(current, fields)
    value = DEFAULT_CODEC.decode_event(written)
    again = DEFAULT_CODEC.encode_event(value)
    assert DEFAULT_CODEC.decode_event(again) == value
    schema = log_registry().by_prefix[again[:10]]
    assert schema.read(again, current) == fields
    if schema.current:
        assert again == written


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


@dataclasses.dataclass(slots=True, kw_only=True)
class Inner:
    at: Micros
    note: str | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Other:
    number: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Sample:
    flag: bool
    colour: Colour
    parts: tuple[Inner | Other, ...]
    labels: dict[str, str] | None = None
    inner: Inner | None = None
    count: int | None = None


def schema_of(*, notes: bool, count: bool, green: bool) -> Schema:
    inner = [{"name": "at", "type": "long"}]
    if notes:
        inner.append({"name": "note", "type": ["null", "string"], "default": None})  # type: ignore[dict-item]
    first = {"type": "record", "name": "Inner", "fields": inner}
    other = {"type": "record", "name": "Other", "fields": [{"name": "number", "type": "long"}]}
    symbols = ["red", "blue", *(["green"] if green else [])]
    fields: list[dict[str, Any]] = [
        {"name": "flag", "type": "boolean"},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": symbols}},
        {"name": "parts", "type": {"type": "array", "items": [first, other]}},
        {"name": "labels", "type": ["null", {"type": "map", "values": "string"}], "default": None},
        {"name": "inner", "type": ["null", "Inner"], "default": None},
    ]
    if count:
        fields.append({"name": "count", "type": ["null", "long"], "default": None})
    return load({"type": "record", "name": "Sample", "fields": fields})


GENERATIONS = [
    schema_of(notes=False, count=False, green=False),
    schema_of(notes=True, count=False, green=False),
    schema_of(notes=True, count=True, green=True),
]
ENCODE = compile_encoder(GENERATIONS, Sample)
DECODERS = {schema.prefix: compile_decoder(schema, Sample) for schema in GENERATIONS}
TEXTS = st.text(max_size=150)
INNERS = st.builds(Inner, at=LONGS, note=st.none() | TEXTS)
SAMPLES = st.builds(
    Sample,
    flag=st.booleans(),
    colour=st.sampled_from(Colour),
    parts=st.lists(INNERS | st.builds(Other, number=LONGS), max_size=4).map(tuple),
    labels=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=4),
    inner=st.none() | INNERS,
    count=st.none() | LONGS,
)


def generation_of(sample: Sample) -> int:
    """The oldest schema that can say it."""
    if sample.count is not None or sample.colour is Colour.GREEN:
        return 2
    inners = [*sample.parts, sample.inner]
    return int(any(isinstance(each, Inner) and each.note is not None for each in inners))


def fields_of(sample: Sample) -> dict[str, Any]:
    parts = [("Inner" if isinstance(each, Inner) else "Other", dataclasses.asdict(each)) for each in sample.parts]
    return {**dataclasses.asdict(sample), "parts": parts}


@given(SAMPLES)
def test_a_record_is_put_under_the_oldest_schema_that_can_say_it(sample: Sample) -> None:
    data = ENCODE(sample)
    schema = GENERATIONS[generation_of(sample)]
    assert data == by_fastavro(schema, fields_of(sample))
    assert DECODERS[data[:10]](data) == sample


@given(SAMPLES, st.data())
def test_a_garbled_record_is_corrupt_or_another_one(sample: Sample, data: st.DataObject) -> None:
    whole = bytearray(ENCODE(sample))
    whole[data.draw(st.integers(10, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decode = DECODERS[bytes(whole[:10])]
    try:
        assert isinstance(decode(bytes(whole)), Sample)
    except CorruptRecord:
        return


@given(SAMPLES)
def test_a_record_cut_at_any_byte_is_corrupt(sample: Sample) -> None:
    data = ENCODE(sample)
    for length in range(10, len(data)):
        with pytest.raises(CorruptRecord):
            DECODERS[data[:10]](data[:length])


def test_arrays_and_maps_in_several_blocks_are_read() -> None:
    invalidated = EVENTS["GrantsInvalidated"]
    assert isinstance(invalidated, GrantsInvalidated)
    data = DEFAULT_CODEC.encode_event(dataclasses.replace(invalidated, sharers=[]))
    # A block of two, one with its size in bytes (a negative count), and one of one.
    blocks = b"\x04\x02\x04" + b"\x03\x08\x06\x08" + b"\x02\x0a" + b"\x00"
    found = DEFAULT_CODEC.decode_event(data[:-1] + blocks)
    assert found == dataclasses.replace(invalidated, sharers=[ParticipantNumber(n) for n in (1, 2, 3, 4, 5)])
    sample = Sample(flag=True, colour=Colour.RED, parts=(), labels={})
    data = ENCODE(sample)
    blocks = b"\x02\x02a\x02b" + b"\x01\x08\x02c\x02d" + b"\x00"
    assert DECODERS[data[:10]](data[:-2] + blocks + b"\x00") == dataclasses.replace(sample, labels={"a": "b", "c": "d"})


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (dataclasses.replace(GIVEN["GrantIssued"], version=2**63), OverflowError),
        (dataclasses.replace(GIVEN["GrantIssued"], version=-(2**63) - 1), OverflowError),
        (dataclasses.replace(GIVEN["WriteCommitted"], content_index=2**63), OverflowError),
        (dataclasses.replace(GIVEN["SessionRenewed"], until=2**63), OverflowError),
        (dataclasses.replace(GIVEN["GrantIssued"], artifact=b"short"), ValueError),
        (dataclasses.replace(GIVEN["WriteCommitted"], content_hash=bytes(33)), ValueError),
        (dataclasses.replace(GIVEN["ParticipantJoined"], agent="\ud800"), UnicodeEncodeError),
        (dataclasses.replace(GIVEN["GrantIssued"], to_state="Z"), KeyError),
    ],
)
def test_a_value_that_the_schema_does_not_allow_raises(event: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        DEFAULT_CODEC.encode_event(event)


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_those_of_the_specification(number: int) -> None:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema("long"), number)
    assert write_long(number) == out.getvalue()


def test_a_number_beyond_64_bits_is_corrupt() -> None:
    event = EVENTS["GrantIssued"]
    assert isinstance(event, GrantIssued)
    data = DEFAULT_CODEC.encode_event(dataclasses.replace(event, participant=ParticipantNumber(0)))
    for number in (b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"):
        with pytest.raises(CorruptRecord, match=r"64 bits|ten bytes"):
            DEFAULT_CODEC.decode_event(data[:26] + number + data[27:])


def test_a_negative_length_or_branch_is_corrupt() -> None:
    joined, write = EVENTS["ParticipantJoined"], EVENTS["WriteCommitted"]
    assert isinstance(joined, ParticipantJoined)
    assert isinstance(write, WriteCommitted)
    data = DEFAULT_CODEC.encode_event(dataclasses.replace(joined, agent=""))
    with pytest.raises(CorruptRecord, match="negative length"):
        DEFAULT_CODEC.decode_event(data[:11] + b"\x01" + data[12:])
    data = DEFAULT_CODEC.encode_event(write)
    with pytest.raises(CorruptRecord, match="branch"):
        DEFAULT_CODEC.decode_event(data[:-1] + b"\x01")


def test_a_schema_that_does_not_fit_its_dataclass_is_an_error_when_the_codec_is_made() -> None:
    @dataclasses.dataclass(slots=True)
    class Unlike:
        version: int
        unknown: int

    schema = log_registry().current("GrantIssued")
    with pytest.raises(TypeError, match="no member"):
        compile_encoder([schema], Unlike)
    with pytest.raises(TypeError, match="no member"):
        compile_decoder(schema, Unlike)

    @dataclasses.dataclass(slots=True)
    class More(GrantIssued):
        to_state: GrantState
        unknown: int

    with pytest.raises(TypeError, match="not in the schema"):
        compile_decoder(schema, More)
