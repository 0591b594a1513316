"""Bodies too large to travel in their decision: a topic of chunks, found by locator.

The Kafka store uses it.

Guarantees: a locator is returned when every chunk is on all in-sync replicas; a body that is read has all of its
chunks, in order. Does not: verify the hash (the caller, who knows it, does), or find a body by key; Kafka has no
look-up.

A locator is ASCII: partition, offset of the first chunk, number of chunks and the upload's id, joined by colons. Chunks
of several uploads may lie between each other. An upload that no admitted decision names is garbage once the grace time
of its workspace is over; nothing deletes it but the topic's own retention, which is unlimited unless it is set.
"""

import dataclasses
import uuid
import zlib
from typing import Any, Final, Self

from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.topic_reader import TopicReader
from ccs_stream.log.schemas import registry
from ccs_stream.protocol.errors import ContentMissing, CorruptRecord, LogDiverged

CHUNK_BYTES: Final = 512 * 1024
"""Half of Kafka's default largest message, so that headers and compression that does not help never matter."""
_SCHEMA: Final = registry("content").current("ContentChunk")
_SPREAD_MAX: Final = 10_000
"""How far after its first chunk a body is looked for. Fewer chunks of other uploads than this lie between its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class ContentLocator:
    """The place of a body in the topic."""

    partition: int
    first_offset: int
    count: int
    upload_id: bytes

    def __bytes__(self) -> bytes:
        return f"{self.partition}:{self.first_offset}:{self.count}:{self.upload_id.hex()}".encode()

    @classmethod
    def parse(cls, locator: bytes) -> Self:
        """The locator in these bytes. Raises `ContentMissing`."""
        try:
            partition, first, count, upload_id = locator.decode().split(":")
            return cls(int(partition), int(first), int(count), bytes.fromhex(upload_id))
        except (UnicodeDecodeError, ValueError) as error:
            raise ContentMissing(f"{locator!r} is no locator of a body on Kafka") from error


class ContentTopic:
    """The content store of one log."""

    def __init__(self, topic: str, partitions: int, appender: Appender, reader: TopicReader) -> None:
        self._topic = topic
        self._partitions = partitions
        self._appender = appender
        self._reader = reader

    def put(self, body: bytes) -> bytes:
        """Keep a body; returns its locator. Raises what `Appender.append` raises."""
        upload_id = uuid.uuid4().bytes
        partition = zlib.crc32(upload_id) % self._partitions
        parts = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)] or [b""]
        chunks: list[tuple[bytes | None, bytes | None]] = [
            (upload_id, _encode(upload_id, index, len(parts), len(body), part)) for index, part in enumerate(parts)
        ]
        offsets = self._appender.append(self._topic, partition, chunks)
        return bytes(ContentLocator(partition, min(offsets), len(parts), upload_id))

    def get(self, locator: bytes) -> bytes:
        """A body by its locator. Raises `ContentMissing`, `LogUnavailable`."""
        where = ContentLocator.parse(locator)
        parts: dict[int, bytes] = {}
        missing = ContentMissing(f"the body at {locator.decode()} of {self._topic} is no longer whole: it was deleted")
        if not 0 <= where.partition < self._partitions or where.first_offset < 0:
            raise missing
        last = where.first_offset + where.count + _SPREAD_MAX
        try:
            messages = self._reader.read(self._topic, where.partition, where.first_offset - 1, last)
            for message in messages:
                if message.key() != where.upload_id:
                    continue
                chunk = _decode(message.value())
                if chunk is not None and chunk["upload_id"] == where.upload_id:
                    parts[chunk["index"]] = chunk["data"]
                if len(parts) == where.count:
                    return b"".join(parts[index] for index in range(where.count))
        except (KeyError, LogDiverged) as error:
            raise missing from error
        raise missing


def _encode(upload_id: bytes, index: int, count: int, size: int, data: bytes) -> bytes:
    return _SCHEMA.write({"upload_id": upload_id, "index": index, "count": count, "size": size, "data": data})


def _decode(value: Any) -> dict[str, Any] | None:
    """A chunk; None for any other message, which another program wrote."""
    if not isinstance(value, bytes) or not value.startswith(_SCHEMA.prefix):
        return None
    try:
        return _SCHEMA.read(value)
    except CorruptRecord:
        return None
