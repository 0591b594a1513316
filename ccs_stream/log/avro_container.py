"""Avro object container files, read with bounds: an archive may come from anybody.

`ArchiveLog` reads with it.

Guarantees: memory is bounded by the largest block that is allowed, whatever the file claims or inflates to; sizes are
compared with the file before anything is read. Anything else is `NotALog` (the header) or `CorruptRecord` (a block).
Does not: write; fastavro does.

Source: Apache Avro 1.12 specification, "Object Container Files".
"""

import io
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import fastavro

from ccs_stream.protocol.errors import CorruptRecord

ROW_BYTES_MAX: Final = 128 * 1024 * 1024
"""Bytes of one row: twice the largest record, and eight times the largest body that a workspace takes by default."""
_BLOCK_BYTES_MAX: Final = ROW_BYTES_MAX + 1024 * 1024
"""Bytes of a block when it is inflated. Writers end one with the row that exceeds 256 KiB."""
_ROWS_BEGIN_MAX: Final = 1024 * 1024
"""The last row of a block begins within so many bytes: small rows take fifty times their bytes in memory."""
_META_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of a header: the schemas of the log take a hundredth of it."""
_MAGIC: Final = b"Obj\x01"
_SYNC_BYTES: Final = 16
_LONG_BYTES_MAX: Final = 10
_RAW_DEFLATE: Final = -15


class ContainerReader:
    """A container file, from its beginning."""

    def __init__(self, source: BinaryIO, reader_schema: Any) -> None:
        """Read the header. Raises `ValueError` for what is no container, or has one that is not understood."""
        self._source = source
        self._size = os.fstat(source.fileno()).st_size
        self._reader_schema = reader_schema
        if source.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as one")
        meta = self._metadata()
        self._sync = source.read(_SYNC_BYTES)
        self._codec = meta.get("avro.codec", b"null").decode()
        if self._codec not in ("null", "deflate"):
            raise ValueError(f"its compression {self._codec[:40]!r} is not known")
        self.schema: Any = json.loads(meta.get("avro.schema", b"null"))
        self._writer_schema: Any = None

    @property
    def name(self) -> str:
        """The full name of the schema of its rows."""
        schema = self.schema
        if not isinstance(schema, dict):
            return str(schema)[:80]
        space, name = schema.get("namespace"), str(schema.get("name"))
        return f"{space}.{name}" if space and "." not in name else name

    def blocks(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Each block from where the file stands: its offset, and its rows. Raises `CorruptRecord`."""
        try:
            while (offset := self._source.tell()) < self._size:
                yield offset, self._rows()
        except CorruptRecord:
            raise
        except Exception as error:  # fastavro and zlib raise what their C code meets
            raise CorruptRecord(f"a block is damaged or cut short ({type(error).__name__})") from error

    def _rows(self) -> list[dict[str, Any]]:
        count, data = self._long(), self._bytes(self._size)
        if self._source.read(_SYNC_BYTES) != self._sync:
            raise CorruptRecord("a block does not end where it says")
        inflated = io.BytesIO(data if self._codec == "null" else _inflated(data))
        size = inflated.getbuffer().nbytes
        if not 0 <= count <= size:
            raise CorruptRecord(f"a block of {size} bytes says that it has {count} rows")
        if self._writer_schema is None:
            self._writer_schema = fastavro.parse_schema(self.schema, named_schemas={})
        rows: list[dict[str, Any]] = []
        for _ in range(count):
            if inflated.tell() > _ROWS_BEGIN_MAX:
                raise CorruptRecord("a block goes on after the row with which its writer would have ended it")
            rows.append(fastavro.schemaless_reader(inflated, self._writer_schema, self._reader_schema))  # type: ignore[arg-type]
        if inflated.tell() != size:
            raise CorruptRecord("bytes follow the last row of a block")
        return rows

    def _metadata(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        while count := self._long():
            if count < 0:  # then the size of the block follows, for readers that skip it
                count = -count
                self._long()
            for _ in range(min(count, _META_BYTES_MAX)):
                name = self._bytes(_META_BYTES_MAX).decode()
                found[name] = self._bytes(_META_BYTES_MAX)
                if self._source.tell() > _META_BYTES_MAX:
                    raise ValueError("its header is too long")
        return found

    def _bytes(self, most: int) -> bytes:
        size = self._long()
        if not 0 <= size <= min(most, self._size - self._source.tell()):
            raise EOFError(f"{size} bytes are named, and the file does not hold them")
        return self._source.read(size)

    def _long(self) -> int:
        number = 0
        for place in range(_LONG_BYTES_MAX):
            byte = self._source.read(1)
            if not byte:
                raise EOFError("the file ends in a number")
            number |= (byte[0] & 0x7F) << 7 * place
            if byte[0] < 0x80:
                return (number >> 1) ^ -(number & 1)
        raise ValueError("a number is longer than ten bytes")


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(_RAW_DEFLATE)
    found = inflater.decompress(data, _BLOCK_BYTES_MAX)
    if inflater.unconsumed_tail or not inflater.eof:
        if len(found) >= _BLOCK_BYTES_MAX:
            raise CorruptRecord(f"a block inflates to more than {_BLOCK_BYTES_MAX} bytes, which no row of a log has")
        raise EOFError("the block ends before its data")
    return found
