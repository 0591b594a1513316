"""Writing an archive (`archive`): all records of one workspace's shard, in one Avro object container file.

`ccs-replay export` uses it.

Guarantees: the file is written under a temporary name, synced and renamed, so that a half-written one never bears the
name; the bodies in the content store are in it, beside the original bytes of every record. Does not: fold; the caller
has folded the log, and passes where it ends.
"""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fastavro

from ccs_stream.log.archive import Anchor, archive_schema, diverged_from_anchor
from ccs_stream.log.avro_container import ROW_BYTES_MAX
from ccs_stream.log.port import BEFORE_FIRST, LogStore
from ccs_stream.log.private_files import open_private
from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.log.schemas import log_registry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import ContentMissing, LogFull, LogReadOnly
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)
_SYNC_BYTES: Final = 256 * 1024
"""Bytes of a container block: large enough to compress, small enough to hold."""
_SCHEMAS_KEY: Final = "ccs.schemas"


def write_archive(store: LogStore, shard: str, path: Path, *, anchor: Anchor) -> int:
    """Write all records of `shard` to `path`, ending with `anchor`; returns how many. The caller has folded them.

    Raises `LogFull`, `LogReadOnly` where the file cannot be written, and `LogDiverged` where the log does not end with
    `anchor`; then nothing bears its name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    schemas = {schema.prefix.hex(): schema.source for schema in log_registry().by_prefix.values()}
    rows = _Rows(store, shard, anchor)
    try:
        with open_private(temporary, "wb") as out:
            fastavro.writer(
                out,
                archive_schema(),
                rows,
                codec="deflate",
                metadata={_SCHEMAS_KEY: json.dumps(schemas)},
                sync_interval=_SYNC_BYTES,
            )
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LogFull(f"{path}: no space is left; no archive was written: free some space and try again") from error
        raise LogReadOnly(
            f"{path} cannot be written ({error}): check that its folder exists and may be written"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return rows.records


class _Rows:
    """The rows of an archive; `records` counts those that are records of the log."""

    def __init__(self, store: LogStore, shard: str, anchor: Anchor) -> None:
        self._store = store
        self._shard = shard
        self._anchor = anchor
        self.records = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        anchor, reader = self._anchor, ShardReader(self._store, self._shard, tolerant=True)
        for stored in self._store.read(self._shard, BEFORE_FIRST, until=anchor.offset):
            entry = reader.judge(stored)
            first, tail = 0, b""
            if entry is not None and type(entry.record) is DecisionRecord and entry.record.workspace == self._shard:
                tail = stored.tail
                if entry.verdict is Verdict.ADMITTED:
                    first = entry.record.first_sequence
                    yield from self._bodies(entry)
            self.records += 1
            yield _row("record", offset=stored.offset, head=stored.head, tail=tail, first_sequence=first)
        end = reader.position(self._shard)
        if (end.offset, end.sequence) != (anchor.offset, anchor.sequence) or (end.sequence and end.hash != anchor.hash):
            raise diverged_from_anchor(self._store.display_url)
        yield _row(
            "footer",
            offset=anchor.offset,
            head=anchor.hash,
            first_sequence=anchor.sequence,
            state_hash=anchor.state_hash,
            workspace=anchor.workspace,
            locator=anchor.log_id,
            serialises_writers=self._store.serialises_writers,
        )

    def _bodies(self, entry: LogEntry) -> Iterator[dict[str, Any]]:
        for event in entry.events:
            if type(event) is not WriteCommitted or event.content_locator is None:
                continue
            try:
                body = self._store.get_content(event.content_locator)
            except ContentMissing as error:
                # As in the log, so in the archive: what was redacted stays so, and the chain still verifies.
                LOG.warning("the archive is without a body: %s", error)
                continue
            if len(body) > ROW_BYTES_MAX - _SYNC_BYTES:
                LOG.warning("the archive is without a body of %s bytes, more than its readers take", len(body))
                continue
            yield _row("content", locator=event.content_locator, head=body)


def _row(kind: str, **fields: Any) -> dict[str, Any]:
    empty = {"offset": -1, "locator": b"", "head": b"", "tail": b"", "first_sequence": 0}
    return {"kind": kind, **empty, **fields}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
