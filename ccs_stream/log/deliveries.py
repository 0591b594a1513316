"""Deliveries as bytes, single-object-encoded Avro.

Guarantees: byte for byte what fastavro writes for the schema (a property test holds it to that): hits make as many as
there are reads, so they are written by hand. Reading goes the general way, and reads every released schema. Does not:
know where they are kept.
"""

import functools
from typing import Any, Final

from ccs_stream.log.avro import NULL, write_long, write_text
from ccs_stream.log.schemas import PREFIX_BYTES, Registry, registry
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.errors import UnknownSchema

NAME: Final = "DeliveryRecorded"
_PRESENT: Final = b"\x02"
_SOURCES: Final = {each: bytes((place << 1,)) for place, each in enumerate(DeliverySource)}
_OUTCOMES: Final = {each: bytes((place << 1,)) for place, each in enumerate(DeliveryOutcome)}
_FRESHNESS: Final = {each: bytes((place << 1,)) for place, each in enumerate(DeliveryFreshness)}
_FORMS: Final = {each: _PRESENT + bytes((place << 1,)) for place, each in enumerate(DeliveryForm)}


@functools.cache
def deliveries_registry() -> Registry:
    """The schemas of deliveries."""
    return registry("deliveries")


_PREFIX: Final = deliveries_registry().current(NAME).prefix


def encode_delivery(each: DeliveryRecorded) -> bytes:
    """A delivery."""
    given = given_bytes(each.agent, each.artifact, each.version, each.content_hash, each.source, each.outcome)
    return b"".join(
        (
            _PREFIX,
            each.session_id,
            write_long(each.number),
            given,
            _FRESHNESS[each.freshness],
            write_long(each.valid_at_sequence),
            write_long(each.at),
            NULL if each.conversation is None else _PRESENT + write_text(each.conversation),
            _optional(each.generation),
            NULL if each.form is None else _FORMS[each.form],
            _optional(each.base_version),
            _optional(each.tokens),
            _optional(each.full_tokens),
        )
    )


_PLAIN: Final = NULL + NULL + _FORMS[DeliveryForm.FULL] + NULL + NULL + NULL
"""The end of a delivery in full, where no more is known."""


def encode_full(
    session_id: bytes, number: int, given: bytes, freshness: DeliveryFreshness, valid_at_sequence: int, at: int
) -> bytes:
    """A delivery in full, of `given_bytes`, where no more is known; the same bytes as `encode_delivery`, sooner."""
    return b"".join(
        (
            _PREFIX,
            session_id,
            write_long(number),
            given,
            _FRESHNESS[freshness],
            write_long(valid_at_sequence),
            write_long(at),
            _PLAIN,
        )
    )


@functools.lru_cache(maxsize=4_096)
def given_bytes(
    agent: str, artifact: bytes, version: int, content_hash: bytes, source: DeliverySource, outcome: DeliveryOutcome
) -> bytes:
    """The part that is the same each time an agent is given the same."""
    return b"".join(
        (
            write_text(agent),
            artifact,
            write_long(version),
            write_long(len(content_hash)),
            content_hash,
            _SOURCES[source],
            _OUTCOMES[outcome],
        )
    )


def decode_delivery(data: bytes) -> DeliveryRecorded:
    """The delivery in these bytes. Raises `UnknownSchema`, `CorruptRecord`."""
    known = deliveries_registry()
    schema = known.by_prefix.get(data[:PREFIX_BYTES])
    if schema is None:
        raise UnknownSchema(
            f"no delivery of a released schema begins with {data[:PREFIX_BYTES].hex()}: upgrade the reader"
        )
    fields: dict[str, Any] = schema.read(data, known.current(NAME))
    fields["source"] = DeliverySource(fields["source"])
    fields["outcome"] = DeliveryOutcome(fields["outcome"])
    fields["freshness"] = DeliveryFreshness(fields["freshness"])
    if fields["form"] is not None:
        fields["form"] = DeliveryForm(fields["form"])
    return DeliveryRecorded(**fields)


def _optional(number: int | None) -> bytes:
    return NULL if number is None else _PRESENT + write_long(number)
