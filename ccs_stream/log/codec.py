"""Records and events to single-object-encoded Avro, and back.

Guarantees: what is encoded decodes to an equal object; truncated, corrupt or oversized input, and fingerprints nobody
released, raise a typed error; an event of a later release becomes an `UnknownEvent`, because the envelope around it
says whether that matters. Does not: know where bytes are stored.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, cast

from ccs_stream.log import envelope, express
from ccs_stream.log.schemas import MARKER, PREFIX_BYTES, Registry, Schema, log_registry
from ccs_stream.protocol import events as ev
from ccs_stream.protocol import records as rec
from ccs_stream.protocol.errors import CorruptRecord, UnknownSchema
from ccs_stream.protocol.states import GrantState
from ccs_stream.protocol.upcast import STEPS, Step, upcast

_GRANT_STATES: Final = {state.value: state for state in GrantState}
_Convert = Callable[[Any], Any]


def _or_none(convert: _Convert) -> _Convert:
    return lambda value: None if value is None else convert(value)


def _options(value: dict[str, Any]) -> ev.WriteOptions:
    if value["index_fields"] is not None:
        value["index_fields"] = tuple(value["index_fields"])
    return ev.WriteOptions(**value)


# What fastavro returns in another type than the dataclass holds.
_CONVERSIONS: Final[Mapping[str, Mapping[str, _Convert]]] = {
    "GrantIssued": {"to_state": _GRANT_STATES.__getitem__},
    "GrantsInvalidated": {"owner_state": _GRANT_STATES.__getitem__},
    "GrantReclaimed": {"from_state": _GRANT_STATES.__getitem__, "trigger": ev.ReclaimTrigger},
    "SessionEnded": {"reason": ev.SessionEndReason},
    "ArtifactDeleted": {"reason": ev.DeleteReason},
    "ReservationEnded": {"reason": ev.ReservationEndReason},
    "CommandRefused": {"reason": ev.RefusalReason},
    "ArtifactRegistered": {"scope": tuple},
    "WriteOptions": {"index_fields": _or_none(tuple)},
    "WriteCommitted": {"options": _or_none(_options)},
}


class _Type:
    """How one dataclass travels: its schema, its fields, its conversions."""

    __slots__ = ("cls", "conversions", "fields", "names", "prefix", "schema", "take")

    def __init__(self, cls: type[Any], schema: Schema) -> None:
        self.cls = cls
        self.schema = schema
        self.prefix = schema.prefix
        self.names = tuple(field["name"] for field in schema.source["fields"])
        self.take = attrgetter(*self.names) if len(self.names) > 1 else None
        self.conversions = tuple(_CONVERSIONS.get(cls.__name__, {}).items())

    def encode(self, value: Any) -> bytes:
        taken = self.take(value) if self.take is not None else (getattr(value, self.names[0]),)
        return self.schema.write(dict(zip(self.names, taken, strict=True)))

    def build(self, fields: dict[str, Any]) -> Any:
        for name, convert in self.conversions:
            fields[name] = convert(fields[name])
        return self.cls(**fields)


_RECORD_CLASSES: Final = (rec.LogOpened, rec.LogTruncated, rec.LeaderClaimed, rec.LeaderResigned)


class Codec:
    """Encodes and decodes under one registry of schemas."""

    def __init__(self, registry: Registry, steps: Mapping[tuple[str, bytes], Step] = STEPS) -> None:
        self._registry = registry
        self._steps = steps
        known = {cls.__name__: cls for cls in (*ev.EVENT_TYPES, *_RECORD_CLASSES)}
        self._types = {
            name: _Type(cls, registry.current(name)) for name, cls in known.items() if name in registry.by_name
        }
        self._by_class = {each.cls: each for each in self._types.values()}
        self._by_prefix = {each.prefix: each for each in self._types.values()}

    def encode_event(self, event: ev.Event) -> bytes:
        """One event. KeyError for `UnknownEvent`, which nobody writes."""
        if type(event) is ev.WriteCommitted:
            return express.encode_write(event)
        if type(event) is ev.GrantIssued:
            return express.encode_grant(event)
        if type(event) is ev.GrantsInvalidated:
            return express.encode_invalidation(event)
        return self._by_class[type(event)].encode(event)

    def decode_event(self, data: bytes) -> ev.Event:
        """One event; an `UnknownEvent` for a schema of a later release. Raises `CorruptRecord`."""
        prefix = data[:PREFIX_BYTES]
        if prefix == express.WRITE_PREFIX:
            return express.decode_write(data)
        if prefix == express.GRANT_PREFIX:
            return express.decode_grant(data)
        if prefix == express.INVALIDATION_PREFIX:
            return express.decode_invalidation(data)
        if prefix == express.TRACED_PREFIX:
            return express.decode_write(data)
        kind = self._by_prefix.get(prefix)
        if kind is not None:
            return cast("ev.Event", kind.build(kind.schema.read(data)))
        older = self._older(data)
        if older is None:
            return ev.UnknownEvent(fingerprint=data[len(MARKER) : PREFIX_BYTES], size=len(data))
        return cast("ev.Event", self._resolve(data, older))

    def encode_record(self, record: rec.LogOpened | rec.LogTruncated | rec.LeaderClaimed | rec.LeaderResigned) -> bytes:
        """A record that is not a decision; decisions are stored in two parts, see `ccs_stream.log.envelope`."""
        return self._by_class[type(record)].encode(record)

    def decode_record(self, data: bytes) -> tuple[rec.Record, int]:
        """Any record, a decision without its contents; and where the contents begin (else the end of the record).

        Raises `CorruptRecord`, or `UnknownSchema` for a record nobody released.
        """
        if data.startswith(envelope.PREFIX):
            return envelope.decode_head(data)
        kind = self._by_prefix.get(data[:PREFIX_BYTES])
        if kind is not None:
            record = kind.build(kind.schema.read(data))
        else:
            older = self._older(data)
            if older is None:
                raise UnknownSchema(
                    f"a record of unknown schema {data[len(MARKER) : PREFIX_BYTES].hex()}: "
                    "it was written by a later release, or is not of this log; upgrade this reader"
                )
            record = self._resolve(data, older)
        if not isinstance(record, _RECORD_CLASSES):
            raise CorruptRecord(f"a {type(record).__name__} stands where a record is expected")
        return record, len(data)

    def _older(self, data: bytes) -> Schema | None:
        if len(data) < PREFIX_BYTES or not data.startswith(MARKER):
            raise CorruptRecord("not a single-object-encoded Avro record: the marker C3 01 is missing")
        return self._registry.by_prefix.get(data[:PREFIX_BYTES])

    def _resolve(self, data: bytes, older: Schema) -> Any:
        kind = self._types[older.name]
        fields = upcast(older.name, older.prefix, older.read(data, kind.schema), self._steps)
        return kind.build(fields)


DEFAULT_CODEC: Final = Codec(log_registry())
"""The codec of this release."""
