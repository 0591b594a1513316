"""The source text of a function that is made from an Avro schema and a dataclass, and how the two are matched.

`compiled_encoder` and `compiled_decoder` use it.

Guarantees: fields are matched to members of the dataclass by name, and what a field becomes (an enum, a tuple, another
dataclass) is read from annotations; a schema and a dataclass that do not fit raise `TypeError` when the function is
made, not when it is called. Does not: know how a value is encoded.
"""

import dataclasses
import itertools
import linecache
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

AvroType = Any
"""A type of a schema as JSON has it: a name, a list (a union) or a dict."""
_SYMBOLS_MAX: Final = 64
"""Symbols of an enum whose number is one byte."""


_NUMBERS: Final = itertools.count(1)
"""A record may have several functions; their file names must differ, for tracebacks."""


class Member(NamedTuple):
    """A field of a record, and the member of a dataclass that holds it."""

    field: dict[str, Any]
    outer: str | None
    """The member that holds the member, where that is a dataclass: `content_size` is the `size` of `content`."""
    name: str
    hint: Any
    """Its annotation."""


class FunctionSource:
    """The text of one function, and the constants that it uses."""

    def __init__(self, name: str, record: AvroType, beside: Mapping[str, str]) -> None:
        self.name = name
        self.constants: dict[str, Any] = {}
        self.beside = beside
        """Fields that hold the place of a member in a list that travels beside the record."""
        self._lines: list[str] = []
        self._depth = 0
        self._names = 0
        self._types = named_types(record)

    def line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def new(self) -> str:
        """The name of a further variable."""
        self._names += 1
        return f"v{self._names}"

    def constant(self, value: Any) -> str:
        """The name of a constant."""
        self._names += 1
        self.constants[f"c{self._names}"] = value
        return f"c{self._names}"

    def function(self) -> Callable[..., Any]:
        """The function, compiled."""
        text, file = "\n".join(self._lines) + "\n", f"<{self.name}, made from its schema, {next(_NUMBERS)}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # for tracebacks
        exec(compile(text, file, "exec"), self.constants)  # noqa: S102  # text made above, from schemas of this package
        function: Callable[..., Any] = self.constants[self.name]
        return function

    def kind(self, avro_type: AvroType) -> tuple[str, AvroType]:
        """The kind of a type (`union` for a list of types), and its definition."""
        if isinstance(avro_type, list):
            return "union", avro_type
        if isinstance(avro_type, str):
            avro_type = self._types.get(avro_type, avro_type)
        return (avro_type, avro_type) if isinstance(avro_type, str) else (avro_type["type"], avro_type)

    def members(self, record: AvroType, cls: type[Any]) -> list[Member]:
        """The fields of a record with the members of `cls` that hold them. Raises `TypeError` where one has none."""
        hints = typing.get_type_hints(cls)
        found: list[Member] = []
        for field in record["fields"]:
            name = self.beside.get(field["name"], field["name"])
            member = Member(field, None, name, hints[name]) if name in hints else _inner_member(field, name, hints)
            if member is None:
                raise TypeError(f"{cls.__name__} has no member for the field {name} of its schema")
            found.append(member)
        return found


def _inner_member(field: dict[str, Any], name: str, hints: dict[str, Any]) -> Member | None:
    for outer, inner in hints.items():
        if dataclasses.is_dataclass(inner):
            parts = typing.get_type_hints(inner)
            for part in (name, name.removeprefix(f"{outer}_")):
                if part in parts:
                    return Member(field, outer, part, parts[part])
    return None


def types_in(avro_type: AvroType) -> list[AvroType]:
    """The types that a type is made of."""
    if isinstance(avro_type, list):
        return avro_type
    if isinstance(avro_type, str):
        return []
    fields = [field["type"] for field in avro_type.get("fields", ())]
    return fields + [avro_type[items] for items in ("items", "values") if items in avro_type]


def named_types(avro_type: AvroType) -> dict[str, AvroType]:
    """The records, enums and fixed types that a schema defines, by name."""
    named = {avro_type["name"]: avro_type} if isinstance(avro_type, dict) and "name" in avro_type else {}
    for inner in types_in(avro_type):
        named |= named_types(inner)
    return named


def branches_of(hint: Any) -> list[Any]:
    """The members of a union but None."""
    return [each for each in typing.get_args(hint) if each is not type(None)]


def item_of(hint: Any) -> Any:
    """The type of the items of a collection: its last argument, but for the dots of a tuple."""
    return next((each for each in reversed(typing.get_args(hint)) if each is not Ellipsis), None)


def symbols_of(avro_type: AvroType, enum: Any) -> dict[int, Any]:
    """The members of an enum (or its symbols, where there is none) by the byte that stands for each."""
    symbols = avro_type["symbols"]
    if len(symbols) > _SYMBOLS_MAX:
        raise TypeError(f"the enum {avro_type['name']} has more than {_SYMBOLS_MAX} symbols")
    return {place << 1: symbol if enum is None else enum(symbol) for place, symbol in enumerate(symbols)}
