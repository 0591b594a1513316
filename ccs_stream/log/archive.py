"""An archive: one shard of a log in one Avro object container file, to keep, send and replay.

`ccs-replay` and `open_log("file:...")` read it; `archive_writer` writes it.

Guarantees: holds the original bytes of every record, the bodies of the content store, the schemas by fingerprint, and a
footer with the end's position, chain hash and state hash, so that a cut file is noticed. Read-only. It reads as its log
did: in a log with leaders, void records are normal. Does not: index; it is read from the front, as a replay does.

One workspace is archived. Where its shard holds others, the heads of their records are in the archive too, because
admission needs them to tell which records of this workspace are facts. Their bodies are not.

Source: Apache Avro 1.12 specification, "Object Container Files".
"""

import dataclasses
import functools
import json
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import fastavro

from ccs_stream.log.avro_container import ContainerReader
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.port import (
    BEFORE_FIRST,
    Appended,
    Conflict,
    Draft,
    SnapshotBlob,
    StoredRecord,
    Unknown,
)
from ccs_stream.protocol.errors import (
    Closed,
    ContentMissing,
    CorruptRecord,
    LogDiverged,
    LogMissing,
    LogReadOnly,
    NotALog,
)
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import Hash, LogId, Micros
from ccs_stream.protocol.records import LogOpened, LogTruncated


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The end of a log when it was archived. Every later copy of the log must still contain it."""

    workspace: str
    log_id: LogId
    offset: int
    sequence: int
    hash: Hash
    state_hash: str


@functools.cache
def archive_schema() -> Any:
    """The Avro schema of the rows of an archive, parsed."""
    source = (resources.files("ccs_stream.schemas") / "archive" / "ArchivedRecord.avsc").read_text("utf-8")
    return fastavro.parse_schema(json.loads(source), named_schemas={})


def diverged_from_anchor(url: str) -> LogDiverged:
    """The error for a log, or an archive, that does not end where its anchor says."""
    return LogDiverged(f"{url} does not end as its anchor says: it was cut or altered, or is of another log")


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
            raise diverged_from_anchor(str(self._path))

    @property
    def log_id(self) -> LogId:
        return self.anchor.log_id

    @property
    def display_url(self) -> str:
        return f"file:{self._path}"

    def expected_time(self) -> Micros | None:
        return None

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

    def abandon_turn(self, shard: str) -> None:
        del shard  # there are no turns

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

    def find_each(self, shard: str, sequences: Sequence[int]) -> Iterator[StoredRecord | None]:
        return (self.find(shard, sequence) for sequence in sequences)

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        del workspace, first_sequence, offset, events  # `find` looks it up

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

    def drop_content(self, locator: bytes) -> None:
        del locator
        self._refuse("")

    def collect_uploads(self, now: Micros, *, records_max: int | None = None) -> int:
        del now, records_max
        return 0

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
        raise LogReadOnly(f"{self.display_url} is an archive, and archives are read-only")

    def _scan(self) -> dict[str, Any] | None:
        """Read everything once, to find where things are; returns the footer, or None if it is not the last row."""
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
            raise diverged_from_anchor(str(self._path))
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
        """Each block from `start` on (None: from the first one): its offset in the file, and its rows."""
        try:
            source = self._path.open("rb")
        except OSError as error:
            raise LogMissing(f"{self._path} cannot be read: {error}") from error
        with source:
            container = self._opened(source)
            if start is not None:
                source.seek(start)
            try:
                yield from container.blocks()
            except CorruptRecord as error:
                raise CorruptRecord(
                    f"{self._path} is damaged or cut short: {error}: export the log again, or restore it"
                ) from error

    def _opened(self, source: BinaryIO) -> ContainerReader:
        try:
            container = ContainerReader(source, archive_schema())
        except Exception as error:  # whatever garbage leads to: EOFError, UnicodeDecodeError, ...
            raise NotALog(f"{self._path} is not an Avro container ({error}): choose another file") from error
        if container.name != archive_schema()["name"]:
            raise NotALog(f"{self._path} is an Avro file of something else ({container.name}): choose another file")
        return container

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
