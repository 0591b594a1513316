"""The released Avro schemas, by the fingerprint that precedes every record.

The codecs of the log, of commands, deliveries, snapshots and archives use it.

Guarantees: a record written under any released schema is readable for ever, because its fingerprint finds the schema
that it was written with; superseded schemas are found by themselves, in the folder `superseded`. Does not: guess; an
unknown fingerprint is `UnknownSchema`.

Source: Apache Avro 1.12 specification, "Single-object encoding" (marker C3 01, then the CRC-64-AVRO fingerprint of the
schema's parsing canonical form, little-endian) and "Schema Fingerprints".
"""

import dataclasses
import functools
import json
from importlib import resources
from importlib.resources.abc import Traversable
from io import BytesIO
from typing import Any, Final, cast

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ccs_stream.protocol.errors import CorruptRecord

MARKER: Final = b"\xc3\x01"
PREFIX_BYTES: Final = 10
"""Length of marker and fingerprint."""
RECORD_BYTES_MAX: Final = 64 * 1024 * 1024
"""A longer record is refused: no log holds one, and decoding garbage must not exhaust memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """One released schema."""

    name: str
    """Name of the record, without namespace."""
    prefix: bytes
    """Marker and fingerprint, as they precede every record."""
    source: dict[str, Any]
    parsed: Any
    current: bool

    def write(self, fields: dict[str, Any]) -> bytes:
        """Encode a record of these fields with fastavro, single-object-encoded."""
        out = BytesIO()
        out.write(self.prefix)
        fastavro.schemaless_writer(out, self.parsed, fields)
        return out.getvalue()

    def read(self, data: bytes, reader: "Schema | None" = None, *, bytes_max: int = RECORD_BYTES_MAX) -> dict[str, Any]:
        """Decode a record under this schema with fastavro, resolved to the schema `reader`. Raises `CorruptRecord`."""
        if len(data) > bytes_max:
            raise CorruptRecord(f"the record has {len(data)} bytes, more than any log of ours holds")
        source = BytesIO(data)
        source.seek(PREFIX_BYTES)
        try:
            fields = fastavro.schemaless_reader(source, self.parsed, None if reader is None else reader.parsed)
        except (
            Exception
        ) as error:  # fastavro raises what its C code meets: EOFError, IndexError, UnicodeDecodeError, ...
            raise CorruptRecord(f"the record is cut short or garbled ({type(error).__name__})") from error
        if source.tell() != len(data):
            raise CorruptRecord("bytes follow the end of the record")
        return cast("dict[str, Any]", fields)


def prefix_of(source: dict[str, Any]) -> bytes:
    """Marker and fingerprint of a schema."""
    canonical = to_parsing_canonical_form(source)
    return MARKER + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def load(source: dict[str, Any], *, current: bool = True) -> Schema:
    """A schema from its parsed JSON."""
    return Schema(
        name=str(source["name"]),
        prefix=prefix_of(source),
        source=source,
        parsed=fastavro.parse_schema(source, named_schemas={}),
        current=current,
    )


class Registry:
    """Schemas by name (today's) and by prefix (all released)."""

    def __init__(self, schemas: list[Schema]) -> None:
        self.by_prefix = {schema.prefix: schema for schema in schemas}
        self.by_name = {schema.name: schema for schema in schemas if schema.current}

    def current(self, name: str) -> Schema:
        """Today's schema of a record. KeyError for a name that has none."""
        return self.by_name[name]

    def superseded(self, name: str) -> list[Schema]:
        """The earlier schemas of a record, in the order of their release."""
        return [schema for schema in self.by_prefix.values() if schema.name == name and not schema.current]


def _release(file: Traversable) -> tuple[str, int]:
    """The place of a superseded schema in the order of release: `Name.avsc`, `Name-2.avsc`, `Name-3.avsc`, ..."""
    name, _, number = file.name.removesuffix(".avsc").partition("-")
    return name, int(number or 1)


def _read(folder: Traversable, *, current: bool) -> list[Schema]:
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".avsc")), key=_release)
    return [load(json.loads(each.read_text("utf-8")), current=current) for each in files]


@functools.cache
def registry(name: str) -> Registry:
    """The schemas of a folder of `schemas`, with the superseded ones."""
    folder = resources.files("ccs_stream.schemas") / name
    superseded = folder / "superseded"
    older = _read(superseded, current=False) if superseded.is_dir() else []
    return Registry(older + _read(folder, current=True))


def log_registry() -> Registry:
    """The schemas of the private log."""
    return registry("log")
