"""Records and events of the log to single-object-encoded Avro, and back.

Every store and reader uses `DEFAULT_CODEC`. The functions for an event are made from its schema and its dataclass when
they are first needed (`compiled_encoder`, `compiled_decoder`).

Guarantees: an encoded object decodes to an equal one; truncated, corrupt or oversized input, and an unknown
fingerprint, raise a typed error; an event of a later release becomes an `UnknownEvent`, because the envelope around it
tells whether that matters. Does not: know where bytes are stored.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from ccs_stream.log import envelope
from ccs_stream.log.compiled_decoder import compile_decoder
from ccs_stream.log.compiled_encoder import compile_encoder
from ccs_stream.log.schemas import MARKER, PREFIX_BYTES, Registry, Schema, log_registry
from ccs_stream.protocol import events as ev
from ccs_stream.protocol import records as rec
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.upcast import STEPS, Step, upcast

_RECORD_CLASSES: Final = (rec.LogOpened, rec.LogTruncated, rec.LeaderClaimed, rec.LeaderResigned)
_CLASSES: Final[Mapping[str, type[Any]]] = {cls.__name__: cls for cls in (*ev.EVENT_TYPES, *_RECORD_CLASSES)}
_Decode = Callable[[bytes], Any]


class _Encoders(dict[type[Any], Callable[[Any], bytes]]):
    """Encoders by class; each is made when it is first needed."""

    def __init__(self, registry: Registry, steps: Mapping[tuple[str, bytes], Step]) -> None:
        self._registry = registry
        self._steps = steps

    def __missing__(self, cls: type[Any]) -> Callable[[Any], bytes]:
        """The encoder of a class. KeyError for one that has no schema."""
        name = cls.__name__
        if _CLASSES.get(name) is not cls:
            raise KeyError(cls)
        current = self._registry.current(name)
        older = [each for each in self._registry.superseded(name) if (name, each.prefix) not in self._steps]
        encoder = self[cls] = compile_encoder([*older, current], cls)
        return encoder


class Codec:
    """Encodes and decodes under one registry of schemas."""

    def __init__(self, registry: Registry, steps: Mapping[tuple[str, bytes], Step] = STEPS) -> None:
        self._registry = registry
        self._steps = steps
        self.encoders: Mapping[type[Any], Callable[[Any], bytes]] = _Encoders(registry, steps)
        """By class of event or record. Hot paths look their encoder up here, which saves a call."""
        self._decoders: dict[bytes, _Decode] = {}

    def encode_event(self, event: ev.Event) -> bytes:
        """Encode one event. KeyError for `UnknownEvent`, which is never written."""
        return self.encoders[type(event)](event)

    def decode_event(self, data: bytes) -> ev.Event:
        """Decode one event; an `UnknownEvent` for a schema of a later release. Raises `CorruptRecord`."""
        decode = self._decoders.get(data[:PREFIX_BYTES]) or self._decoder(data)
        if decode is None:
            return ev.UnknownEvent(fingerprint=data[len(MARKER) : PREFIX_BYTES], size=len(data))
        return cast("ev.Event", decode(data))

    def encode_record(self, record: rec.LogOpened | rec.LogTruncated | rec.LeaderClaimed | rec.LeaderResigned) -> bytes:
        """Encode a record that is not a decision. Decisions are stored in two parts, see `ccs_stream.log.envelope`."""
        return self.encoders[type(record)](record)

    def decode_record(self, data: bytes) -> tuple[rec.Record, int]:
        """Decode any record; returns it, and the offset at which the contents of a decision begin in `data`.

        A decision is returned without its contents; for other records the offset is the end of `data`. Raises
        `CorruptRecord`, or `UnknownSchema` for an unknown fingerprint.
        """
        if data.startswith(envelope.PREFIX):
            return envelope.decode_head(data)
        decode = self._decoder(data)
        if decode is None:
            raise UnknownSchema(
                f"a record of unknown schema {data[len(MARKER) : PREFIX_BYTES].hex()}: "
                "it was written by a later release, or is not of this log; upgrade this reader"
            )
        record = decode(data)
        if not isinstance(record, _RECORD_CLASSES):
            raise CorruptRecord(f"a {type(record).__name__} stands where a record is expected")
        return record, len(data)

    def _decoder(self, data: bytes) -> _Decode | None:
        """The decoder of the schema that a record names; None for an unknown fingerprint. Raises `CorruptRecord`."""
        prefix = data[:PREFIX_BYTES]
        if prefix in self._decoders:
            return self._decoders[prefix]
        if len(data) < PREFIX_BYTES or not data.startswith(MARKER):
            raise CorruptRecord("not a single-object-encoded Avro record: the marker C3 01 is missing")
        schema = self._registry.by_prefix.get(prefix)
        if schema is None:
            return None
        decoder = self._decoders[prefix] = self._compile(schema)
        return decoder

    def _compile(self, schema: Schema) -> _Decode:
        cls = _CLASSES.get(schema.name)
        if cls is None:
            raise CorruptRecord(f"a {schema.name} stands where an event, or a record of another kind, is expected")
        if (schema.name, schema.prefix) not in self._steps:
            return compile_decoder(schema, cls)
        current = self._registry.current(schema.name)
        decode = compile_decoder(current, cls)

        def decode_older(data: bytes) -> Any:
            fields = upcast(schema.name, schema.prefix, schema.read(data, current), self._steps)
            return decode(current.write(fields))

        return decode_older


DEFAULT_CODEC: Final = Codec(log_registry())
"""The codec of this release."""
