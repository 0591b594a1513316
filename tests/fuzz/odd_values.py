"""Odd values of every type, and ordinary ones, for the arguments of the public API."""

import dataclasses
import datetime as dt
import decimal
import enum
import math
import random
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


class _Text(str):
    __slots__ = ()


class _Number(int):
    pass


class _Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class _Point:
    x: int = 1


TEXTS: Final = (
    "",
    "plan",
    "a/b",
    "a.b",
    "..",
    "'; DROP TABLE x --",
    "[/INST]",
    "[bold]x[/]",
    "\x00",
    "\x1b[2J",
    "\r\nforged",
    "\u202eevil",
    "\ud800",
    "é" * 50,
    "x" * 5_000,
    "x" * 70_000,
    "langgraph",
    "🦜",
    _Text("plan"),
)
NUMBERS: Final[tuple[Any, ...]] = (
    0,
    1,
    -1,
    2,
    True,
    False,
    1.0,
    0.5,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    sys.float_info.max,
    sys.float_info.min,
    sys.maxsize,
    decimal.Decimal("1.5"),
    _Number(3),
)
OTHERS: Final[tuple[Any, ...]] = (
    None,
    b"",
    b"\xff\x00",
    bytearray(b"x"),
    (),
    ("a",),
    ("a", ""),
    ("a", 1),
    ["a"],
    [],
    {},
    {"a": 1},
    {1: "a"},
    {"a": math.nan},
    {"a": {1, 2}},
    {"a": b"x"},
    {"\ud800": 1},
    {"a": "\ud800"},
    {"a": 2**70},
    {"a": _Colour.RED},
    set(),
    object(),
    print,
    Exception("x"),
    _Colour.RED,
    _Point(),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    dt.timedelta(days=10**8),
    uuid.UUID(int=7),
    Path("/nowhere/at/all"),
    lambda *_: None,
)
GOOD_VALUES: Final[tuple[Any, ...]] = (
    {"step": 1},
    {"text": "x" * 1_000},
    {},
    {"nested": {"a": [1, 2.5, None, True, "é"]}},
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def odd(chance: random.Random) -> Any:
    """Any value at all."""
    pool: Callable[[], Any] = chance.choice(
        (
            lambda: chance.choice(TEXTS),
            lambda: chance.choice(NUMBERS),
            lambda: chance.choice(OTHERS),
            lambda: {"deep": nested(chance.choice((10, 300, 3_000)))},
        )
    )
    return pool()


def mostly(chance: random.Random, *ordinary: Any) -> Any:
    """One of the ordinary values in four of five cases, else any value at all."""
    return chance.choice(ordinary) if chance.random() < 0.8 else odd(chance)
