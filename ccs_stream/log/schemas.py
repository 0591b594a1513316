"""The released Avro schemas, by the fingerprint that precedes every record.

Guarantees: a record written under any released schema is readable for ever: its fingerprint finds the schema it was
written with, and fastavro resolves it to today's. Does not: guess; a fingerprint nobody released is `UnknownSchema`.

Source: Apache Avro 1.12 specification, "Single-object encoding" (marker C3 01, then the CRC-64-AVRO fingerprint of the
schema's parsing canonical form, little-endian) and "Schema Fingerprints".
"""

import dataclasses
import functools
import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

MARKER: Final = b"\xc3\x01"
PREFIX_BYTES: Final = 10
"""Length of marker and fingerprint."""


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


def _read(folder: Traversable, *, current: bool) -> list[Schema]:
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".avsc")), key=lambda each: each.name)
    return [load(json.loads(each.read_text("utf-8")), current=current) for each in files]


@functools.cache
def log_registry() -> Registry:
    """The schemas of the private log: `schemas/log`, and superseded ones in `schemas/log/superseded`."""
    folder = resources.files("ccs_stream.schemas") / "log"
    superseded = folder / "superseded"
    older = _read(superseded, current=False) if superseded.is_dir() else []
    return Registry(older + _read(folder, current=True))
