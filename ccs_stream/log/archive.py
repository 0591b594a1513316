"""An archive: one shard of a log in one Avro object container file, to keep, send and replay.

Guarantees: holds the original bytes of every record, the bodies the content store kept, the schemas by fingerprint, and
a footer with the end's position, chain hash and state hash, so that a cut file is noticed; written to a temporary name,
synced and renamed, so that a half-written one never bears the name. Read-only. It reads as its log did: where claims
decide who writes, void records are ordinary. Does not: index; it is read from the front, which is what a replay does.

One workspace is archived. Where its shard holds others, the heads of their records are here too, because without them
nobody could judge which records of this one are facts. Their bodies are not.

Source: Apache Avro 1.12 specification, "Object Container Files".
"""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import fastavro

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.port import (
    BEFORE_FIRST,
    Appended,
    Conflict,
    Draft,
    LogStore,
    SnapshotBlob,
    StoredRecord,
    Unknown,
)
from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.log.schemas import log_registry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import (
    Closed,
    ContentMissing,
    CorruptRecord,
    LogDiverged,
    LogFull,
    LogMissing,
    LogReadOnly,
    NotALog,
)
from ccs_stream.protocol.events import Event, WriteCommitted
from ccs_stream.protocol.ids import Hash, LogId
from ccs_stream.protocol.records import DecisionRecord, LogOpened, LogTruncated

LOG = logging.getLogger(__name__)
_SYNC_BYTES: Final = 256 * 1024
"""Bytes of a container block: large enough to compress, small enough to hold."""
_SCHEMAS_KEY: Final = "ccs.schemas"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where a log ended when it was archived: what a later copy of it must still contain."""

    workspace: str
    log_id: LogId
    offset: int
    sequence: int
    hash: Hash
    state_hash: str


@functools.cache
def _schema() -> Any:
    source = (resources.files("ccs_stream.schemas") / "archive" / "ArchivedRecord.avsc").read_text("utf-8")
    return fastavro.parse_schema(json.loads(source), named_schemas={})


def write_archive(store: LogStore, shard: str, path: Path, *, anchor: Anchor) -> int:
    """Write all records of `shard` to `path`, ending with `anchor`; returns how many. The caller has folded them.

    Raises `LogFull`, `LogReadOnly` where the file cannot be written, and `LogDiverged` where the log does not end with
    `anchor`; then nothing bears its name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    schemas = {schema.prefix.hex(): schema.source for schema in log_registry().by_prefix.values()}
    rows = _Rows(store, shard, anchor)
    try:
        with temporary.open("wb") as out:
            fastavro.writer(
                out,
                _schema(),
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
            raise _diverged(self._store.display_url)
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
            yield _row("content", locator=event.content_locator, head=body)


def _diverged(url: str) -> LogDiverged:
    return LogDiverged(f"{url} does not end as its anchor says: it was cut or altered, or is of another log")


def _row(kind: str, **fields: Any) -> dict[str, Any]:
    empty = {"offset": -1, "locator": b"", "head": b"", "tail": b"", "first_sequence": 0}
    return {"kind": kind, **empty, **fields}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ArchiveLog:
    """The reading half of `ccs_stream.log.port.LogStore`, from an archive."""

    default_freshness = "latest"
    named_workspace = None
    instantaneous = False
    finds_by_sequence = True

    def __init__(self, path: Path | str) -> None:
        """Open the file and read it once, to find its footer and where everything is.

        Raises `LogMissing`, `NotALog`, `CorruptRecord`, and `LogDiverged` for a file without its footer.
        """
        self._path = Path(path)
        self._closed = False
        if not self._path.is_file():
            raise LogMissing(f"there is no archive {self._path}: check the path")
        self._blocks: list[int] = []
        """By block of the container: where it begins in the file."""
        self._offsets: list[int] = []
        """By block: offset of the first record in it, or after it."""
        self._decisions: list[tuple[int, int]] = []
        """For each block that has decisions of the workspace: the first one's sequence, and which block it is."""
        self._contents: dict[bytes, int] = {}
        """Which block a body is in."""
        footer = self._scan()
        if footer is None:
            raise LogDiverged(
                f"{self._path} has no footer: its end was cut off; export the log again, or restore the file"
            )
        self.serialises_writers: bool = footer["serialises_writers"] is not False
        self.anchor = anchor = self._anchor_of(footer)
        """The footer: where the log ended."""
        found = self.find(anchor.workspace, anchor.sequence)
        if anchor.sequence and (found is None or chain_hash(found.head) != anchor.hash):
            raise _diverged(str(self._path))

    @property
    def log_id(self) -> LogId:
        return self.anchor.log_id

    @property
    def display_url(self) -> str:
        return f"file:{self._path}"

    def workspaces(self) -> list[str]:
        self._check()
        return [self.anchor.workspace]

    def scan(self) -> Iterator[str | None]:
        self._check()
        for row in self._rows(0):
            if row["kind"] == "record":
                yield self.anchor.workspace if row["first_sequence"] else None

    def record_count(self) -> int:
        self._check()
        return self.anchor.offset + 1

    def turn(self, shard: str) -> AbstractContextManager[None]:
        self._refuse(shard)

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        del drafts, expected
        self._refuse(shard)

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        self._check()
        if shard != self.anchor.workspace:
            return
        for row in self._rows(max(bisect_right(self._offsets, after + 1) - 1, 0)):
            if row["kind"] != "record" or row["offset"] <= after:
                continue
            if until is not None and row["offset"] > until:
                return
            yield StoredRecord(row["offset"], row["head"], tail=row["tail"] if bodies else b"")

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        self._check()
        if shard != self.anchor.workspace or not 0 < sequence <= self.anchor.sequence:
            return None
        before: StoredRecord | None = None
        place = bisect_right(self._decisions, (sequence, len(self._blocks))) - 1
        for row in self._rows(self._decisions[place][1]) if place >= 0 else ():
            if row["kind"] != "record":
                continue
            if row["first_sequence"] > sequence:
                break
            if row["first_sequence"]:
                before = StoredRecord(row["offset"], row["head"], tail=row["tail"])
        return before

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        del workspace, first_sequence, offset, events  # found without being told

    def end(self, shard: str) -> int:
        self._check()
        return self.anchor.offset if shard == self.anchor.workspace else BEFORE_FIRST

    def change_mark(self, shard: str) -> int:
        del shard
        self._check()
        return 0

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        if self.end(shard) > after:
            return True
        time.sleep(timeout_s)  # nothing will ever come, and a loop around this must not spin
        return False

    def put_content(self, body: bytes) -> bytes:
        del body
        self._refuse("")

    def get_content(self, locator: bytes) -> bytes:
        self._check()
        block = self._contents.get(locator)
        if block is not None:
            for row in self._rows(block):
                if row["kind"] == "content" and row["locator"] == locator:
                    return bytes(row["head"])
        raise ContentMissing(f"no body at locator {locator!r} in {self.display_url}")

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        del snapshot
        self._refuse(shard)

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        del shard
        self._check()
        return iter(())

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        del deliveries
        self._refuse(shard)

    def deliveries_end(self, shard: str) -> int | None:
        del shard
        return None

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        del shard
        self._check()
        return iter(())

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")

    def _refuse(self, shard: str) -> NoReturn:
        del shard
        self._check()
        raise LogReadOnly(f"{self.display_url} is an archive, which nobody appends to")

    def _scan(self) -> dict[str, Any] | None:
        """Read everything once: where things are, and the footer, which is None unless it is the last row."""
        footer: dict[str, Any] | None = None
        offset = BEFORE_FIRST
        for block, (start, rows) in enumerate(self._container(None)):
            self._blocks.append(start)
            self._offsets.append(next((row["offset"] for row in rows if row["kind"] == "record"), offset + 1))
            first = next(
                (row["first_sequence"] for row in rows if row["kind"] == "record" and row["first_sequence"]), 0
            )
            if first:
                self._decisions.append((first, block))
            for row in rows:
                footer = row if row["kind"] == "footer" else None
                if row["kind"] == "content":
                    self._contents[row["locator"]] = block
                elif row["kind"] == "record":
                    if offset == BEFORE_FIRST:
                        self._check_head(row["head"])
                    offset = row["offset"]
        if footer is not None and footer["offset"] != offset:
            raise _diverged(str(self._path))
        return footer

    def _check_head(self, head: bytes) -> None:
        record, _ = DEFAULT_CODEC.decode_record(head)
        if type(record) not in (LogOpened, LogTruncated):
            raise LogDiverged(f"{self._path} does not begin with the record that opens a log: export it again")

    def _rows(self, block: int) -> Iterator[dict[str, Any]]:
        """Every row from a block on."""
        for _, rows in self._container(self._blocks[block]):
            yield from rows

    def _container(self, start: int | None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Each block from the one that begins at `start` on (None: the first): where it begins, and its rows."""
        try:
            source = self._path.open("rb")
        except OSError as error:
            raise LogMissing(f"{self._path} cannot be read: {error}") from error
        with source:
            blocks = self._opened(source)
            if start is not None:
                source.seek(start)
            while (block := self._next(blocks)) is not None:
                yield block

    def _opened(self, source: BinaryIO) -> Any:
        try:
            blocks = fastavro.block_reader(source, _schema())
        except Exception as error:  # fastavro raises what its C code meets: EOFError, KeyError, UnicodeDecodeError, ...
            raise NotALog(f"{self._path} is not an Avro container ({error}): choose another file") from error
        schema = blocks.writer_schema
        name = schema.get("name") if isinstance(schema, dict) else schema
        if name != _schema()["name"]:
            raise NotALog(f"{self._path} is an Avro file of something else ({name}): choose another file")
        return blocks

    def _next(self, blocks: Any) -> tuple[int, list[dict[str, Any]]] | None:
        try:
            block = next(blocks, None)
            return None if block is None else (block.offset, list(block))
        except Exception as error:  # as above, and those of zlib
            raise CorruptRecord(
                f"{self._path} is damaged or cut short ({type(error).__name__}): export the log again, or restore it"
            ) from error

    def _anchor_of(self, row: dict[str, Any]) -> Anchor:
        try:
            return Anchor(
                workspace=str(row["workspace"] or ""),
                log_id=LogId(row["locator"]),
                offset=row["offset"],
                sequence=row["first_sequence"],
                hash=Hash(row["head"]),
                state_hash=str(row["state_hash"]),
            )
        except KeyError as error:
            raise CorruptRecord(f"{self._path}: its footer is without {error}: export the log again") from error
