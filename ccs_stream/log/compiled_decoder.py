"""Decoders made from Avro schemas and the dataclasses that hold their records.

`envelope`, `codec`, `commands` and `deliveries` use it. `compile_decoder` writes the source text of a straight-line
function and compiles it, as `dataclasses` does for `__init__`.

Guarantees: a decoder reads every encoding that the Avro specification allows, blocks of any size included. Input that
is not one whole record raises `CorruptRecord`, and no other error. Members that the schema does not have take their
defaults. Does not: read a superseded schema that differs from today's by more than optional fields and symbols; that
takes an upcast (`protocol.upcast`).

How: numbers of up to three bytes are read inside the function, because a call for each would take longer than the rest.
The offset of a field is a constant as long as all fields before it have a fixed size. Slots are set one by one, which
takes a fifth of the time of a call with a dozen keywords. Reading a text does not check the length of the data: if the
text runs past the end, so does `at`, and the next field or the check at the end raises.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ccs_stream.log import avro
from ccs_stream.log.function_source import AvroType, FunctionSource, branches_of, item_of, symbols_of
from ccs_stream.log.schemas import PREFIX_BYTES, RECORD_BYTES_MAX, Schema
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.ids import Micros

_GARBLED: Final = (IndexError, KeyError, ValueError)
"""Raised by reading past the end, an unknown symbol, text that is not UTF-8, and a class that checks its members."""


def compile_decoder(
    schema: Schema,
    cls: type[Any] | None = None,
    *,
    fields: Sequence[str] | None = None,
    framed: bool = True,
    given: Sequence[str] = (),
    beside: Mapping[str, str] = types.MappingProxyType({}),
) -> Callable[..., Any]:
    """Make a function from a record under `schema` to its value, or without `cls` to a tuple of its fields.

    `fields`: read only these fields. If they are not the last ones of the record, the function returns a pair, the
    value and the offset of the next field.
    `framed`: the prefix of the schema stands before the record.
    `given`: members of `cls` that the schema does not have, which the function takes as further arguments.
    `beside`: see `compile_encoder`; the list is the last argument of the function.

    Raises `TypeError` if schema and class do not fit.
    """
    return _Decoder(schema, beside, framed=framed).compile(cls, fields, given)


class _Decoder(FunctionSource):
    def __init__(self, schema: Schema, beside: Mapping[str, str], *, framed: bool) -> None:
        super().__init__(f"decode_{schema.name}", schema.source, beside)
        self._schema = schema
        self._fixed: int | None = PREFIX_BYTES if framed else 0
        """The offset of the next field, as long as it is the same in every record; then None."""
        self._ahead = 0
        """Bytes between the variable `at` and the next field, when `_fixed` is None."""
        self.constants.update(
            CorruptRecord=CorruptRecord, GARBLED=_GARBLED, new=object.__new__, FLAGS={0: False, 1: True}
        )
        self.constants.update(read_long=avro.read_long, read_length=avro.read_length, read_time=avro.read_time)

    def compile(self, cls: type[Any] | None, fields: Sequence[str] | None, given: Sequence[str]) -> Callable[..., Any]:
        record, what = self._schema.source, self._schema.name
        partial = fields is not None and record["fields"][-1]["name"] not in fields
        if fields is not None:
            record = {**record, "fields": [field for field in record["fields"] if field["name"] in fields]}
        result = "value" if cls is not None else f"({', '.join(field['name'] for field in record['fields'])},)"
        with self.block(f"def {self.name}({', '.join(['data', *given, *(('beside',) if self.beside else ())])}):"):
            self.line("size = len(data)")
            with self.block(f"if size > {RECORD_BYTES_MAX}:"):
                self.line("raise CorruptRecord(f'the record has {size} bytes, more than any log of ours holds')")
            with self.block("try:"):
                if cls is not None:
                    self._record(record, cls, result, {name: name for name in given})
                else:
                    for field in record["fields"]:
                        self._value(field["type"], None, field["name"])
                self._move()
            with self.block("except GARBLED as error:"):
                self.line(f"raise CorruptRecord('a {what} is cut short or garbled') from error")
            with self.block(f"if at {'>' if partial else '!='} size:"):
                self.line(f"raise CorruptRecord('a {what} is cut short' if at > size else 'bytes follow a {what}')")
            self.line(f"return {result}, at" if partial else f"return {result}")
        return self.function()

    def _here(self, plus: int = 0) -> str:
        if self._fixed is not None:
            return str(self._fixed + plus)
        return f"at + {self._ahead + plus}" if self._ahead + plus else "at"

    def _pass(self, size: int) -> None:
        """Move over a field of this size."""
        if self._fixed is not None:
            self._fixed += size
        else:
            self._ahead += size

    def _move(self, plus: int = 0) -> None:
        """Write the line that sets `at` to the offset of the next field."""
        if self._here(plus) != "at":
            self.line(f"at = {self._here(plus)}")
        self._moved()

    def _moved(self) -> None:
        self._fixed, self._ahead = None, 0

    @contextmanager
    def _branch(self, head: str) -> Iterator[None]:
        """A branch of an if statement. At the end of each branch, `at` is the offset of the next field."""
        before = self._fixed, self._ahead
        with self.block(head):
            yield
            self._move()
        self._fixed, self._ahead = before

    def _record(self, record: AvroType, cls: type[Any], value: str, passed: Mapping[str, str]) -> None:
        """Read a record into `value`, whose further members are `passed`, or take their defaults."""
        hints, members = typing.get_type_hints(cls), self.members(record, cls)
        outers = {member.outer: self.new() for member in members if member.outer is not None}
        targets: dict[str | None, dict[str, str]] = {}
        targets[None] = self._begin(cls, value, {member.outer or member.name for member in members}, passed)
        for outer, holder in outers.items():
            inner = {member.name for member in members if member.outer == outer}
            targets[outer] = self._begin(hints[outer], holder, inner, {})
        for field, of, name, hint in members:
            self._member(field, hint, targets[of][name])
        for outer, holder in outers.items():
            self._end(hints[outer], holder, targets[outer])
            self.line(f"{targets[None][outer]} = {holder}")
        self._end(cls, value, targets[None])

    def _begin(self, cls: type[Any], value: str, named: set[str], passed: Mapping[str, str]) -> dict[str, str]:
        """The targets of the members: slots of a new object, or variables if the class checks its members."""
        slots = not hasattr(cls, "__post_init__")
        if slots:
            self.line(f"{value} = new({self.constant(cls)})")
        targets = {field.name: f"{value}.{field.name}" if slots else self.new() for field in dataclasses.fields(cls)}
        for field in dataclasses.fields(cls):
            if field.name in passed:
                self.line(f"{targets[field.name]} = {passed[field.name]}")
            elif field.name not in named:
                if field.default is dataclasses.MISSING:
                    raise TypeError(f"{cls.__name__}.{field.name} is not in the schema and has no default")
                self.line(f"{targets[field.name]} = {self.constant(field.default)}")
        return targets

    def _end(self, cls: type[Any], value: str, targets: Mapping[str, str]) -> None:
        if hasattr(cls, "__post_init__"):
            self.line(f"{value} = {self.constant(cls)}({', '.join(f'{name}={at}' for name, at in targets.items())})")

    def _member(self, field: Any, hint: Any, target: str) -> None:
        if field["name"] not in self.beside:
            self._value(field["type"], hint, target)
            return
        place = self.new()
        self._value(field["type"], None, place)
        with self.block(f"if {place} is not None and {place} < 0:"):
            self.line("raise CorruptRecord('a body has a place that there is not')")
        self.line(f"{target} = None if {place} is None else beside[{place}]")

    def _value(self, avro_type: AvroType, hint: Any, target: str) -> None:
        """Read a value into `target`."""
        match self.kind(avro_type):
            case "union", branches:
                self._union(branches, hint, target)
            case "long" | "int", _ if hint is Micros:
                self.line(f"{target}, at = read_time(data, {self._here()})")
                self._moved()
            case "long" | "int", _:
                self._long(target, "read_long")
            case "boolean", _:
                self.line(f"{target} = FLAGS[data[{self._here()}]]")
                self._pass(1)
            case "string" | "bytes" as kind, _:
                length = self.new()
                self._long(length, "read_length")
                self.line(f"{target} = data[at : (at := at + {length})]{'.decode()' if kind == 'string' else ''}")
            case "fixed", definition:
                self.line(f"{target} = data[{self._here()} : {self._here(definition['size'])}]")
                self._pass(definition["size"])
            case "enum", definition:
                self.line(f"{target} = {self.constant(symbols_of(definition, hint))}[data[{self._here()}]]")
                self._pass(1)
            case "array" | "map", definition:
                self._items(definition, hint, target)
            case "record", definition:
                value = self.new()
                self._record(definition, hint, value, {})
                self.line(f"{target} = {value}")
            case kind, _:
                raise TypeError(f"no decoding for the Avro type {kind!r}")

    def _long(self, target: str, read: str) -> None:
        """A number of up to three bytes that is not negative; `read` reads any."""
        first, second, third = self.new(), self.new(), self.new()
        with self.block(f"if not ({first} := data[{self._here()}]) & {avro.NOT_SMALL}:"):
            self.line(f"{target} = {first} >> 1")
            self.line(f"at = {self._here(1)}")
        with self.block(f"elif not {first} & 1 and ({second} := data[{self._here(1)}]) < 128:"):
            self.line(f"{target} = ({first} & 127 | {second} << 7) >> 1")
            self.line(f"at = {self._here(2)}")
        with self.block(f"elif not {first} & 1 and ({third} := data[{self._here(2)}]) < 128:"):
            self.line(f"{target} = ({first} & 127 | ({second} & 127) << 7 | {third} << 14) >> 1")
            self.line(f"at = {self._here(3)}")
        with self.block("else:"):
            self.line(f"{target}, at = {read}(data, {self._here()})")
        self._moved()

    def _union(self, branches: list[AvroType], hint: Any, target: str) -> None:
        branch = self.new()
        self.line(f"{branch} = data[{self._here()}]")
        hints = [None, *([None] if hint is None else branches_of(hint))] if branches[0] == "null" else branches_of(hint)
        for place, (avro_type, inner) in enumerate(zip(branches, hints, strict=True)):
            with self._branch(f"{'elif' if place else 'if'} {branch} == {place << 1}:"):
                self._pass(1)
                if avro_type == "null":
                    self.line(f"{target} = None")
                else:
                    self._value(avro_type, inner, target)
        with self.block("else:"):
            self.line("raise CorruptRecord('a union has a branch that there is not')")
        self._moved()

    def _items(self, definition: AvroType, hint: Any, target: str) -> None:
        """An array or a map, of any number of blocks; nearly always one block, and often of one item."""
        items, count = self.new(), self.new()
        is_map, is_tuple = definition["type"] == "map", typing.get_origin(hint) is tuple
        if is_map:
            self.line(f"{items} = {{}}")
            self._move()
        else:
            with self._branch(f"if data[{self._here()}] == 2:"):
                self._pass(1)
                item = self._item(definition, hint)
                with self.block("if data[at]:"):
                    self.line(f"{items} = [{item}]")
                with self.block("else:"):
                    self.line(f"{items} = None")
                    self.line(f"{target} = {f'({item},)' if is_tuple else f'[{item}]'}")
                    self.line("at += 1")
            with self._branch("else:"):
                self.line(f"{items} = []")
            self._moved()
        with self.block(f"if {items} is not None:"):
            self._long(count, "read_long")
            with self.block(f"while {count}:"):
                with self.block(f"if {count} < 0:"):  # a block that says its size in bytes, as Avro allows
                    self.line(f"{count} = -{count}")
                    self.line("_, at = read_long(data, at)")
                with self.block(f"for _ in range({count}):"):
                    if is_map:
                        key = self.new()
                        self._value("string", str, key)
                        self.line(f"{items}[{key}] = {self._item(definition, hint)}")
                    else:
                        self.line(f"{items}.append({self._item(definition, hint)})")
                self._long(count, "read_long")
            self.line(f"{target} = tuple({items})" if is_tuple else f"{target} = {items}")

    def _item(self, definition: AvroType, hint: Any) -> str:
        item = self.new()
        self._value(definition.get("items") or definition["values"], item_of(hint), item)
        self._move()
        return item
