"""The log in one SQLite file, shared by every process on the machine, with no daemon.

It is the default store of `sqlite:///` URLs and of the demo.

Guarantees: an append is durable when its turn ends (WAL with `synchronous=FULL`: one fsync for all that share the
turn); processes take turns through SQLite's write lock; after a kill at any moment the file holds whole turns and
nothing else. Does not: work on a network file system (SQLite's locks do not), or survive a power loss with
`synchronous=normal`, which may lose the last turns, whole ones, and never one before them.

How: three connections. One writes, and is busy for as long as a turn's fsync takes (`sqlite_writer`). One reads what
commits need, and never waits for it (`sqlite_reader`). The third, opened when it is first needed, looks back: bodies,
histories and searches, so that no commit waits for them. Bodies, snapshots and deliveries have tables of their own
(`sqlite_side_tables`).

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_data_version.
"""

import contextlib
import math
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from ccs_stream.background import ForkGuard
from ccs_stream.clock import since_boot
from ccs_stream.log import sqlite_schema
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import encode_tail
from ccs_stream.log.port import (
    BEFORE_FIRST,
    LOG_FORMAT,
    Appended,
    Conflict,
    Draft,
    SnapshotBlob,
    StoredRecord,
    Unknown,
    count_records,
    scan_shards,
)
from ccs_stream.log.private_files import PRIVATE_MODE, create_private
from ccs_stream.log.sqlite_file import FileIdentity, connect, connect_to_read, refuse_foreign, translated
from ccs_stream.log.sqlite_reader import SqliteReader
from ccs_stream.log.sqlite_side_tables import SqliteSideTables
from ccs_stream.log.sqlite_uploads import UploadCollector
from ccs_stream.log.sqlite_writer import SqliteTurn, SqliteWriter
from ccs_stream.protocol.errors import (
    Closed,
    LogMissing,
    LogReadOnly,
    MissingHead,
    OutcomeUnknown,
    UsageError,
)
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import LogId, Micros
from ccs_stream.protocol.limits import check_whole_number, shown
from ccs_stream.protocol.records import DecisionRecord, LogOpened

BUSY_TIMEOUT_S: Final = 30.0
"""How long to wait for another process's turn: many times the longest turn, which is a checkpoint's fsync."""
BUSY_TIMEOUT_MAX_S: Final = 86_400.0
"""SQLite counts milliseconds in 32 bits, and no turn lasts for a day."""
_POLL_S: Final = 0.005
"""How often `wait` looks whether another process has appended; a look costs some three microseconds."""
_FOUND_AT_ONCE: Final = 1_000
"""Sequences that are looked for at once."""
_BITS: Final = sqlite_schema.SHARD_BITS
_LAST_KEY: Final = "SELECT max(key) FROM records WHERE key >= ? AND key < ?"


class SqliteLog:
    """See the module's docstring; the port is `ccs_stream.log.port.LogStore`."""

    serialises_writers = True
    finds_by_sequence = True
    default_freshness = "latest"
    named_workspace = None
    instantaneous = False

    def __init__(
        self,
        path: Path | str,
        *,
        synchronous: str = "full",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        read_only: bool = False,
        create: bool = True,
        file_mode: int = PRIVATE_MODE,
    ) -> None:
        """Open the file, creating it where `create` allows, for its owner only unless `file_mode` says otherwise.

        With `read_only` the file is not changed, and on a read-only file system it is read as it stands at this moment.
        Raises `UsageError`, `LogMissing`, `NotALog`, `NewerFormat`, `LogReadOnly`, `LogBusy`, `LogFull`.
        """
        if synchronous not in ("full", "normal"):
            raise UsageError(f"synchronous is 'full' (durable, the default) or 'normal', got {shown(synchronous)}")
        if not 0 <= busy_timeout_s <= BUSY_TIMEOUT_MAX_S:
            raise UsageError(f"busy_timeout_s is between 0 and {BUSY_TIMEOUT_MAX_S:.0f}, got {shown(busy_timeout_s)}")
        check_whole_number(file_mode, "file_mode", least=PRIVATE_MODE, most=0o666)
        self._path = Path(path)
        self._guard = ForkGuard(f"the log {self._path}")
        self._closed = False
        self._shards: dict[str, int] = {}
        """Numbers of the shards met so far; a shard never changes its number."""
        self._turns: dict[str, SqliteTurn] = {}
        self._writer: SqliteWriter | None = None
        if not self._path.exists() and (read_only or not create):
            raise LogMissing(f"there is no file {self._path}: check the path")
        refuse_foreign(self._path)
        with contextlib.ExitStack() as undo:
            try:
                if read_only:
                    connection = connect_to_read(self._path, busy_timeout_s=busy_timeout_s)
                    undo.callback(connection.close)
                    sqlite_schema.check(connection, str(self._path))
                else:
                    create_private(self._path, file_mode)
                    self._writer = SqliteWriter(
                        self._path,
                        self.display_url,
                        self._check,
                        synchronous=synchronous,
                        busy_timeout_s=busy_timeout_s,
                    )
                    undo.callback(self._writer.close)
                    self._writer.open(uuid.uuid4().bytes)
                    connection = connect(self._path, "rw", busy_timeout_s=busy_timeout_s)
                    undo.callback(connection.close)
                self._file = FileIdentity(self._path, self.display_url)
                if self._writer is not None:
                    self._writer.file = self._file
                self._log_id = LogId(sqlite_schema.log_id(connection, str(self._path)))
            except sqlite3.Error as error:
                raise translated(error, self.display_url) from error
            except OSError as error:
                raise LogMissing(f"{self._path} was removed while it was opened: {error}") from error
            undo.pop_all()
        self._busy_timeout_s = busy_timeout_s
        self._reader = SqliteReader(connection, self.display_url, self._check)
        self._opening = threading.Lock()
        self._lookups_opened: SqliteReader | None = None if self._writer is not None else self._reader
        self._side_tables = SqliteSideTables(lambda: self._lookups, self._for_writing, self.display_url)
        self._uploads = UploadCollector(lambda: self._lookups, self._side_tables.in_turn, self._heads)

    @property
    def log_id(self) -> LogId:
        return self._log_id

    @property
    def display_url(self) -> str:
        return f"sqlite:///{self._path}"

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    # Turns.

    def turn(self, shard: str) -> SqliteTurn:
        turn = self._turns.get(shard)
        if turn is None:
            turn = self._turns[shard] = SqliteTurn(self._for_writing(), shard, self._shards, self._open_shard)
        return turn

    def _open_shard(self, shard: str) -> None:
        """Look a shard up, or open one that does not exist. The caller has the turn, before and after."""
        writer = self._for_writing()
        while True:
            cursor = writer.in_turn()
            row = cursor.execute("SELECT id FROM shards WHERE name = ?", (shard,)).fetchone()
            if row is not None:
                self._shards[shard] = int(row[0])
                return
            number = cursor.execute("INSERT INTO shards (name) VALUES (?)", (shard,)).lastrowid or 0
            opened = LogOpened(
                log_id=self._log_id,
                shards=0,
                partitioner="workspace",
                format=LOG_FORMAT,
                opened_at=Micros(time.time_ns() // 1_000),
            )
            head = DEFAULT_CODEC.encode_record(opened)
            cursor.execute("INSERT INTO records VALUES (?, 0, ?, NULL)", (number << _BITS, head))
            # Readers must find the first record, before anything is decided on it.
            writer.end(commit=True)
            writer.begin()

    # Records.

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        writer = self._for_writing()
        if not writer.mine:
            try:
                with self.turn(shard):
                    return self.append(shard, drafts, expected)
            except OutcomeUnknown as error:
                return Unknown(str(error))
        cursor = writer.in_turn()
        base = self._base(shard)
        try:
            last = cursor.execute(_LAST_KEY, (base, base + (1 << _BITS))).fetchone()[0]
            end = BEFORE_FIRST if last is None else last - base
            if end != expected:
                return Conflict(end)
            rows = [
                (
                    base + end + 1 + number,
                    draft.first_sequence,
                    draft.head,
                    encode_tail(draft.contents) if draft.decision else None,
                )
                for number, draft in enumerate(drafts)
            ]
            cursor.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            writer.fail(error)
        return Appended(end + len(drafts))

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        number = self._known_shard(shard)
        if number is None:
            return
        base = number << _BITS
        last = base + ((1 << _BITS) - 1 if until is None else until)
        at, bounded = base + after, until is not None
        reader = self._reader if self._writer is not None and self._writer.mine else self._lookups
        while True:
            rows, more = reader.page(at, last, bodies=bodies)
            if more and not bounded:
                # What others append while the consumer is busy is not followed.
                last, bounded = base + reader.end(base), True
            for key, head, tail in rows:
                yield StoredRecord(key - base, head, tail=tail or b"")
            if not more:
                return
            at = rows[-1][0]

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        number = self._known_shard(shard)
        if number is None or sequence < 1:
            return None
        base = number << _BITS
        offset = self._lookups.offset_of(base, sequence)
        rows = self._lookups.query("SELECT head, tail FROM records WHERE key = ?", (base + offset,))
        if not rows or offset < 1:
            return None
        stored = StoredRecord(offset, rows[0][0], tail=rows[0][1] or b"")
        record, _ = DEFAULT_CODEC.decode_record(stored.head)
        if type(record) is not DecisionRecord:
            return None
        last = record.first_sequence + len(record.events) - 1
        return stored if record.first_sequence <= sequence <= last else None

    def find_each(self, shard: str, sequences: Sequence[int]) -> Iterator[StoredRecord | None]:
        number = self._known_shard(shard)
        if number is None:
            yield from (None for _ in sequences)
            return
        base = number << _BITS
        for at in range(0, len(sequences), _FOUND_AT_ONCE):
            some = sequences[at : at + _FOUND_AT_ONCE]
            found = list(self._lookups.keys_of(base, some))
            stored: StoredRecord | None = None
            rows = self._lookups.rows_of(sorted({key for key, _ in found}))
            for sequence, (key, followed) in zip(some, found, strict=True):
                while stored is None or stored.offset < key - base:
                    row = next(rows, None)
                    if row is None:
                        break
                    stored = StoredRecord(row[0] - base, row[1], tail=row[2] or b"")
                if stored is None or stored.offset != key - base or sequence < 1:
                    yield None
                else:
                    yield stored if followed else self.find(shard, sequence)

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        del workspace, first_sequence, offset, events  # `find` looks it up

    def end(self, shard: str) -> int:
        number = self._known_shard(shard)
        return BEFORE_FIRST if number is None else self._reader.end(number << _BITS)

    def change_mark(self, shard: str) -> int:
        # SQLite's own mark. One file, one mark: a turn in any workspace moves it, and a turn of this process as well.
        del shard
        if self._closed or self._guard.forked:
            self._check()
        if time.monotonic() >= self._file.next_look:
            self._file.check_all()
        reader = self._reader
        try:
            with reader.lock:
                return reader.cursor.execute("PRAGMA data_version").fetchone()[0]  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            reader.fail(error)

    def wait(self, shard: str, after: int, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        mark: int | None = None
        while True:
            now = self.change_mark(shard)
            if now != mark and self.end(shard) > after:
                return True
            mark = now
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _POLL_S))

    def expected_time(self) -> Micros | None:
        offset = None if self._writer is None else self._writer.clock_offset_us
        return None if offset is None else Micros(math.floor(since_boot() * 1_000_000) + offset)

    def workspaces(self) -> list[str]:
        return sorted(name for (name,) in self._reader.query("SELECT name FROM shards"))

    def scan(self) -> Iterator[str | None]:
        return scan_shards(self)

    def record_count(self) -> int:
        return count_records(self)

    # Beside the records.

    def put_content(self, body: bytes) -> bytes:
        return self._side_tables.put_content(body)

    def collect_uploads(self, now: Micros, *, records_max: int | None = None) -> int:
        return 0 if self._writer is None else self._uploads.collect(now, records_max)

    def drop_content(self, locator: bytes) -> None:
        self._side_tables.drop_content(locator)

    def get_content(self, locator: bytes) -> bytes:
        return self._side_tables.get_content(locator)

    def abandon_turn(self, shard: str) -> None:
        del shard  # one writer, one turn
        if self._writer is not None:
            self._writer.abandon()

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        with self._any_turn(shard):
            self._side_tables.save_snapshot(self._base(shard) >> _BITS, snapshot)

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        return self._side_tables.snapshots(self._known_shard(shard))

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        with self._any_turn(shard):
            self._side_tables.append_deliveries(self._base(shard) >> _BITS, deliveries)

    def deliveries_end(self, shard: str) -> int | None:
        return self._side_tables.deliveries_end(self._known_shard(shard))

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        return self._side_tables.read_deliveries(self._known_shard(shard))

    def close(self) -> None:
        if self._closed:
            return
        if self._writer is not None and self._writer.mine:
            raise UsageError(f"{self.display_url}: leave the turn before you close the log")
        self._closed = True
        if self._guard.forked:
            return  # the parent's handles: closing them here would drop the parent's locks
        self._reader.close()
        with self._opening:
            if self._lookups_opened is not None:
                self._lookups_opened.close()
        if self._writer is not None:
            self._writer.close()

    # Within.

    @property
    def _lookups(self) -> SqliteReader:
        """The connection that looks back."""
        opened = self._lookups_opened
        if opened is not None:
            return opened
        with self._opening:
            self._check()
            if self._lookups_opened is None:
                try:
                    connection = connect(self._path, "rw", busy_timeout_s=self._busy_timeout_s)
                except sqlite3.Error as error:
                    raise translated(error, self.display_url) from error
                self._file.check()
                self._lookups_opened = SqliteReader(connection, self.display_url, self._check)
            return self._lookups_opened

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")
        if self._guard.forked:
            self._guard.check()
        if time.monotonic() >= self._file.next_look:
            self._file.check_all()

    def _heads(self, shard: str, after: int, until: int) -> Iterator[bytes]:
        """The heads of records behind `after`, to `until` or, below 0, to the end."""
        return (each.head for each in self.read(shard, after, until=None if until < 0 else until, bodies=False))

    def _for_writing(self) -> SqliteWriter:
        if self._writer is None:
            raise LogReadOnly(f"{self.display_url} was opened read-only: open it for writing to append")
        return self._writer

    def _any_turn(self, shard: str) -> AbstractContextManager[None]:
        """The turn that this thread has, or a new one."""
        return contextlib.nullcontext() if self._for_writing().mine else self.turn(shard)

    def _base(self, shard: str) -> int:
        """First key of a shard, in a turn."""
        number = self._shards.get(shard)
        if number is None:
            raise UsageError(f"{self.display_url}: the turn is that of another shard than {shard!r}")
        return number << _BITS

    def _known_shard(self, shard: str) -> int | None:
        number = self._shards.get(shard)
        if number is None:
            rows = self._reader.query("SELECT id FROM shards WHERE name = ?", (shard,))
            if not rows:
                return None
            number = int(rows[0][0])
            if self._reader.end(number << _BITS) == BEFORE_FIRST:
                raise MissingHead(
                    f"{self.display_url}: workspace {shard!r} was opened once and holds no record: its head was "
                    "deleted; restore it from a copy"
                )
            self._shards[shard] = number
        return number
