"""Deliveries as bytes: what is written by hand is what the schema says, and released ones stay readable."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccs_stream.log.deliveries import (
    NAME,
    decode_delivery,
    deliveries_registry,
    encode_delivery,
    encode_full,
    given_bytes,
)
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version
from tests.log.delivered import DELIVERED

GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden/v1/deliveries.json").read_text("utf-8"))
NUMBERS = st.integers(0, 2**62)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


def fields_of(each: DeliveryRecorded) -> dict[str, Any]:
    return {name: getattr(each, name) for name in DeliveryRecorded.__slots__}


DELIVERIES = st.builds(
    DeliveryRecorded,
    session_id=st.binary(min_size=16, max_size=16).map(SessionId),
    number=NUMBERS,
    agent=TEXTS,
    artifact=st.binary(min_size=16, max_size=16).map(ArtifactId),
    version=NUMBERS.map(Version),
    content_hash=st.binary(max_size=32),
    source=st.sampled_from(DeliverySource),
    outcome=st.sampled_from(DeliveryOutcome),
    freshness=st.sampled_from(DeliveryFreshness),
    valid_at_sequence=NUMBERS.map(SequenceNumber),
    at=NUMBERS.map(Micros),
    conversation=st.none() | TEXTS,
    generation=st.none() | NUMBERS,
    form=st.none() | st.sampled_from(DeliveryForm),
    base_version=st.none() | NUMBERS.map(Version),
    tokens=st.none() | NUMBERS,
    full_tokens=st.none() | NUMBERS,
)


@given(DELIVERIES)
def test_a_delivery_is_what_fastavro_writes_and_reads(each: DeliveryRecorded) -> None:
    assert encode_delivery(each) == deliveries_registry().current(NAME).write(fields_of(each))
    assert decode_delivery(encode_delivery(each)) == each


@given(DELIVERIES)
def test_a_delivery_in_full_has_the_same_bytes_from_both_encoders(each: DeliveryRecorded) -> None:
    full = dataclasses.replace(
        each,
        form=DeliveryForm.FULL,
        conversation=None,
        generation=None,
        base_version=None,
        tokens=None,
        full_tokens=None,
    )
    known = given_bytes(each.agent, each.artifact, each.version, each.content_hash, each.source, each.outcome)
    at = each.valid_at_sequence
    assert encode_full(each.session_id, each.number, known, each.freshness, at, each.at) == encode_delivery(full)


def test_fields_are_those_of_the_schema() -> None:
    schema = deliveries_registry().current(NAME).source
    assert [field["name"] for field in schema["fields"]] == list(DeliveryRecorded.__slots__)


@pytest.mark.parametrize("name", DELIVERED)
def test_the_golden_deliveries_are_read_and_written_with_the_same_bytes(name: str) -> None:
    assert decode_delivery(bytes.fromhex(GOLDEN[name])) == DELIVERED[name]
    assert encode_delivery(DELIVERED[name]).hex() == GOLDEN[name]


def test_bytes_that_are_no_delivery_are_a_typed_error() -> None:
    with pytest.raises(UnknownSchema, match="upgrade"):
        decode_delivery(b"\xc3\x01nonsense")
    with pytest.raises(CorruptRecord):
        decode_delivery(encode_delivery(DELIVERED["most"])[:-3])
