"""The most frequent command, a commit of one body, encoded and decoded by hand: it crosses every remote write.

Guarantees: byte for byte what fastavro writes for the schemas of commands, and reads what it writes; a property test
holds both to it. Does not: handle other commands, several changes, index fields, or anything irregular; the general
codec does.

Source: Apache Avro 1.12 specification, "Binary encoding".
"""

from typing import Any, Final

from ccs_stream.log.avro import (
    NULL,
    PRESENT,
    absent,
    read_items,
    read_long,
    read_parts,
    write_long,
    write_parts,
    write_text,
)
from ccs_stream.log.express import read_optional, read_optional_text, read_text, write_optional, write_texts
from ccs_stream.log.schemas import PREFIX_BYTES, registry
from ccs_stream.protocol.commands import CommandKind, Commit, Content, Write, WriteMode
from ccs_stream.protocol.errors import CorruptRecord

ENVELOPE_PREFIX: Final = registry("commands").current("SubmittedCommand").prefix
COMMIT: Final = registry("commands").by_prefix[bytes.fromhex("c3014190d52a2fe79650")]
"""The schema of a commit of writes that carry no trace; a coordinator of a release before traces reads it still."""
_COMMIT_PREFIX: Final = COMMIT.prefix
_TRACED_PREFIX: Final = registry("commands").current("Commit").prefix
_MODES: Final = tuple(WriteMode)
_MODE_BYTES: Final = {mode: bytes((code << 1,)) for code, mode in enumerate(_MODES)}
_COMMIT: Final = tuple(CommandKind).index(CommandKind.COMMIT) << 1
"""The symbol "commit" of the envelope's kinds, zigzag."""
_ONE_WRITE: Final = b"\x02\x00"
"""An array's block of one change, which is branch 0 of its union: a write."""
_ID: Final = 16
_HASH: Final = 32


def encode_commit(workspace: str, command: Commit) -> bytes | None:
    """A commit of one body in its envelope; None when it has what the general way writes."""
    (change, *more) = command.changes
    if more or type(change) is not Write or change.index_fields is not None or command.number < 0:
        return None
    content = change.content
    locator, body, trace_parent = content.locator, content.body, change.trace_parent
    record = b"".join(
        (
            _COMMIT_PREFIX if trace_parent is None else _TRACED_PREFIX,
            write_text(command.agent),
            _ONE_WRITE,
            change.artifact,
            write_texts(change.scope),
            write_text(change.key),
            write_text(content.content_type),
            write_text(content.content_encoding),
            content.content_hash,
            write_long(content.size),
            NULL if body is None else b"\x02\x00",  # the first of the command's contents
            NULL if locator is None else b"".join((b"\x02", write_long(len(locator)), locator)),
            write_optional(content.uploaded_at),
            _MODE_BYTES[change.mode],
            write_optional(change.base_version),
            write_optional(change.fence),
            write_optional(change.ttl_us),
            NULL,
            NULL if change.reason is None else b"\x02" + write_text(change.reason),
            b"" if trace_parent is None else b"\x02" + write_text(trace_parent),
            NULL,
        )
    )
    return b"".join(
        (
            ENVELOPE_PREFIX,
            write_text(workspace),
            command.session_id,
            write_long(command.number),
            bytes((_COMMIT,)),
            write_long(len(record)),
            record,
            NULL if body is None else write_parts((body,)),
        )
    )


def decode_commit(data: bytes) -> tuple[str, Commit] | None:
    """Workspace and commit; None when it is what the general codec reads, or says what is wrong with."""
    try:
        return _decode(data)
    except (CorruptRecord, IndexError, UnicodeDecodeError):
        return None


def _decode(data: bytes) -> tuple[str, Commit] | None:
    raw: Any = data  # slices take their type where they are assigned
    workspace, at = read_text(data, PREFIX_BYTES)
    session_id = raw[at : at + _ID]
    number, at = read_long(data, at + _ID)
    if data[at] != _COMMIT:
        return None
    length, at = read_long(data, at + 1)
    end = at + length
    traced = data.startswith(_TRACED_PREFIX, at)
    if not traced and not data.startswith(_COMMIT_PREFIX, at):
        return None
    agent, at = read_text(data, at + PREFIX_BYTES)
    if not data.startswith(_ONE_WRITE, at):
        return None
    at += len(_ONE_WRITE)
    artifact = raw[at : at + _ID]
    scope, at = read_items(data, at + _ID, read_text)
    key, at = read_text(data, at)
    content_type, at = read_text(data, at)
    content_encoding, at = read_text(data, at)
    content_hash = raw[at : at + _HASH]
    size, at = read_long(data, at + _HASH)
    index, at = read_optional(data, at)
    locator: bytes | None = None
    if data[at] == PRESENT:
        length, at = read_long(data, at + 1)
        if length < 0:
            raise CorruptRecord("a commit has a locator of negative length")
        locator = data[at : at + length]
        at += length
    else:
        at = absent(data, at)
    uploaded_at, at = read_optional(data, at)
    if (mode := data[at]) > (len(_MODES) - 1) << 1 or mode & 1:
        raise CorruptRecord("a commit has a mode that there is not")
    base_version, at = read_optional(data, at + 1)
    fence, at = read_optional(data, at)
    ttl_us, at = read_optional(data, at)
    if data[at] == PRESENT:
        return None
    at = absent(data, at)
    reason, at = read_optional_text(data, at)
    trace_parent: str | None = None
    if traced:
        trace_parent, at = read_optional_text(data, at)
    if data[at]:
        return None
    if at + 1 != end:
        return None
    contents, at = read_parts(data, end)
    body = None if index is None else contents[index]
    if at != len(data):
        return None
    content = Content(
        content_type=content_type,
        content_encoding=content_encoding,
        content_hash=content_hash,
        size=size,
        body=body,
        locator=locator,
        uploaded_at=uploaded_at,
    )
    change = Write(
        artifact=artifact,
        scope=tuple(scope),
        key=key,
        content=content,
        mode=_MODES[mode >> 1],
        base_version=base_version,
        fence=fence,
        ttl_us=ttl_us,
        reason=reason,
        trace_parent=trace_parent,
    )
    return workspace, Commit(session_id=session_id, number=number, agent=agent, changes=(change,))
