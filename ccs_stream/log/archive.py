"""An archive: one shard of a log in one Avro object container file, to keep, send and replay.

Guarantees: holds the original bytes of every record, the bodies the content store kept, the schemas by fingerprint, and
a footer with the end's position, chain hash and state hash, so that a cut file is noticed; written to a temporary name,
synced and renamed, so that a half-written one never bears the name. Read-only. Does not: index; it is read from the
front, which is what a replay does.

Source: Apache Avro 1.12 specification, "Object Container Files".
"""

import dataclasses
import functools
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import fastavro

from ccs_stream.log.codec import DEFAULT_CODEC
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
from ccs_stream.log.schemas import log_registry
from ccs_stream.protocol.errors import (
    Closed,
    ContentMissing,
    CorruptRecord,
    LogDiverged,
    LogMissing,
    LogReadOnly,
    NotALog,
)
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import Hash, LogId
from ccs_stream.protocol.records import DecisionRecord, LogOpened, LogTruncated

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

    Raises `OSError` where the file cannot be written; then nothing bears its name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    schemas = {schema.prefix.hex(): schema.source for schema in log_registry().by_prefix.values()}
    try:
        with temporary.open("wb") as out:
            rows = _Counted(_rows(store, shard, anchor))
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
    finally:
        temporary.unlink(missing_ok=True)
    return rows.records


class _Counted:
    """Counts the records that pass."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self.records = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            self.records += row["kind"] == "record"
            yield row


def _row(kind: str, **fields: Any) -> dict[str, Any]:
    empty = {"offset": -1, "locator": b"", "head": b"", "tail": b"", "first_sequence": 0}
    return {"kind": kind, **empty, **fields}


def _rows(store: LogStore, shard: str, anchor: Anchor) -> Iterator[dict[str, Any]]:
    for stored in store.read(shard, BEFORE_FIRST, until=anchor.offset):
        record, _ = DEFAULT_CODEC.decode_record(stored.head)
        first = 0
        if type(record) is DecisionRecord:
            first = record.first_sequence
            for locator in _locators(record):
                yield _row("content", locator=locator, head=store.get_content(locator))
        tail = stored.tail if first else b""
        yield _row("record", offset=stored.offset, head=stored.head, tail=tail, first_sequence=first)
    yield _row(
        "footer",
        offset=anchor.offset,
        head=anchor.hash,
        first_sequence=anchor.sequence,
        state_hash=anchor.state_hash,
        workspace=anchor.workspace,
        locator=anchor.log_id,
    )


def _locators(record: DecisionRecord) -> Iterator[bytes]:
    for encoded in record.events:
        event = DEFAULT_CODEC.decode_event(encoded)
        if type(event) is WriteCommitted and event.content_locator is not None:
            yield event.content_locator


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ArchiveLog:
    """The reading half of `ccs_stream.log.port.LogStore`, from an archive."""

    serialises_writers = True
    instantaneous = False

    def __init__(self, path: Path | str) -> None:
        """Open the file and read it once, to find its footer and where everything is.

        Raises `LogMissing`, `NotALog`, `CorruptRecord`, and `LogDiverged` for a file without its footer.
        """
        self._path = Path(path)
        self._closed = False
        if not self._path.is_file():
            raise LogMissing(f"there is no archive {self._path}: check the path")
        self._blocks: list[tuple[int, int]] = []
        """By block of the container: first offset in it, and how many rows precede it."""
        self._first_sequences: list[int] = []
        self._contents: dict[bytes, int] = {}
        self._first_rows: list[int] = []
        anchor = self._scan()
        if anchor is None:
            raise LogDiverged(
                f"{self._path} has no footer: its end was cut off; export the log again, or restore the file"
            )
        self.anchor: Anchor = anchor
        """The footer: where the log ended."""

    @property
    def log_id(self) -> LogId:
        return self.anchor.log_id

    @property
    def display_url(self) -> str:
        return f"file:{self._path}"

    def workspaces(self) -> list[str]:
        return [self.anchor.workspace]

    def turn(self, shard: str) -> AbstractContextManager[None]:
        self._refuse(shard)

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        del drafts, expected
        self._refuse(shard)

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        self._check()
        if shard != self.anchor.workspace:
            return
        for row in self._rows_from(after + 1):
            if row["kind"] != "record" or row["offset"] <= after:
                continue
            if until is not None and row["offset"] > until:
                return
            yield StoredRecord(row["offset"], row["head"], tail=row["tail"] if bodies else b"")

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        if shard != self.anchor.workspace or not 0 < sequence <= self.anchor.sequence:
            return None
        block = max(bisect_right(self._first_sequences, sequence) - 1, 0)
        before: StoredRecord | None = None
        for row in self._rows_of(range(block, len(self._blocks))):
            if row["kind"] != "record":
                continue
            if row["first_sequence"] > sequence:
                break
            if row["first_sequence"]:
                before = StoredRecord(row["offset"], row["head"], tail=row["tail"])
        return before

    def end(self, shard: str) -> int:
        return self.anchor.offset if shard == self.anchor.workspace else BEFORE_FIRST

    def change_mark(self, shard: str) -> int:
        del shard
        return 0

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        del timeout_s  # nothing will ever come
        return self.end(shard) > after

    def put_content(self, body: bytes) -> bytes:
        del body
        self._refuse("")

    def get_content(self, locator: bytes) -> bytes:
        block = self._contents.get(locator)
        if block is not None:
            for row in self._rows_of(range(block, block + 1)):
                if row["kind"] == "content" and row["locator"] == locator:
                    return bytes(row["head"])
        raise ContentMissing(f"no body at locator {locator!r} in {self.display_url}")

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        del snapshot
        self._refuse(shard)

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        del shard
        return iter(())

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        del deliveries
        self._refuse(shard)

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        del shard
        return iter(())

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")

    def _refuse(self, shard: str) -> NoReturn:
        del shard
        raise LogReadOnly(f"{self.display_url} is an archive, which nobody appends to")

    def _scan(self) -> Anchor | None:
        anchor: Anchor | None = None
        first = True
        with self._path.open("rb") as source:
            for number, block in enumerate(self._container(source)):
                offsets = sequences = None
                for row in self._decoded(block):
                    if row["kind"] == "footer":
                        anchor = _anchor(row)
                    elif row["kind"] == "content":
                        self._contents[row["locator"]] = number
                    else:
                        if first:
                            self._check_head(row["head"])
                            first = False
                        offsets = row["offset"] if offsets is None else offsets
                        sequences = row["first_sequence"] if sequences is None else sequences
                last_offset = self._blocks[-1][0] if self._blocks else 0
                last_sequence = self._first_sequences[-1] if self._first_sequences else 0
                self._blocks.append((last_offset if offsets is None else offsets, block.offset))
                self._first_sequences.append(last_sequence if sequences is None else sequences)
        return anchor

    def _check_head(self, head: bytes) -> None:
        record, _ = DEFAULT_CODEC.decode_record(head)
        if type(record) not in (LogOpened, LogTruncated):
            raise LogDiverged(f"{self._path} does not begin with the record that opens a log: export it again")

    def _rows_from(self, offset: int) -> Iterator[dict[str, Any]]:
        block = max(bisect_right(self._blocks, (offset, 1 << 62)) - 1, 0)
        return self._rows_of(range(block, len(self._blocks)))

    def _rows_of(self, blocks: range) -> Iterator[dict[str, Any]]:
        if not blocks or blocks.start >= len(self._blocks):
            return
        with self._path.open("rb") as source:
            for number, block in enumerate(self._container(source)):
                if number < blocks.start:
                    continue
                if number >= blocks.stop:
                    return
                yield from self._decoded(block)

    def _container(self, source: BinaryIO) -> Iterator[Any]:
        try:
            yield from fastavro.block_reader(source)
        except (ValueError, EOFError, KeyError) as error:
            if not self._blocks:
                raise NotALog(
                    f"{self._path} is not an Avro container of ours ({error}): choose another file"
                ) from error
            raise CorruptRecord(f"{self._path} is damaged or cut short: {error}; export the log again") from error

    def _decoded(self, block: Any) -> Iterator[dict[str, Any]]:
        try:
            for row in block:
                if "kind" not in row or "first_sequence" not in row:
                    raise NotALog(f"{self._path} is an Avro file of something else: choose another file")
                yield row
        except (ValueError, EOFError, IndexError) as error:
            raise CorruptRecord(f"{self._path} is damaged: {error}; export the log again") from error


def _anchor(row: dict[str, Any]) -> Anchor:
    return Anchor(
        workspace=row["workspace"],
        log_id=LogId(row["locator"]),
        offset=row["offset"],
        sequence=row["first_sequence"],
        hash=Hash(row["head"]),
        state_hash=row["state_hash"],
    )
