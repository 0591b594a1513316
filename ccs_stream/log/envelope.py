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
from typing import Final

from ccs_stream.log.schemas import PREFIX_BYTES, log_registry
from ccs_stream.protocol.commands import CommandKind
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.ids import (
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    Micros,
    Sequence,
    SessionId,
)
from ccs_stream.protocol.records import DecisionRecord

PREFIX: Final = log_registry().current("Decision").prefix
EMPTY_TAIL: Final = b"\x00"
_KINDS: Final = tuple(CommandKind)
_KIND_BYTES: Final = {kind: bytes((code << 1,)) for code, kind in enumerate(_KINDS)}
_LONG_BYTES_MAX: Final = 10
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


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins. IndexError past the end of `data`."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), at
    n, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (n >> 1) ^ -(n & 1), at
        shift += 7
        if shift >= 7 * _LONG_BYTES_MAX:
            raise CorruptRecord("a number is longer than ten bytes")


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
    try:
        length, at = read_long(data, PREFIX_BYTES)
        workspace = data[at : at + length].decode()
        epoch, at = read_long(data, at + length)
        leader_id = data[at : at + 16]
        index, at = read_long(data, at + 16)
        first_sequence, at = read_long(data, at)
        session_id = data[at : at + 16]
        number, at = read_long(data, at + 16)
        kind, branch = _KINDS[data[at] >> 1], data[at + 1]
        offset: int | None = None
        garbled = data[at] % 2
        if branch == 0:
            at += 2
        else:
            garbled |= branch != 2  # branch 1 of the union, zigzag
            offset, at = read_long(data, at + 2)
        recorded_at, at = read_long(data, at)
        prev_hash = data[at : at + 32]
        critical = data[at + 32] == 1
        if garbled or data[at + 32] > 1:
            raise CorruptRecord("the decision has a kind, an option or a flag that there is not")
        events, at = read_parts(data, at + 33)
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord("the decision is cut short or garbled") from error
    record = DecisionRecord(
        workspace=workspace,
        epoch=Epoch(epoch),
        leader_id=LeaderId(leader_id),
        index=DecisionIndex(index),
        first_sequence=Sequence(first_sequence),
        session_id=SessionId(session_id),
        number=CommandNumber(number),
        command_kind=kind,
        command_offset=offset,
        recorded_at=Micros(recorded_at),
        prev_hash=Hash(prev_hash),
        critical=critical,
        events=events,
        contents=(),
    )
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
    return Hash(hashlib.sha256(head).digest())
