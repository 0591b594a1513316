"""The codec of the envelope around a decision's events: the record `Decision`, which is frozen.

Coordinators write with it; every store and reader reads with it.

Guarantees: byte for byte what fastavro writes for `schemas/log/Decision.avsc`; input that is no whole envelope raises
`CorruptRecord`. Does not: look into events or bodies.

A decision is stored in two parts: the head (everything up to `contents`, which is what the hash chain covers) and the
tail (`contents`), so that bodies can be left unread, shared or redacted without touching what is chained.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from ccs_stream.log.avro import NULL
from ccs_stream.log.compiled_decoder import compile_decoder
from ccs_stream.log.compiled_encoder import compile_encoder
from ccs_stream.log.schemas import log_registry
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.records import DecisionRecord

_SCHEMA: Final = log_registry().current("Decision")
_TAIL: Final = ("contents",)
_HEAD: Final = tuple(field["name"] for field in _SCHEMA.source["fields"] if field["name"] not in _TAIL)
_decode_tail: Final = compile_decoder(_SCHEMA, fields=_TAIL, framed=False)

PREFIX: Final = _SCHEMA.prefix
encode_head: Final[Callable[[DecisionRecord], bytes]] = compile_encoder([_SCHEMA], DecisionRecord, fields=_HEAD)
"""Encode everything of a decision up to `contents`."""
decode_head: Final[Callable[[bytes], tuple[DecisionRecord, int]]] = compile_decoder(
    _SCHEMA, DecisionRecord, fields=_HEAD
)
"""Decode a decision without its contents; returns it, and where those begin. Raises `CorruptRecord`."""
encode_tail: Final[Callable[[tuple[bytes, ...]], bytes]] = compile_encoder([_SCHEMA], fields=_TAIL, framed=False)
"""Encode the inline bodies, as they follow the head."""


def decode_tail(tail: bytes) -> tuple[bytes, ...]:
    """Decode the inline bodies. Raises `CorruptRecord`."""
    return () if tail == NULL else tuple(_decode_tail(tail)[0])


def chain_hash(head: bytes) -> Hash:
    """The chain hash of a decision: the `prev_hash` of the next one."""
    digest: Any = hashlib.sha256(head).digest()
    return digest  # type: ignore[no-any-return]
