"""The two most frequent events, encoded and decoded by hand: half of a write's and of a rebuild's cost was theirs.

Guarantees: byte for byte what fastavro writes for their schemas, and reads what it writes; a property test holds both
to it. Does not: handle a write with options, or another schema than today's; those go the general way.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from typing import Final

from ccs_stream.log.envelope import read_long, write_long
from ccs_stream.log.schemas import PREFIX_BYTES, log_registry
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.events import GrantIssued, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Hash, ParticipantNumber, Sequence, Version
from ccs_stream.protocol.states import GrantState

WRITE_PREFIX: Final = log_registry().current("WriteCommitted").prefix
GRANT_PREFIX: Final = log_registry().current("GrantIssued").prefix
_STATES: Final = tuple(GrantState)
_STATE_BYTES: Final = {state: bytes((code << 1,)) for code, state in enumerate(_STATES)}
_NULL: Final = b"\x00"
_PRESENT: Final = 2
"""First byte of an optional value that is there: branch 1 of its union, zigzag."""
_TEXTS: Final[dict[str, bytes]] = {}
"""Encoded content types and encodings: a handful in any log."""
_TEXTS_MAX: Final = 256
_ID: Final = 16
_HASH: Final = 32


def _text(text: str) -> bytes:
    known = _TEXTS.get(text)
    if known is None:
        raw = text.encode()
        known = write_long(len(raw)) + raw
        if len(_TEXTS) < _TEXTS_MAX:
            _TEXTS[text] = known
    return known


def _absent(data: bytes, at: int) -> int:
    """Behind an optional value that is not there. Raises `CorruptRecord` for a branch that its union does not have."""
    if data[at]:
        raise CorruptRecord("an optional value is neither there nor absent")
    return at + 1


def encode_write(event: WriteCommitted) -> bytes:
    """A write without options."""
    base, index, locator = event.base_version, event.content_index, event.content_locator
    return b"".join(
        (
            WRITE_PREFIX,
            event.artifact,
            write_long(event.participant),
            write_long(event.version),
            _NULL if base is None else b"\x02" + write_long(base),
            write_long(event.previous_sequence),
            _text(event.content_type),
            _text(event.content_encoding),
            event.content_hash,
            write_long(event.content_size),
            _NULL if index is None else b"\x02" + write_long(index),
            _NULL if locator is None else b"".join((b"\x02", write_long(len(locator)), locator)),
            _NULL,
        )
    )


def decode_write(data: bytes) -> WriteCommitted | None:
    """A write; None when it has options, which the general codec reads. Raises `CorruptRecord`."""
    try:
        at = PREFIX_BYTES + _ID
        artifact = data[PREFIX_BYTES:at]
        participant, at = read_long(data, at)
        version, at = read_long(data, at)
        base: int | None = None
        if data[at] == _PRESENT:
            base, at = read_long(data, at + 1)
        else:
            at = _absent(data, at)
        previous, at = read_long(data, at)
        length, at = read_long(data, at)
        content_type = data[at : at + length].decode()
        length, at = read_long(data, at + length)
        content_encoding = data[at : at + length].decode()
        at += length
        content_hash = data[at : at + _HASH]
        size, at = read_long(data, at + _HASH)
        index: int | None = None
        if data[at] == _PRESENT:
            index, at = read_long(data, at + 1)
        else:
            at = _absent(data, at)
        locator: bytes | None = None
        if data[at] == _PRESENT:
            length, at = read_long(data, at + 1)
            locator = data[at : at + length]
            at += length
        else:
            at = _absent(data, at)
        if data[at] == _PRESENT:
            return None
        at = _absent(data, at)
    except (IndexError, UnicodeDecodeError) as error:
        raise CorruptRecord("a write is cut short or garbled") from error
    if at != len(data):
        raise CorruptRecord("bytes follow the end of a write")
    return WriteCommitted(
        artifact=ArtifactId(artifact),
        participant=ParticipantNumber(participant),
        version=Version(version),
        base_version=None if base is None else Version(base),
        previous_sequence=Sequence(previous),
        content_type=content_type,
        content_encoding=content_encoding,
        content_hash=Hash(content_hash),
        content_size=size,
        content_index=index,
        content_locator=locator,
    )


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
    try:
        at = PREFIX_BYTES + _ID
        artifact = data[PREFIX_BYTES:at]
        participant, at = read_long(data, at)
        version, at = read_long(data, at)
        state = _STATES[data[at] >> 1] if data[at] % 2 == 0 else None
    except IndexError as error:
        raise CorruptRecord("a grant is cut short or garbled") from error
    if at + 1 != len(data) or state is None:
        raise CorruptRecord("a grant ends where it should not, or grants no state there is")
    return GrantIssued(
        artifact=ArtifactId(artifact),
        participant=ParticipantNumber(participant),
        version=Version(version),
        to_state=state,
    )
