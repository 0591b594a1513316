"""The most frequent events, encoded and decoded by hand: half of a write's and of a rebuild's cost was theirs.

Guarantees: byte for byte what fastavro writes for their schemas, and reads what it writes; a property test holds both
to it. A write is put under the oldest schema that can say it: one that carries no trace is what it was before writes
could carry one, and a reader of a release before that reads it still. Does not: handle schemas superseded since; those
go the general way.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from typing import Any, Final

from ccs_stream.log.avro import (
    NOT_SMALL,
    NULL,
    PRESENT,
    absent,
    read_items,
    read_long,
    write_long,
    write_longs,
    write_text,
)
from ccs_stream.log.schemas import PREFIX_BYTES, log_registry
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.events import GrantIssued, GrantsInvalidated, WriteCommitted, WriteOptions
from ccs_stream.protocol.states import GrantState

WRITE_PREFIX: Final = log_registry().by_prefix[bytes.fromhex("c301fb0b287c7bd3d286")].prefix
"""Of a write that carries no trace."""
TRACED_PREFIX: Final = log_registry().current("WriteCommitted").prefix
"""Of a write that carries one, in options that have a field more."""
INVALIDATION_PREFIX: Final = log_registry().current("GrantsInvalidated").prefix
GRANT_PREFIX: Final = log_registry().current("GrantIssued").prefix
_STATES: Final = tuple(GrantState)
_STATE_BYTES: Final = {state: bytes((code << 1,)) for code, state in enumerate(_STATES)}
# Setting slots one by one takes a fifth of what a call with a dozen keywords takes.
_new: Final = object.__new__
_TEXTS: Final[dict[str, bytes]] = {}
"""Encoded content types and encodings: a handful in any log."""
_TEXTS_MAX: Final = 256
_ID: Final = 16
_HASH: Final = 32


def _text(text: str) -> bytes:
    known = _TEXTS.get(text)
    if known is None:
        known = write_text(text)
        if len(_TEXTS) < _TEXTS_MAX:
            _TEXTS[text] = known
    return known


def encode_write(event: WriteCommitted) -> bytes:
    """A write."""
    base, index, locator, options = event.base_version, event.content_index, event.content_locator, event.options
    return b"".join(
        (
            WRITE_PREFIX if options is None or options.trace_parent is None else TRACED_PREFIX,
            event.artifact,
            write_long(event.participant),
            write_long(event.version),
            NULL if base is None else b"\x02" + write_long(base),
            write_long(event.previous_sequence),
            _text(event.content_type),
            _text(event.content_encoding),
            event.content_hash,
            write_long(event.content_size),
            NULL if index is None else b"\x02" + write_long(index),
            NULL if locator is None else b"".join((b"\x02", write_long(len(locator)), locator)),
            NULL if options is None else _options(options),
        )
    )


def _options(options: WriteOptions) -> bytes:
    paths, reason, trace_parent = options.index_fields, options.reason, options.trace_parent
    return b"".join(
        (
            b"\x02",
            write_optional(options.expires_at),
            write_optional(options.ttl_us),
            NULL if paths is None else b"\x02" + write_texts(paths),
            NULL if reason is None else b"\x02" + write_text(reason),
            b"" if trace_parent is None else b"\x02" + write_text(trace_parent),
        )
    )


def decode_write(data: bytes) -> WriteCommitted:
    """A write, with or without a trace. Raises `CorruptRecord`."""
    raw: Any = data  # slices take their type where they are assigned
    event = _new(WriteCommitted)
    event.options = event.base_version = event.content_index = event.content_locator = None
    try:
        at = PREFIX_BYTES + _ID
        event.artifact = raw[PREFIX_BYTES:at]
        # Small numbers are read where they are, as in the envelope.
        if (small := raw[at]) & NOT_SMALL:
            event.participant, at = read_long(data, at)
        else:
            event.participant, at = small >> 1, at + 1
        event.version, at = read_long(data, at)
        if data[at] == PRESENT:
            event.base_version, at = read_long(data, at + 1)
        else:
            at = absent(data, at)
        event.previous_sequence, at = read_long(data, at)
        if (length := data[at]) & NOT_SMALL:
            length, at = read_long(data, at)
        else:
            length, at = length >> 1, at + 1
        event.content_type = data[at : at + length].decode()
        at += length
        if data[at]:
            length, at = read_long(data, at)
            event.content_encoding = data[at : at + length].decode()
            at += length
        else:
            event.content_encoding = ""
            at += 1
        event.content_hash = raw[at : at + _HASH]
        event.content_size, at = read_long(data, at + _HASH)
        if data[at] == PRESENT:
            event.content_index, at = (0, at + 2) if data[at + 1] == 0 else read_long(data, at + 1)
        else:
            at = absent(data, at)
        if data[at] == PRESENT:
            length, at = read_long(data, at + 1)
            event.content_locator = data[at : at + length]
            at += length
        else:
            at = absent(data, at)
        if data[at] == PRESENT:
            event.options, at = _read_options(data, at + 1, traced=data.startswith(TRACED_PREFIX))
        else:
            at = absent(data, at)
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord("a write is cut short or garbled") from error
    if at != len(data):
        raise CorruptRecord("bytes follow the end of a write")
    return event


def _read_options(data: bytes, at: int, *, traced: bool) -> tuple[WriteOptions, int]:
    options = WriteOptions()
    options.expires_at, at = read_optional(data, at)
    options.ttl_us, at = read_optional(data, at)
    if data[at] == PRESENT:
        paths, at = read_items(data, at + 1, read_text)
        options.index_fields = tuple(paths)
    else:
        at = absent(data, at)
    options.reason, at = read_optional_text(data, at)
    if traced:
        options.trace_parent, at = read_optional_text(data, at)
    return options, at


def encode_grant(event: GrantIssued) -> bytes:
    """A grant."""
    return b"".join(
        (
            GRANT_PREFIX,
            event.artifact,
            write_long(event.participant),
            write_long(event.version),
            _STATE_BYTES[event.to_state],
        )
    )


def decode_grant(data: bytes) -> GrantIssued:
    """A grant. Raises `CorruptRecord`."""
    raw: Any = data
    event = _new(GrantIssued)
    try:
        at = PREFIX_BYTES + _ID
        event.artifact = raw[PREFIX_BYTES:at]
        event.participant, at = read_long(data, at)
        event.version, at = read_long(data, at)
        event.to_state = _state(data[at])
    except IndexError as error:
        raise CorruptRecord("a grant is cut short or garbled") from error
    if at + 1 != len(data):
        raise CorruptRecord("a grant ends where it should not")
    return event


def encode_invalidation(event: GrantsInvalidated) -> bytes:
    """An invalidation; linear in its holders."""
    return b"".join(
        (
            INVALIDATION_PREFIX,
            event.artifact,
            write_long(event.version),
            write_long(event.owner),
            _STATE_BYTES[event.owner_state],
            write_longs(event.sharers),
        )
    )


def decode_invalidation(data: bytes) -> GrantsInvalidated:
    """An invalidation. Raises `CorruptRecord`."""
    raw: Any = data
    event = _new(GrantsInvalidated)
    try:
        at = PREFIX_BYTES + _ID
        event.artifact = raw[PREFIX_BYTES:at]
        event.version, at = read_long(data, at)
        event.owner, at = read_long(data, at)
        event.owner_state = _state(data[at])
        event.sharers, at = read_items(data, at + 1, read_long)
    except IndexError as error:
        raise CorruptRecord("an invalidation is cut short or garbled") from error
    if at != len(data):
        raise CorruptRecord("bytes follow the end of an invalidation")
    return event


# Parts of these, and of commands.


def write_texts(texts: tuple[str, ...]) -> bytes:
    """An array of strings."""
    if not texts:
        return NULL
    return b"".join((write_long(len(texts)), *[write_text(each) for each in texts], NULL))


def write_optional(number: int | None) -> bytes:
    """A number that may be absent."""
    return NULL if number is None else b"\x02" + write_long(number)


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """The string at `at`, and where the next field begins. Raises `CorruptRecord`.

    What is longer than the data ends behind it, which whoever reads on finds.
    """
    length, at = read_long(data, at)
    if length < 0:
        raise CorruptRecord("a text has a negative length")
    return data[at : at + length].decode(), at + length


def read_optional(data: bytes, at: int) -> tuple[Any, int]:
    """The number at `at`, if it is there, and where the next field begins. Raises `CorruptRecord`."""
    if data[at] == PRESENT:
        return read_long(data, at + 1)
    return None, absent(data, at)


def read_optional_text(data: bytes, at: int) -> tuple[str | None, int]:
    """The string at `at`, if it is there, and where the next field begins. Raises `CorruptRecord`."""
    if data[at] == PRESENT:
        return read_text(data, at + 1)
    return None, absent(data, at)


def _state(code: int) -> GrantState:
    """IndexError for a state that there is not."""
    if code & 1:
        raise CorruptRecord("a grant has a state that there is not")
    return _STATES[code >> 1]
