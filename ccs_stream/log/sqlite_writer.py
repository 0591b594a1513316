"""The connection of a SQLite log that writes, and the turns of its writers.

`SqliteLog` holds one writer for each file; every thread of the process takes its turns here.

Guarantees: one thread of one process writes at a time; a turn ends with everything in the file or nothing of it, or
with `OutcomeUnknown` where a failed disk leaves that open; an error inside a turn never lets the rest of the turn write
on its own. Does not: know what is written.

How: threads of this process wait for a lock, processes for SQLite's write lock, which `BEGIN IMMEDIATE` takes. Leaving
a turn commits, which waits for the fsync of the disk. An interrupt may come between any two lines: the lock itself
knows whose turn it is, whoever was interrupted calls `abandon`, and a transaction left open is rolled back by the next
turn. One cursor runs every statement, so that a statement whose rows nobody fetched is reset by the next one, even
while a traceback keeps its frame alive.
"""

import contextlib
import math
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from ccs_stream.background import ForkGuard
from ccs_stream.clock import boot_id, since_boot, wall_clock
from ccs_stream.log import sqlite_schema
from ccs_stream.log.sqlite_file import LOOK_EVERY_S, FileIdentity, connect, is_busy, nothing_was_committed, translated
from ccs_stream.protocol.errors import Closed, LogBusy, LogError, OutcomeUnknown, UsageError

_RETRY_MIN_S: Final = 0.0002
_RETRY_MAX_S: Final = 0.005
"""Pauses between attempts at the write lock. SQLite's own grow to 100 ms, which starves a waiter among busy writers."""


class SqliteTurn:
    """The exclusive right to append to one shard, as a context manager without a state of its own.

    A class, because entering a generator costs as much as the turn's own work.
    """

    __slots__ = ("_open_shard", "_shard", "_shards", "_writer")

    def __init__(
        self, writer: "SqliteWriter", shard: str, shards: Mapping[str, int], open_shard: Callable[[str], None]
    ) -> None:
        """`shards` are those met so far; `open_shard` meets one, inside the turn."""
        self._writer = writer
        self._shard = shard
        self._shards = shards
        self._open_shard = open_shard

    def __enter__(self) -> None:
        writer = self._writer
        nested = writer.mine  # then it is refused, and the turn is that of a call further out
        try:
            writer.begin()
            if self._shard in self._shards:
                return
            self._open_shard(self._shard)
        except BaseException as error:
            if not nested:
                writer.abandon()
            if isinstance(error, sqlite3.Error):
                writer.fail(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.end(commit=kind is None)


class SqliteWriter:
    """See the module's docstring. `check` raises where the log may not be used any more."""

    def __init__(
        self, path: Path, url: str, check: Callable[[], None], *, synchronous: str, busy_timeout_s: float
    ) -> None:
        self._path = path
        self._url = url
        self._check = check
        self._guard = ForkGuard(f"the log {path}")
        self._synchronous = synchronous
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        """Held by the thread whose turn it is, and never twice. It knows its owner at any moment; a note would not."""
        self._closed = False
        self.file: FileIdentity | None = None
        """The file that was opened: every turn begins by looking whether it is still there."""
        self.clock_offset_us: int | None = None
        """Wall time less the time since the machine was started, as the first process since then knew it."""
        self.connection: sqlite3.Connection | None = None
        """None after a disk failed so badly that the file must be opened anew."""
        self.cursor: sqlite3.Cursor | None = None
        """The cursor of all statements. `in_turn` gives it, checked."""

    def open(self, log_id: bytes) -> None:
        """Connect; make the tables, under `log_id`, where there are none. Raises `sqlite3.Error` and `LogError`s."""
        connection = self._connect("rwc")
        if sqlite_schema.is_new(connection):
            self._begin_immediate(connection.cursor())
            try:
                if sqlite_schema.is_new(connection):  # no other process was faster
                    sqlite_schema.create(connection, log_id)
                connection.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        sqlite_schema.check(connection, str(self._path))
        self._learn_clock(connection)

    def _learn_clock(self, connection: sqlite3.Connection) -> None:
        """Read, or keep for others, by how much the wall clock is ahead of the time since the machine was started."""
        boot = boot_id()
        if boot is None:
            return
        name = f"clock since boot {boot}"
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            offset = wall_clock() - math.floor(since_boot() * 1_000_000)
            self._begin_immediate(connection.cursor())
            try:
                connection.execute("DELETE FROM meta WHERE name LIKE 'clock since boot %' AND name != ?", (name,))
                connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, offset))
                row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
                connection.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        self.clock_offset_us = int(row[0])

    def in_turn(self) -> sqlite3.Cursor:
        """The cursor, for the thread whose turn it is. Raises `LogError` when an error ended the turn before."""
        connection, cursor = self.connection, self.cursor
        if connection is None or cursor is None or not connection.in_transaction:
            raise LogError(f"{self._url}: an error ended this turn before; nothing of it was written")
        return cursor

    @property
    def mine(self) -> bool:
        """True if the calling thread has the turn."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001  # as Condition does

    def begin(self) -> None:
        """Take the turn. Raises `LogBusy`, `Closed`, `ForkedProcess`, and other `LogError`s."""
        if self._closed or self._guard.forked:
            self._check()
        if self.mine:
            raise UsageError(f"{self._url}: this thread has the turn already, and turns do not nest")
        try:
            self._begin()
        except BaseException as error:
            self.abandon()
            if isinstance(error, sqlite3.Error):
                self.fail(error)
            raise

    def _begin(self) -> None:
        if not self._lock.acquire(timeout=self._busy_timeout_s):
            raise LogBusy(
                f"{self._url}: another thread of this process kept its turn for more than {self._busy_timeout_s} s: "
                "look for one that is stuck inside a turn, or raise busy_timeout_s"
            )
        if self._closed:
            raise Closed(f"{self._url} was closed: open it again")
        if self.connection is not None and self.connection.in_transaction:
            self._rollback()  # of a turn that an interrupt ended
        if self.connection is None or self.cursor is None:
            connection = self._connect("rw")
            self._begin_immediate(connection.cursor())
        else:
            self._begin_immediate(self.cursor)

    def end(self, *, commit: bool) -> None:
        """Give the turn up. Raises a `LogError` when nothing was written, or `OutcomeUnknown`."""
        try:
            if commit:
                try:
                    self.in_turn().execute("COMMIT")
                except sqlite3.Error as error:
                    self._after_failed_commit(error)
            else:
                self._rollback()
        except BaseException:  # interrupted before the COMMIT, or after it, when there is nothing to roll back
            self._rollback()
            raise
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """End the turn of this thread, if it has one that an interrupt left open; what is not committed is dropped."""
        if self.mine:
            try:
                self._rollback()
            finally:
                self._lock.release()

    def fail(self, error: sqlite3.Error) -> NoReturn:
        """Raise the `LogError` for an error of SQLite's, or that the log was closed meanwhile, by another thread."""
        self._check()
        raise translated(error, self._url) from error

    def close(self) -> None:
        """Wait for the turn that is under way, and disconnect; the last of all processes also tidies the file up."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _after_failed_commit(self, error: sqlite3.Error) -> NoReturn:
        self._rollback()
        if nothing_was_committed(error):
            raise translated(error, self._url) from error
        # Only a new connection is sure to see the file as a recovery would.
        self._disconnect()
        raise OutcomeUnknown(
            f"{self._url}: the disk failed while the append was made durable ({error}); it may or may not be in the "
            "log, now or after a crash; ask again under the same number"
        ) from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = connect(self._path, mode, busy_timeout_s=self._busy_timeout_s)
        try:
            self._enter_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
            connection.execute("PRAGMA busy_timeout = 0")  # turns wait in _begin_immediate
            self.connection, self.cursor = connection, connection.cursor()
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Two processes that make one file at the same moment are in each other's way here: the later one waits."""
        deadline, mode = time.monotonic() + self._busy_timeout_s, ""
        while not mode:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_MAX_S)
        if mode != "wal":
            raise LogError(
                f"{self._url}: this file system cannot share a file the way SQLite's write-ahead log needs (journal "
                f"mode {mode}): keep the log on a local disk"
            )

    def _begin_immediate(self, cursor: sqlite3.Cursor) -> None:
        deadline, pause = 0.0, _RETRY_MIN_S
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                now = time.monotonic()
                deadline = deadline or now + self._busy_timeout_s
                if now >= deadline:
                    raise LogBusy(
                        f"{self._url}: another process kept the log locked for more than {self._busy_timeout_s} s: "
                        "look for one that is stopped inside a turn, or raise busy_timeout_s"
                    ) from error
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads the waiters, hides nothing
                pause = min(pause * 1.5, _RETRY_MAX_S)
            else:
                if self.file is not None:
                    self._look_at_file(self.file)
                return

    def _look_at_file(self, file: FileIdentity) -> None:
        """Raise where the file was removed or replaced. Every turn begins with this, so it does little."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  # a Path's own is twice as slow
            same = (found.st_dev, found.st_ino) == file.opened
            now = time.monotonic()
            if same and now >= file.next_look - LOOK_EVERY_S / 2:  # so that what follows in the turn need not look
                found = os.stat(f"{self._path}-wal")  # noqa: PTH116
                same = (found.st_dev, found.st_ino) == file.wal
                if same:
                    file.next_look = now + LOOK_EVERY_S
        except OSError:
            same = False
        if not same:
            file.check_all()

    def _rollback(self) -> None:
        connection = self.connection
        if connection is not None and connection.in_transaction:
            try:
                (self.cursor or connection).execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()  # the next turn opens the file anew

    def _disconnect(self) -> None:
        connection, self.connection, self.cursor = self.connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
