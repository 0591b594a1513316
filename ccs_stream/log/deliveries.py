"""Deliveries as bytes, single-object-encoded Avro.

The client's recorder of deliveries writes with it; the workspace, `ccs-replay` and tools read with it.

Guarantees: byte for byte what fastavro writes for the schema; every released schema stays readable. A hit makes a
delivery, so the part that is the same each time an agent is given the same version is encoded once (`given_bytes`).
Does not: know where deliveries are kept.
"""

import functools
from collections.abc import Callable
from typing import Final

from ccs_stream.log.compiled_decoder import compile_decoder
from ccs_stream.log.compiled_encoder import compile_encoder
from ccs_stream.log.schemas import PREFIX_BYTES, Registry, registry
from ccs_stream.protocol.deliveries import DeliveryForm, DeliveryFreshness, DeliveryRecorded
from ccs_stream.protocol.errors import UnknownSchema

NAME: Final = "DeliveryRecorded"


@functools.cache
def deliveries_registry() -> Registry:
    """The schemas of deliveries."""
    return registry("deliveries")


_SCHEMA: Final = deliveries_registry().current(NAME)
_GIVEN: Final = ("agent", "artifact", "version", "content_hash", "source", "outcome")
_MORE: Final = ("conversation", "generation", "form", "base_version", "tokens", "full_tokens")
_WITHOUT_MORE: Final = tuple(field["name"] for field in _SCHEMA.source["fields"] if field["name"] not in _MORE)


def _encoder_of(names: tuple[str, ...]) -> Callable[..., bytes]:
    return compile_encoder([_SCHEMA], DeliveryRecorded, fields=names, framed=False, as_arguments=True)


encode_delivery: Final[Callable[[DeliveryRecorded], bytes]] = compile_encoder(
    [*deliveries_registry().superseded(NAME), _SCHEMA], DeliveryRecorded
)
"""Encode a delivery."""
given_bytes: Final = functools.lru_cache(maxsize=4_096)(_encoder_of(_GIVEN))
"""Encode agent, artifact, version, hash, source and outcome: the same bytes each time an agent is given the same."""
encode_full: Final[Callable[[bytes, int, bytes, DeliveryFreshness, int, int], bytes]] = compile_encoder(
    [_SCHEMA],
    DeliveryRecorded,
    as_arguments=True,
    fields=_WITHOUT_MORE,
    encoded={"given": _GIVEN},
    tail=_encoder_of(_MORE)(None, None, DeliveryForm.FULL, None, None, None),
)
"""Encode a delivery in full of which no more is known: session, number, `given_bytes`, freshness, sequence, time.

The bytes are those of `encode_delivery`, in two thirds of its time."""

_decoders: Final[dict[bytes, Callable[[bytes], DeliveryRecorded]]] = {}


def decode_delivery(data: bytes) -> DeliveryRecorded:
    """Decode a delivery. Raises `UnknownSchema`, `CorruptRecord`."""
    prefix = data[:PREFIX_BYTES]
    decode = _decoders.get(prefix)
    if decode is None:
        schema = deliveries_registry().by_prefix.get(prefix)
        if schema is None:
            raise UnknownSchema(f"no delivery of a released schema begins with {prefix.hex()}: upgrade the reader")
        decode = _decoders[prefix] = compile_decoder(schema, DeliveryRecorded)
    return decode(data)
