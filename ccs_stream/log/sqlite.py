"""The log in one SQLite file, shared by every process on the machine, with no daemon.

Guarantees: an append is durable when its turn ends (WAL with `synchronous=FULL`: one fsync for all that share the
turn); processes take turns through SQLite's write lock; after a kill at any moment the file holds whole turns and
nothing else. Does not: work on a network file system (SQLite's locks do not), or survive a power loss with
`synchronous=normal`, which may lose the last turns, whole ones, and never one before them.

Two connections: one writes, and is busy for as long as a turn's fsync takes; the other reads, and never waits for it.
Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_data_version.
"""

import contextlib
import os
import random
import sqlite3
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

from ccs_stream.log import sqlite_schema
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import (
    BEFORE_FIRST,
    LOG_FORMAT,
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
    ForkedProcess,
    LogBusy,
    LogError,
    LogFull,
    LogMissing,
    LogReadOnly,
    MissingHead,
    NotALog,
    OutcomeUnknown,
    UsageError,
)
from ccs_stream.protocol.ids import LogId, Micros
from ccs_stream.protocol.ids import Sequence as SequenceNumber
from ccs_stream.protocol.records import DecisionRecord, LogOpened

BUSY_TIMEOUT_S: Final = 30.0
"""How long to wait for another process's turn: many times the longest turn, which is a checkpoint's fsync."""
SNAPSHOTS_KEPT: Final = 3
_PAGE_RECORDS: Final = 1_000
"""Records read at once: enough to hide the query, few enough to stay in memory."""
_POLL_S: Final = 0.005
"""How often `wait` looks whether another process has appended."""
_LAST_KEY: Final = "SELECT max(key) FROM records WHERE key >= ? AND key < ?"
_RETRY_MIN_S: Final = 0.0002
_RETRY_MAX_S: Final = 0.005
"""Pauses between attempts at the write lock. SQLite's own grow to 100 ms, which starves a waiter among busy writers."""


class SqliteLog:
    """See the module's docstring; the port is `ccs_stream.log.port.LogStore`."""

    serialises_writers = True
    instantaneous = False

    def __init__(
        self,
        path: Path | str,
        *,
        synchronous: str = "full",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        read_only: bool = False,
        create: bool = True,
    ) -> None:
        """Open the file, creating it where `create` allows.

        Raises `UsageError`, `LogMissing`, `NotALog`, `NewerFormat`, `LogReadOnly`, `LogBusy`.
        """
        if synchronous not in ("full", "normal"):
            raise UsageError(f"synchronous is 'full' (durable, the default) or 'normal', got {synchronous!r}")
        if not busy_timeout_s >= 0:
            raise UsageError(f"busy_timeout_s must not be negative, got {busy_timeout_s!r}")
        self._path = Path(path)
        self._read_only = read_only
        self._synchronous = synchronous
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        self._closed = False
        self._shards: dict[str, int] = {}
        self._turns = threading.RLock()
        self._turn_of: int | None = None
        """The thread that has the turn."""
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        if not self._path.exists() and (read_only or not create):
            raise LogMissing(f"there is no file {self._path}: check the path")
        try:
            if not read_only:
                self._writer = self._open_writer()
            self._reader = self._connect("ro" if read_only else "rw")
            if read_only:
                sqlite_schema.check(self._reader, str(self._path))
            row = self._reader.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()
        except sqlite3.Error as error:
            self._raise(error)
        self._log_id = LogId(row[0])

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

    def turn(self, shard: str) -> "_Turn":
        return _Turn(self, shard)

    def begin(self, shard: str) -> None:
        """Take the turn; `_Turn` calls it."""
        self._check()
        if self._writer is None:
            raise LogReadOnly(f"{self.display_url} was opened read-only: open it for writing to append")
        self._turns.acquire()
        try:
            self._begin_immediate()
            if self._shard_id(shard) is None:
                self._create_shard(shard)
                self._writer.execute("COMMIT")
                self._begin_immediate()
            self._turn_of = threading.get_ident()
        except BaseException as error:
            self._rollback()
            self._turns.release()
            if isinstance(error, sqlite3.Error):
                self._raise(error)
            raise

    def finish(self, *, commit: bool) -> None:
        """End the turn; `_Turn` calls it."""
        try:
            if not commit:
                self._rollback()
                return
            try:
                self._connection().execute("COMMIT")
            except sqlite3.Error as error:
                self._after_failed_commit(error)
        finally:
            self._turn_of = None
            self._turns.release()

    def _after_failed_commit(self, error: sqlite3.Error) -> NoReturn:
        if self._connection().in_transaction:
            # SQLite still holds the transaction, so nothing of it is in the file.
            self._rollback()
            self._raise(error)
        with contextlib.suppress(sqlite3.Error):
            self._connection().close()
        self._writer = self._connect("rw")
        raise OutcomeUnknown(
            f"{self.display_url}: the append may or may not be in the log ({error}); ask again under the same number"
        ) from error

    def _begin_immediate(self) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        pause = _RETRY_MIN_S
        while True:
            try:
                self._connection().execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
                if time.monotonic() >= deadline:
                    raise LogBusy(
                        f"{self.display_url}: another process kept the log locked for more than "
                        f"{self._busy_timeout_s} s: look for one that is stopped inside a turn, or raise busy_timeout_s"
                    ) from error
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads the waiters, hides nothing
                pause = min(pause * 1.5, _RETRY_MAX_S)
            else:
                return

    def _rollback(self) -> None:
        if self._writer is not None and self._writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")

    # Records.

    def append(self, shard: str, drafts: Sequence[Draft], expected: int) -> Appended | Conflict | Unknown:
        if not self._turns_mine():
            try:
                with self.turn(shard):
                    return self.append(shard, drafts, expected)
            except OutcomeUnknown as error:
                return Unknown(str(error))
        base = self._base(shard)
        connection = self._connection()
        try:
            last = connection.execute(_LAST_KEY, (base, base + (1 << sqlite_schema.SHARD_BITS))).fetchone()[0]
            end = BEFORE_FIRST if last is None else last - base
            if end != expected:
                return Conflict(end)
            rows = [
                (
                    base + end + 1 + number,
                    draft.first_sequence,
                    draft.head,
                    StoredRecord(0, b"", contents=draft.contents).tail if draft.decision else None,
                )
                for number, draft in enumerate(drafts)
            ]
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._raise(error)
        return Appended(end + len(drafts))

    def read(self, shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Iterator[StoredRecord]:
        number = self._known_shard(shard)
        if number is None:
            return
        base = number << sqlite_schema.SHARD_BITS
        last = base + ((1 << sqlite_schema.SHARD_BITS) - 1 if until is None else until)
        columns = "key, head, tail" if bodies else "key, head, NULL"
        query = f"SELECT {columns} FROM records WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"  # noqa: S608
        at = base + after
        while True:
            rows = self._query(query, (at, last, _PAGE_RECORDS))
            for key, head, tail in rows:
                yield StoredRecord(key - base, head, tail=tail or b"")
            if len(rows) < _PAGE_RECORDS:
                return
            at = rows[-1][0]

    def find(self, shard: str, sequence: int) -> StoredRecord | None:
        number = self._known_shard(shard)
        if number is None:
            return None
        base = number << sqlite_schema.SHARD_BITS
        # Offsets and first sequences grow together, so the log is its own index: a search by halves costs some twenty
        # look-ups, and appending maintains nothing.
        low, high = 0, self.end(shard)
        while low < high:
            middle = (low + high + 1) // 2
            row = self._query("SELECT first_sequence FROM records WHERE key = ?", (base + middle,))
            if row and row[0][0] <= sequence:
                low = middle
            else:
                high = middle - 1
        row = self._query("SELECT head, tail FROM records WHERE key = ?", (base + low,))
        if not row or low < 1:
            return None
        stored = StoredRecord(low, row[0][0], tail=row[0][1] or b"")
        record, _ = DEFAULT_CODEC.decode_record(stored.head)
        if type(record) is not DecisionRecord:
            return None
        last = record.first_sequence + len(record.events) - 1
        return stored if record.first_sequence <= sequence <= last else None

    def end(self, shard: str) -> int:
        number = self._known_shard(shard)
        if number is None:
            return BEFORE_FIRST
        base = number << sqlite_schema.SHARD_BITS
        rows = self._query(_LAST_KEY, (base, base + (1 << sqlite_schema.SHARD_BITS)))
        return BEFORE_FIRST if rows[0][0] is None else int(rows[0][0]) - base

    def change_mark(self, shard: str) -> int:
        del shard  # one file, one mark: a turn in any workspace moves it
        if self._closed or self._pid != os.getpid():
            self._check()
        with self._reading:
            return self._reader.execute("PRAGMA data_version").fetchone()[0]  # type: ignore[no-any-return]

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

    def workspaces(self) -> list[str]:
        return sorted(name for (name,) in self._query("SELECT name FROM shards", ()))

    # Bodies, snapshots, deliveries.

    def put_content(self, body: bytes) -> bytes:
        cursor = self._write("INSERT INTO contents (body) VALUES (?)", (body,))
        return str(cursor.lastrowid).encode()

    def get_content(self, locator: bytes) -> bytes:
        rows = self._query("SELECT body FROM contents WHERE id = ?", (int(locator),)) if locator.isdigit() else []
        if not rows:
            raise ContentMissing(f"no body at locator {locator!r} in {self.display_url}: it was redacted")
        return bytes(rows[0][0])

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        with self.turn(shard):
            number = self._base(shard) >> sqlite_schema.SHARD_BITS
            connection = self._connection()
            try:
                connection.execute(
                    "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
                    (number, snapshot.snapshot_id, snapshot.sequence, snapshot.data),
                )
                connection.execute(
                    "DELETE FROM snapshots WHERE shard = ? AND id NOT IN "
                    "(SELECT id FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id LIMIT ?)",
                    (number, number, SNAPSHOTS_KEPT),
                )
            except sqlite3.Error as error:
                self._raise(error)

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        number = self._known_shard(shard)
        ids = self._query("SELECT id, sequence FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id", (number,))
        for snapshot_id, sequence in ids:
            rows = self._query("SELECT data FROM snapshots WHERE shard = ? AND id = ?", (number, snapshot_id))
            if rows:
                yield SnapshotBlob(snapshot_id=snapshot_id, sequence=SequenceNumber(sequence), data=rows[0][0])

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        with self.turn(shard):
            number = self._base(shard) >> sqlite_schema.SHARD_BITS
            try:
                self._connection().executemany(
                    "INSERT INTO deliveries (shard, data) VALUES (?, ?)", [(number, each) for each in deliveries]
                )
            except sqlite3.Error as error:
                self._raise(error)

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        number, at = self._known_shard(shard), 0
        query = "SELECT id, data FROM deliveries WHERE shard = ? AND id > ? ORDER BY id LIMIT ?"
        while rows := self._query(query, (number, at, _PAGE_RECORDS)):
            yield from (data for _, data in rows)
            at = rows[-1][0]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            return  # the parent's handles: closing them here would drop the parent's locks
        with self._turns, self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()

    # Within.

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")
        if self._pid != os.getpid():
            raise ForkedProcess(f"{self.display_url} was opened in another process: open it in this one")

    def _connection(self) -> sqlite3.Connection:
        if self._writer is None:
            raise LogReadOnly(f"{self.display_url} was opened read-only: open it for writing to append")
        return self._writer

    def _turns_mine(self) -> bool:
        return self._turn_of == threading.get_ident()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{urllib.parse.quote(str(self._path.absolute()))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0)
        connection.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        connection = self._connect("rwc")
        self._writer = connection
        if not sqlite_schema.is_new(connection):
            sqlite_schema.check(connection, str(self._path))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
        connection.execute("PRAGMA busy_timeout = 0")
        self._begin_immediate()
        try:
            if sqlite_schema.is_new(connection):
                sqlite_schema.create(connection, uuid.uuid4().bytes)
            connection.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        sqlite_schema.check(connection, str(self._path))
        return connection

    def _create_shard(self, shard: str) -> None:
        connection = self._connection()
        number = connection.execute("INSERT INTO shards (name) VALUES (?)", (shard,)).lastrowid or 0
        opened = LogOpened(
            log_id=self._log_id,
            shards=0,
            partitioner="workspace",
            format=LOG_FORMAT,
            opened_at=Micros(time.time_ns() // 1_000),
        )
        key = number << sqlite_schema.SHARD_BITS
        head = DEFAULT_CODEC.encode_record(opened)
        connection.execute("INSERT INTO records VALUES (?, 0, ?, NULL)", (key, head))

    def _shard_id(self, shard: str) -> int | None:
        """The shard's number, looked up by the writer inside a turn."""
        number = self._shards.get(shard)
        if number is None:
            row = self._connection().execute("SELECT id FROM shards WHERE name = ?", (shard,)).fetchone()
            if row is None:
                return None
            number = self._shards[shard] = int(row[0])
        return number

    def _base(self, shard: str) -> int:
        number = self._shard_id(shard)
        if number is None:
            raise MissingHead(f"{self.display_url} lost its shard {shard!r} while it was open: restore it from a copy")
        return number << sqlite_schema.SHARD_BITS

    def _known_shard(self, shard: str) -> int | None:
        number = self._shards.get(shard)
        if number is None:
            rows = self._query("SELECT id FROM shards WHERE name = ?", (shard,))
            if not rows:
                return None
            number = int(rows[0][0])
            self._shards[shard] = number
            if self.end(shard) == BEFORE_FIRST:
                raise MissingHead(
                    f"{self.display_url}: workspace {shard!r} was opened once and holds no record: its head was "
                    "deleted; restore it from a copy"
                )
        return number

    def _query(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        self._check()
        try:
            with self._reading:
                return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._raise(error)

    def _write(self, query: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        """One statement in a transaction of its own, or in the turn this thread holds."""
        if self._turns_mine():
            try:
                return self._connection().execute(query, values)
            except sqlite3.Error as error:
                self._raise(error)
        self._check()
        connection = self._connection()
        with self._turns:
            try:
                self._begin_immediate()
                cursor = connection.execute(query, values)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._rollback()
                self._raise(error)
            return cursor

    def _raise(self, error: sqlite3.Error) -> NoReturn:
        raise _translated(error, self.display_url) from error


class _Turn:
    """The exclusive right to append; a class, because entering a generator costs as much as the turn's own work."""

    __slots__ = ("_log", "_shard")

    def __init__(self, log: SqliteLog, shard: str) -> None:
        self._log = log
        self._shard = shard

    def __enter__(self) -> None:
        self._log.begin(self._shard)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.finish(commit=kind is None)


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _translated(error: sqlite3.Error, url: str) -> LogError:
    """SQLite's codes in our words; the one place that knows them."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    match primary:
        case sqlite3.SQLITE_NOTADB:
            return NotALog(f"{url} is not a SQLite file: choose another file")
        case sqlite3.SQLITE_FULL:
            return LogFull(f"{url}: no space is left; nothing was written: free some space and try again")
        case sqlite3.SQLITE_READONLY:
            return LogReadOnly(f"{url} may not be written ({error}): check the permissions of the file and its folder")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return LogReadOnly(f"{url} cannot be opened ({error}): check that its folder exists and may be written")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return LogBusy(f"{url}: another process keeps it locked; try again")
        case sqlite3.SQLITE_CORRUPT:
            return LogError(
                f"{url} is damaged ({error}): restore it from a copy, or salvage it with sqlite3's .recover"
            )
        case _:
            return LogError(f"{url}: {error} (nothing of this call was written)")
