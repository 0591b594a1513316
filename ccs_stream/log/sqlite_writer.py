"""The connection of a SQLite log that writes, and the turns of its writers.

`SqliteLog` holds one writer for each file; every thread of the process takes its turns here.

Guarantees: one thread of one process writes at a time; a turn ends with everything in the file or nothing of it, or
with `OutcomeUnknown` where a failed disk leaves that open; an error inside a turn never lets the rest of the turn write
on its own. Does not: know what is written.

How: threads of this process wait for a lock, processes for SQLite's write lock, which `BEGIN IMMEDIATE` takes. Leaving
a turn commits, which waits for the fsync of the disk.
"""

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from ccs_stream.background import ForkGuard
from ccs_stream.log import sqlite_schema
from ccs_stream.log.sqlite_file import FileIdentity, connect, is_busy, nothing_was_committed, translated
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
        writer.begin()
        if self._shard in self._shards:
            return
        try:
            self._open_shard(self._shard)
        except BaseException as error:
            if writer.mine:
                writer.end(commit=False)
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
        self._lock = threading.Lock()
        self.thread: int | None = None
        """The thread whose turn it is."""
        self._closed = False
        self.file: FileIdentity | None = None
        """The file that was opened: every turn begins by looking whether it is still there."""
        self.connection: sqlite3.Connection | None = None
        """None after a disk failed so badly that the file must be opened anew. `in_turn` gives it, checked."""

    def open(self, log_id: bytes) -> None:
        """Connect; make the tables, under `log_id`, where there are none. Raises `sqlite3.Error` and `LogError`s."""
        connection = self._connect("rwc")
        self.connection = connection
        if sqlite_schema.is_new(connection):
            self._begin_immediate(connection)
            try:
                if sqlite_schema.is_new(connection):  # no other process was faster
                    sqlite_schema.create(connection, log_id)
                connection.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        sqlite_schema.check(connection, str(self._path))

    def in_turn(self) -> sqlite3.Connection:
        """The connection, for the thread whose turn it is. Raises `LogError` when an error ended the turn before."""
        connection = self.connection
        if connection is None or not connection.in_transaction:
            raise LogError(f"{self._url}: an error ended this turn before; nothing of it was written")
        return connection

    @property
    def mine(self) -> bool:
        """True if the calling thread has the turn."""
        return self.thread == threading.get_ident()

    def begin(self) -> None:
        """Take the turn. Raises `LogBusy`, `Closed`, `ForkedProcess`, and other `LogError`s."""
        if self._closed or self._guard.forked:
            self._check()
        if self.thread == threading.get_ident():
            raise UsageError(f"{self._url}: this thread has the turn already, and turns do not nest")
        if not self._lock.acquire(timeout=max(self._busy_timeout_s, 0)):
            raise LogBusy(
                f"{self._url}: another thread of this process kept its turn for more than {self._busy_timeout_s} s: "
                "look for one that is stuck inside a turn, or raise busy_timeout_s"
            )
        if self._closed:
            self._lock.release()
            raise Closed(f"{self._url} was closed: open it again")
        try:
            if self.connection is None:
                self.connection = self._connect("rw")
            self._begin_immediate(self.connection)
        except BaseException as error:
            self._rollback()
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                self.fail(error)
            raise
        self.thread = threading.get_ident()

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
        finally:
            self.thread = None
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

    def _begin_immediate(self, connection: sqlite3.Connection) -> None:
        deadline, pause = 0.0, _RETRY_MIN_S
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
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
                    self.file.check()
                return

    def _rollback(self) -> None:
        connection = self.connection
        if connection is not None and connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
