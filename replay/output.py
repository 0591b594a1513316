"""How commands print: results on stdout, messages on stderr.

The commands of `replay` and some of `cli` use it.

Guarantees: `--json` prints one JSON document and nothing else on stdout; progress is shown on a terminal only; NO_COLOR
and pipes get plain text. Does not: decide exit codes.
"""

import datetime as dt
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table

T = TypeVar("T")

_EVERY: Final = 1_000
"""Items between two looks at the clock."""
_WIDE: Final = 200
"""Columns of a table in a pipe, which wraps no lines."""


def console() -> Console:
    """The console that tables are printed to."""
    return Console(soft_wrap=True, highlight=False) if sys.stdout.isatty() else Console(width=_WIDE, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def print_pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, str(value))
    console().print(made)


def format_time(micros: int) -> str:
    """An instant as ISO 8601 text, in UTC."""
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)).isoformat(
        timespec="microseconds"
    )


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """The items; meanwhile, rate and remaining time are shown on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    began = shown = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if number % _EVERY == 0 and (now := time.monotonic()) - shown > 0.5:
            shown = now
            rate = number / (now - began)
            left = max(total - number, 0) / rate
            sys.stderr.write(f"\r{number:,}/{total:,} records, {rate:,.0f}/s, {left:,.0f} s left   ")
    if shown != began:
        sys.stderr.write("\r" + " " * 60 + "\r")
