"""The envelope's codec, written out by hand because the envelope is frozen and on every hot path.

Guarantees: byte for byte what fastavro writes for `schemas/log/Decision.avsc`, and reads what it writes (a property
test holds both to it); input that is not a whole envelope raises `CorruptRecord`. Twice as fast as the general codec.
Does not: look into events or bodies.

A record is stored in two parts: the head (everything up to `contents`, which is what the hash chain covers) and the
tail (`contents`), so that bodies can be left unread, shared or redacted without touching what is chained.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

import hashlib
from collections.abc import Sequence as SequenceOf
from typing import Any, Final

from ccs_stream.log.schemas import PREFIX_BYTES, log_registry
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.ids import Hash
from ccs_stream.protocol.records import DecisionRecord

PREFIX: Final = log_registry().current("Decision").prefix
EMPTY_TAIL: Final = b"\x00"
_ONE: Final = 2
"""The count 1, zigzag."""
NOT_SMALL: Final = 0x81
"""The bits of a number's first byte that say that more follow, or that it is negative."""
_new: Final = object.__new__
_KINDS: Final = tuple(CommandKind)
_KIND_BYTES: Final = {kind: bytes((code << 1,)) for code, kind in enumerate(_KINDS)}
_LONG_BYTES_MAX: Final = 10
_FLAGS: Final = sum(0x80 << 7 * place for place in range(7))
"""What the "more follows" bits of an eight-byte number add to the sum of its shifted bytes."""
# Unsigned varints of 0..16383, one or two bytes each; and the same numbers as two bytes that are not the last.
_LAST: Final = tuple(bytes((n,)) if n < 128 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14))
_PAIR: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))


def write_long(n: int) -> bytes:
    """Avro's variable-length zigzag encoding of a non-negative number."""
    if n < 8192:
        return _LAST[n << 1]
    n <<= 1
    out = _PAIR[n & 0x3FFF]
    n >>= 14
    while n > 0x3FFF:
        out += _PAIR[n & 0x3FFF]
        n >>= 14
    return out + _LAST[n]


def write_longs(numbers: SequenceOf[int]) -> bytes:
    """An Avro array of non-negative numbers."""
    if not numbers:
        return EMPTY_TAIL
    # As `write_long`, without a call for each: a write that makes a thousand copies stale names them all.
    encoded = [_LAST[n << 1] if n < 8192 else write_long(n) for n in numbers]
    return b"".join((write_long(len(numbers)), *encoded, EMPTY_TAIL))


def read_long(data: bytes, at: int) -> tuple[Any, int]:
    """The number at `at`, and where the next field begins. IndexError past the end of `data`.

    It is `Any` so that it takes its type where it is assigned: calling a `NewType` for each was a tenth of a rebuild.
    """
    byte = data[at]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at + 1
    second = data[at + 1]
    if second < 0x80:
        n = byte & 0x7F | second << 7
        return (n >> 1) ^ -(n & 1), at + 2
    third = data[at + 2]
    n = byte & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14
    if third < 0x80:
        return (n >> 1) ^ -(n & 1), at + 3
    at, shift = at + 3, 21
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (n >> 1) ^ -(n & 1), at
        shift += 7
        if shift >= 7 * _LONG_BYTES_MAX:
            raise CorruptRecord("a number is longer than ten bytes")


def read_time(data: bytes, at: int) -> tuple[Any, int]:
    """As `read_long`, fast for the eight bytes that microseconds take from the year 1979 on."""
    eight = data[at : at + 8]
    if len(eight) == 8:
        a, b, c, d, e, f, g, h = eight
        if h < 0x80 <= a & b & c & d & e & f & g:
            n = a + (b << 7) + (c << 14) + (d << 21) + (e << 28) + (f << 35) + (g << 42) + (h << 49) - _FLAGS
            return (n >> 1) ^ -(n & 1), at + 8
    return read_long(data, at)


def write_parts(parts: SequenceOf[bytes]) -> bytes:
    """An Avro array of bytes."""
    if not parts:
        return EMPTY_TAIL
    if len(parts) == 1:
        part = parts[0]
        return b"".join((b"\x02", write_long(len(part)), part, b"\x00"))
    pieces = [write_long(len(parts))]
    for part in parts:
        pieces.append(write_long(len(part)))
        pieces.append(part)
    pieces.append(b"\x00")
    return b"".join(pieces)


def read_parts(data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """The array of bytes at `at`, and where the next field begins."""
    if data[at] == _ONE:
        # One part and the end of the array behind it, as in most decisions.
        length, begin = read_long(data, at + 1)
        end = begin + length
        if length >= 0 and data[end] == 0:
            return (data[begin:end],), end + 1
    parts: list[bytes] = []
    while True:
        count, at = read_long(data, at)
        if count == 0:
            return tuple(parts), at
        if count < 0:
            # A block with its size in bytes, which Avro allows any writer.
            count = -count
            _, at = read_long(data, at)
        for _ in range(count):
            length, at = read_long(data, at)
            end = at + length
            if length < 0 or end > len(data):
                raise CorruptRecord("the record is cut short inside an array of bytes")
            parts.append(data[at:end])
            at = end


def encode_head(record: DecisionRecord) -> bytes:
    """Everything of a decision up to `contents`."""
    workspace = record.workspace.encode()
    offset = record.command_offset
    return b"".join(
        (
            PREFIX,
            write_long(len(workspace)),
            workspace,
            write_long(record.epoch),
            record.leader_id,
            write_long(record.index),
            write_long(record.first_sequence),
            record.session_id,
            write_long(record.number),
            _KIND_BYTES[record.command_kind],
            b"\x00" if offset is None else b"\x02" + write_long(offset),
            write_long(record.recorded_at),
            record.prev_hash,
            b"\x01" if record.critical else b"\x00",
            write_parts(record.events),
        )
    )


def decode_head(data: bytes) -> tuple[DecisionRecord, int]:
    """A decision without its contents, and where those begin. Raises `CorruptRecord`."""
    raw: Any = data  # slices take their type where they are assigned
    # Setting slots one by one takes a fifth of what a call with fourteen keywords takes.
    record = _new(DecisionRecord)
    record.contents = ()
    try:
        at = PREFIX_BYTES
        # Small numbers are read where they are: a call takes twice as long, and there are ten in a decision.
        if (length := data[at]) & NOT_SMALL:
            length, at = read_long(data, at)
        else:
            length, at = length >> 1, at + 1
        record.workspace = data[at : at + length].decode()
        at += length
        if (epoch := raw[at]) & NOT_SMALL:
            record.epoch, at = read_long(data, at)
        else:
            record.epoch, at = epoch >> 1, at + 1
        record.leader_id = raw[at : at + 16]
        record.index, at = read_long(data, at + 16)
        record.first_sequence, at = read_long(data, at)
        record.session_id = raw[at : at + 16]
        record.number, at = read_long(data, at + 16)
        garbled = data[at] & 1
        record.command_kind, branch = _KINDS[data[at] >> 1], data[at + 1]
        if branch == 0:
            record.command_offset = None
            at += 2
        else:
            garbled |= branch != 2  # branch 1 of the union, zigzag
            record.command_offset, at = read_long(data, at + 2)
        record.recorded_at, at = read_time(data, at)
        record.prev_hash = raw[at : at + 32]
        flag = data[at + 32]
        record.critical = flag == 1
        if garbled or flag > 1:
            raise CorruptRecord("the decision has a kind, an option or a flag that there is not")
        record.events, at = read_parts(data, at + 33)
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord("the decision is cut short or garbled") from error
    return record, at


def decode_tail(tail: bytes) -> tuple[bytes, ...]:
    """The inline bodies. Raises `CorruptRecord`."""
    if tail == EMPTY_TAIL:
        return ()
    try:
        parts, end = read_parts(tail, 0)
    except IndexError as error:
        raise CorruptRecord("the contents are cut short") from error
    if end != len(tail):
        raise CorruptRecord("bytes follow the end of the record")
    return parts


def chain_hash(head: bytes) -> Hash:
    """What the next decision's `prev_hash` must be."""
    digest: Any = hashlib.sha256(head).digest()
    return digest  # type: ignore[no-any-return]
