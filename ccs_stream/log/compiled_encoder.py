"""Encoders made from Avro schemas and the dataclasses that hold their records.

`envelope`, `codec`, `commands` and `deliveries` use it. `compile_encoder` writes the source text of a straight-line
function and compiles it, as `dataclasses` does for `__init__`.

Guarantees: a record is byte for byte what fastavro writes (property tests hold the encoders to that). It is put under
the oldest schema that can say it, so that a reader of an earlier release goes on reading what carries nothing new.
A number beyond 64 bits raises `OverflowError`, a fixed value of another size and text that is not UTF-8 `ValueError`,
an unknown symbol `KeyError`. Does not: write under a superseded schema that differs from today's by more than optional
fields and symbols at the end of an enum.

How: numbers below 8192 are looked up in a table inside the function; a call for each would take longer than the rest.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ccs_stream.log import avro
from ccs_stream.log.function_source import (
    AvroType,
    FunctionSource,
    branches_of,
    item_of,
    named_types,
    symbols_of,
    types_in,
)
from ccs_stream.log.schemas import Schema
from ccs_stream.protocol.ids import Micros

Path = tuple[str, ...]
"""The place of a field or a symbol in a schema."""


def compile_encoder(
    schemas: Sequence[Schema],
    cls: type[Any] | None = None,
    *,
    fields: Sequence[str] | None = None,
    framed: bool = True,
    as_arguments: bool = False,
    encoded: Mapping[str, Sequence[str]] = types.MappingProxyType({}),
    tail: bytes = b"",
    beside: Mapping[str, str] = types.MappingProxyType({}),
) -> Callable[..., bytes]:
    """Make a function from a value to its record; `schemas` are the schemas of the record, in the order of release.

    `fields`: write only these fields, and then `tail`.
    `framed`: put the prefix of the schema before the record.
    `as_arguments` (always without `cls`): the function takes the fields as arguments, and writes under the last schema.
    `encoded`: names of further arguments, each with the run of fields that the argument holds encoded.
    `beside`: fields that hold the place of a member in a list that travels beside the record. The function takes that
    list as its last argument, and appends the member to it.

    Raises `TypeError` if schema and class do not fit.
    """
    if as_arguments or cls is None:
        return _Encoder(schemas[-1:], beside).of_arguments(cls, fields, encoded, tail, framed=framed)
    return _Encoder(schemas, beside).of_value(cls, fields, framed=framed)


class _Encoder(FunctionSource):
    def __init__(self, schemas: Sequence[Schema], beside: Mapping[str, str]) -> None:
        super().__init__(f"encode_{schemas[-1].name}", schemas[-1].source, beside)
        self._schemas = schemas
        released = [frozenset(_paths(schema.source, (), named_types(schema.source))) for schema in schemas]
        self._since = {
            path: since for path in released[-1] if (since := sum(path not in older for older in released[:-1]))
        }
        """Fields and symbols that the oldest schema does not have, and the place of the first schema that does."""
        self.constants.update(
            SMALL=avro.SMALL, PRESENT_SMALL=avro.PRESENT_SMALL, PAIR=avro.PAIR, LAST=avro.LAST, join=b"".join
        )
        self.constants.update(write_long=avro.write_long, wrong_size=_wrong_size)

    def of_value(self, cls: type[Any], fields: Sequence[str] | None, *, framed: bool) -> Callable[..., bytes]:
        record, prefix = self._part(fields), self.constant(self._schemas[-1].prefix)
        with self.block(f"def {self.name}(value{', beside' if self.beside else ''}):"):
            if self._since:
                self.line("generation = 0")
                self._choose_generation(record, cls, "value", ())
                prefix = f"{self.constant(tuple(schema.prefix for schema in self._schemas))}[generation]"
            parts = self._record(record, cls, "value", ())
            self.line(f"return {_joined([prefix, *parts] if framed else parts)}")
        return self.function()

    def of_arguments(
        self,
        cls: type[Any] | None,
        fields: Sequence[str] | None,
        encoded: Mapping[str, Sequence[str]],
        tail: bytes,
        *,
        framed: bool,
    ) -> Callable[..., bytes]:
        record, hints = self._part(fields), {} if cls is None else typing.get_type_hints(cls)
        runs = {name: run for run, names in encoded.items() for name in names}
        arguments = dict.fromkeys(runs.get(field["name"], field["name"]) for field in record["fields"])
        with self.block(f"def {self.name}({', '.join(arguments)}):"):
            parts = {"": [self.constant(self._schemas[-1].prefix)]} if framed else {}
            for field in record["fields"]:
                name = field["name"]
                if name in runs:
                    parts[runs[name]] = [runs[name]]
                else:
                    parts[name] = self._value(field["type"], hints.get(name), name, (record["name"], name))
            if tail:
                parts["tail"] = [self.constant(tail)]
            self.line(f"return {_joined([each for group in parts.values() for each in group])}")
        return self.function()

    def _part(self, fields: Sequence[str] | None) -> AvroType:
        """The record with only these fields."""
        record = self._schemas[-1].source
        return (
            record
            if fields is None
            else {**record, "fields": [each for each in record["fields"] if each["name"] in fields]}
        )

    def _is_newer(self, path: Path) -> bool:
        """True if the oldest schema lacks a field or a symbol at this path."""
        return any(newer[: len(path)] == path for newer in self._since)

    def _choose_generation(self, avro_type: AvroType, hint: Any, value: str, path: Path) -> None:
        """Write the lines that set `generation` to the place of the oldest schema that can say this value."""
        match self.kind(avro_type):
            case "union", ["null", inner]:
                with self.block(f"if {value} is not None:"):
                    self._choose_generation(inner, branches_of(hint)[0], value, path)
            case "union", branches:
                for branch, cls in zip(branches, branches_of(hint), strict=True):
                    if self._is_newer((*path, branch["name"])):
                        with self.block(f"if type({value}) is {self.constant(cls)}:"):
                            self._choose_generation(branch, cls, value, path)
            case "array", definition:
                with self.block(f"for {(item := self.new())} in {value}:"):
                    self._choose_generation(definition["items"], item_of(hint), item, path)
            case "enum", definition:
                newer = {hint(each): self._since.get((*path, each), 0) for each in definition["symbols"]}
                self.line(f"generation = max(generation, {self.constant(newer)}[{value}])")
            case "record", definition:
                for field, outer, name, inner in self.members(definition, hint):
                    place = (*path, definition["name"], field["name"])
                    member = f"{value}.{name}" if outer is None else f"{value}.{outer}.{name}"
                    if place in self._since:
                        with self.block(f"if {member} is not None and generation < {self._since[place]}:"):
                            self.line(f"generation = {self._since[place]}")
                    elif self._is_newer(place):
                        self._choose_generation(field["type"], inner, member, place)
            case kind, _:
                raise TypeError(f"no part of the Avro type {kind!r} can be newer than its schema")

    def _record(self, record: AvroType, cls: type[Any], value: str, path: Path) -> list[str]:
        """The parts of a record, as expressions; the lines that they need are written before."""
        parts: list[str] = []
        holders: dict[str | None, str] = {None: value}
        for field, outer, name, hint in self.members(record, cls):
            if outer not in holders:
                holders[outer] = self.new()
                self.line(f"{holders[outer]} = {value}.{outer}")
            member, place = f"{holders[outer]}.{name}", (*path, record["name"], field["name"])
            if field["name"] in self.beside:
                parts.append(self._place(member))
            elif place in self._since:
                part = self.new()
                with self.block(f"if generation >= {self._since[place]}:"):
                    self.line(f"{part} = {_joined(self._value(field['type'], hint, member, place))}")
                with self.block("else:"):
                    self.line(f"{part} = b''")
                parts.append(part)
            else:
                parts += self._value(field["type"], hint, member, place)
        return parts

    def _value(self, avro_type: AvroType, hint: Any, value: str, path: Path) -> list[str]:
        """The parts of a value, as expressions; the lines that they need are written before."""
        match self.kind(avro_type):
            case "union", ["null", inner]:
                return [self._optional(inner, hint, value, path)]
            case "union", branches:
                return [self._union(branches, hint, value, path)]
            case "long" | "int", _:
                return [self._time(value) if hint is Micros else self._long(value)]
            case "boolean", _:
                return [f"(b'\\1' if {value} else b'\\0')"]
            case "bytes", _:
                raw = self.new()
                return [self._long(f"len({raw} := {value})"), raw]
            case "string", _:
                raw = self.new()
                return [self._long(f"len({raw} := {value}.encode())"), raw]
            case "fixed", definition:
                raw = self.new()
                return [f"({raw} if len({raw} := {value}) == {definition['size']} else wrong_size({raw}))"]
            case "enum", definition:
                encoded = {member: bytes((byte,)) for byte, member in symbols_of(definition, hint).items()}
                return [f"{self.constant(encoded)}[{value}]"]
            case "array" | "map", definition:
                return [self._items(definition, hint, value, path)]
            case "record", definition:
                return self._record(definition, hint, value, path)
            case kind, _:
                raise TypeError(f"no encoding for the Avro type {kind!r}")

    def _long(self, value: str) -> str:
        number = self.new()
        return f"(SMALL[{number}] if -1 < ({number} := {value}) < {avro.SMALL_MAX} else write_long({number}))"

    def _time(self, value: str) -> str:
        """Microseconds take eight bytes from 1970 to the year 3111: four pairs, without a loop."""
        part, number = self.new(), self.new()
        with self.block(f"if {1 << 49} <= ({number} := {value} << 1) < {1 << 56}:"):
            pairs = [f"PAIR[{number}{f' >> {shift}' if shift else ''} & 0x3FFF]" for shift in (0, 14, 28)]
            self.line(f"{part} = {' + '.join(pairs)} + LAST[{number} >> 42]")
        with self.block("else:"):
            self.line(f"{part} = write_long({number} >> 1)")
        return part

    def _place(self, member: str) -> str:
        """The place of a member that travels beside the record."""
        part = self.new()
        with self.block(f"if {member} is None:"):
            self.line(f"{part} = b'\\0'")
        with self.block("else:"):
            self.line(f"{part} = b'\\2' + {self._long('len(beside)')}")
            self.line(f"beside.append({member})")
        return part

    def _optional(self, avro_type: AvroType, hint: Any, value: str, path: Path) -> str:
        inner, held, part = None if hint is None else branches_of(hint)[0], self.new(), self.new()
        kind, definition = self.kind(avro_type)
        if kind == "long":
            return (
                f"(b'\\0' if ({held} := {value}) is None else PRESENT_SMALL[{held}] "
                f"if -1 < {held} < {avro.SMALL_MAX} else b'\\2' + write_long({held}))"
            )
        if kind == "enum":
            encoded = {member: avro.PRESENT + bytes((byte,)) for byte, member in symbols_of(definition, inner).items()}
            return f"{self.constant({None: avro.NULL, **encoded})}[{value}]"
        with self.block(f"if ({held} := {value}) is None:"):
            self.line(f"{part} = b'\\0'")
        with self.block("else:"):
            self.line(f"{part} = {_joined([repr(avro.PRESENT), *self._value(avro_type, inner, held, path)])}")
        return part

    def _union(self, branches: list[AvroType], hint: Any, value: str, path: Path) -> str:
        part = self.new()
        for place, (branch, cls) in enumerate(zip(branches, branches_of(hint), strict=True)):
            with self.block(f"{'elif' if place else 'if'} type({value}) is {self.constant(cls)}:"):
                parts = self._value(branch, cls, value, path)
                self.line(f"{part} = {_joined([repr(bytes((place << 1,))), *parts])}")
        with self.block("else:"):
            self.line(f"raise TypeError(f'no branch of the union takes a {{type({value}).__name__}}')")
        return part

    def _items(self, definition: AvroType, hint: Any, value: str, path: Path) -> str:
        """An array or a map, in one block."""
        part, items, out, key, item = self.new(), self.new(), self.new(), self.new(), self.new()
        is_map = definition["type"] == "map"

        def encoded() -> list[str]:
            parts = self._value("string", str, key, path) if is_map else []
            return parts + self._value(definition["values" if is_map else "items"], item_of(hint), item, path)

        with self.block(f"if not ({items} := {value}):"):
            self.line(f"{part} = b'\\0'")
        if not is_map:
            with self.block(f"elif len({items}) == 1:"):
                self.line(f"{item} = {items}[0]")
                self.line(f"{part} = {_joined([repr(avro.ONE), *encoded(), repr(avro.NULL)])}")
        with self.block("else:"):
            self.line(f"{out} = [{self._long(f'len({items})')}]")
            with self.block(f"for {key}, {item} in {items}.items():" if is_map else f"for {item} in {items}:"):
                for each in encoded():
                    self.line(f"{out}.append({each})")
            self.line(f"{out}.append(b'\\0')")
            self.line(f"{part} = join({out})")
        return part


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"join(({', '.join(parts)},))"


def _wrong_size(value: bytes) -> NoReturn:
    raise ValueError(f"a fixed value has {len(value)} bytes, which is not its size")


def _paths(avro_type: AvroType, path: Path, named: Mapping[str, AvroType]) -> Iterator[Path]:
    """All fields and symbols of a schema."""
    if isinstance(avro_type, str):
        avro_type = named.get(avro_type, avro_type)
    if isinstance(avro_type, str) or "fields" not in avro_type:
        for symbol in () if isinstance(avro_type, str | list) else avro_type.get("symbols", ()):
            yield (*path, symbol)
        for inner in types_in(avro_type):
            yield from _paths(inner, path, named)
        return
    for field in avro_type["fields"]:
        place = (*path, avro_type["name"], field["name"])
        yield place
        yield from _paths(field["type"], place, named)
