"""The numbers of Avro's binary encoding, as tables and functions for the code that the codec's compilers make.

Guarantees: byte for byte what fastavro writes, and reads what any Avro writer writes. Does not: know any schema.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from typing import Any, Final

from ccs_stream.protocol.errors import CorruptRecord

NULL: Final = b"\x00"
"""A null, an empty text, an empty array, the end of an array."""
PRESENT: Final = b"\x02"
"""Branch 1 of a union, zigzag: before an optional value that is there."""
ONE: Final = b"\x02"
"""The number 1, zigzag: a block of one item."""
NOT_SMALL: Final = 0x81
"""Bits of a number's first byte: more bytes follow, or the number is negative."""
SMALL_MAX: Final = 1 << 13
"""Numbers from 0 up to this one are looked up in `SMALL`."""
_LONG_BYTES_MAX: Final = 10
_FOUR_BYTES: Final = 1 << 28
_LONG_MAX: Final = (1 << 64) - 1
_FLAGS: Final = sum(0x80 << 7 * place for place in range(7))
"""Sum of the "more bytes follow" bits of an eight-byte number, each in its shifted place."""
LAST: Final = tuple(bytes((n,)) if n < 128 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14))
"""Unsigned numbers of up to 14 bits, which end a number."""
PAIR: Final = tuple(bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14))
"""The same numbers as two bytes, each with the bit that says that more bytes follow."""
SMALL: Final = LAST[::2]
"""Numbers from 0 up to `SMALL_MAX`, zigzag."""
PRESENT_SMALL: Final = tuple(PRESENT + encoded for encoded in SMALL)
"""The same numbers as optional values."""


def write_long(n: int) -> bytes:
    """Avro's variable-length zigzag encoding of a number. Raises `OverflowError` beyond 64 bits."""
    if n >= SMALL_MAX:
        n <<= 1
        if n < _FOUR_BYTES:
            return PAIR[n & 0x3FFF] + LAST[n >> 14]
        if n > _LONG_MAX:
            raise OverflowError("the number does not fit in 64 bits")
    elif n >= 0:
        return SMALL[n]
    else:
        n = ~(n << 1)
        if n > _LONG_MAX:
            raise OverflowError("the number does not fit in 64 bits")
    out = b""
    while n > 0x3FFF:
        out += PAIR[n & 0x3FFF]
        n >>= 14
    return out + LAST[n]


def read_long(data: bytes, at: int) -> tuple[Any, int]:
    """The number at `at`, and where the next field begins. Raises `IndexError` past the end of `data`.

    The number is `Any`, so that it takes its type where it is assigned: calling a `NewType` for each number took a
    tenth of the time in which a long log is folded.
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
            if n > _LONG_MAX:
                raise CorruptRecord("a number does not fit in 64 bits")
            return (n >> 1) ^ -(n & 1), at
        shift += 7
        if shift >= 7 * _LONG_BYTES_MAX:
            raise CorruptRecord("a number is longer than ten bytes")


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """As `read_long`, for the length of a text or of bytes. Raises `CorruptRecord` where it is negative."""
    length, at = read_long(data, at)
    if length < 0:
        raise CorruptRecord("a text or bytes have a negative length")
    return length, at


def read_time(data: bytes, at: int) -> tuple[Any, int]:
    """As `read_long`, fast for the eight bytes that microseconds take from the year 1979 on."""
    eight = data[at : at + 8]
    if len(eight) == 8:
        a, b, c, d, e, f, g, h = eight
        if h < 0x80 <= a & b & c & d & e & f & g:
            n = a + (b << 7) + (c << 14) + (d << 21) + (e << 28) + (f << 35) + (g << 42) + (h << 49) - _FLAGS
            return (n >> 1) ^ -(n & 1), at + 8
    return read_long(data, at)
