"""How commands print: results on stdout, messages on stderr.

The commands of `replay` and some of `cli` use it.

Guarantees: names, keys, reasons and values are the text of others, and are shown as such: control characters, line
ends, bidirectional marks and other invisible characters as escapes, markup as it is, and what the output's encoding
lacks as an escape. `--json` prints one JSON document and nothing else on stdout, with the same characters escaped as
JSON has it; progress is shown on a terminal only; NO_COLOR and pipes get plain text. Does not: decide exit codes.
"""

import io
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ccs_stream.protocol.limits import instant_of

T = TypeVar("T")

_EVERY: Final = 1_000
"""Items between two looks at the clock."""
_WIDE: Final = 200
"""Columns of a table in a pipe, which wraps no lines."""


_PLAIN: Final = re.compile(r"[ -~]*")
_NOT_PLAIN: Final = re.compile(r"[^ -~]")


def visible(text: object, *, lines: bool = False) -> str:
    """A text of others as it may be shown: what is invisible or moves the cursor, as an escape, as Python has it.

    With `lines`, line ends stay: for a text of several lines that is ours.
    """
    shown = str(text)
    if lines:
        return "\n".join(map(visible, shown.split("\n")))
    if _PLAIN.fullmatch(shown) or shown.isprintable():
        return shown
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)


def say(text: str, *, err: bool = False) -> None:
    """Print one line, with the text of others in it made `visible`."""
    click.echo(_encodable(visible(text), sys.stderr if err else sys.stdout), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print a text whose line ends are ours."""
    click.echo(_encodable(visible(text, lines=True), sys.stderr if err else sys.stdout), err=err)


def show_error(error: click.ClickException) -> None:
    """Print an error of the command line; arguments in it are the text of others."""
    said = io.StringIO()
    error.show(said)
    say_lines(said.getvalue().rstrip("\n"), err=True)


def _encodable(text: str, stream: IO[str]) -> str:
    """The text with an escape for each character that the encoding of the stream lacks."""
    if _PLAIN.fullmatch(text):
        return text
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def print_json(document: Any) -> None:
    """Print one JSON document, on several lines."""
    print_json_text(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_json_line(document: Any) -> None:
    """Print one JSON document, on one line."""
    print_json_text(json.dumps(document, ensure_ascii=False, default=str))


def print_json_text(text: str) -> None:
    """Print JSON that is text already. What cannot be shown, or encoded, is escaped inside its strings."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"

    def escaped(found: re.Match[str]) -> str:
        each = found[0]
        if each == "\n":
            return each
        try:
            each.encode(encoding)
        except UnicodeEncodeError:
            return json.dumps(each)[1:-1]
        return each if each.isprintable() else "".join(f"\\u{unit:04x}" for unit in _units(each))

    click.echo(_NOT_PLAIN.sub(escaped, text))


def _units(character: str) -> tuple[int, ...]:
    """The UTF-16 code units of a character."""
    raw = character.encode("utf-16-be", "surrogatepass")
    return tuple(int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))


class _Encodable(io.TextIOBase):
    """The standard output or error stream, for rich: writes what the encoding lacks as an escape."""

    def __init__(self, *, err: bool) -> None:
        super().__init__()
        self._err = err

    @property
    def _stream(self) -> IO[str]:
        return sys.stderr if self._err else sys.stdout

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of the stream
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        return self._stream.write(_encodable(text, self._stream))

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def console(*, err: bool = False, width: int | None = _WIDE, soft_wrap: bool = True) -> Console:
    """The console that tables are printed to: without markup. In a pipe it is `width` columns wide."""
    file: Any = _Encodable(err=err)
    common: dict[str, Any] = {"file": file, "markup": False, "emoji": False, "highlight": False}
    return Console(soft_wrap=soft_wrap, **common) if file.isatty() else Console(width=width, **common)


class PlainTable(Table):
    """A table whose cells are the text of others, or `Text` of ours with a style."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row; everything but a `Text` is made `visible`."""
        super().add_row(*(each if isinstance(each, Text) else Text(visible(each)) for each in cells), **options)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table."""
    heading = Text(visible(title)) if title else None
    made = PlainTable(title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def print_pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line."""
    made = PlainTable(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    console().print(made)


def format_time(micros: int) -> str:
    """An instant as ISO 8601 text, in UTC."""
    return instant_of(micros).isoformat(timespec="microseconds")


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
