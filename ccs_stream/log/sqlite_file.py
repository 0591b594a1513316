"""A SQLite log as a file: recognising it at a path, connecting to it, and translating SQLite's errors.

The SQLite store uses it, and the file of the client's outbox.

Guarantees: a file of another program is refused before a connection that could change it is opened; every SQLite error
is translated here and nowhere else. Does not: know what the tables mean (`sqlite_schema` does).

Sources: https://www.sqlite.org/rescode.html, https://www.sqlite.org/wal.html#read_only_databases,
https://www.sqlite.org/howtocorrupt.html.
"""

import contextlib
import os
import sqlite3
import time
import urllib.parse
from pathlib import Path
from typing import Final

from ccs_stream.log import sqlite_schema
from ccs_stream.log.private_files import create_private
from ccs_stream.protocol.errors import LogBusy, LogDiverged, LogError, LogFull, LogMissing, LogReadOnly, NotALog

LOOK_EVERY_S: Final = 0.02
"""How often reads look whether the file is still there. A look costs a tenth of a read; writes always look."""
_SMALLEST_BYTES: Final = 512
"""Of SQLite's smallest page. A file of one byte it would take for an empty database."""


def connect(path: Path, mode: str, *, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection in autocommit mode, for use by several threads under their own lock.

    `mode` is SQLite's: `ro`, `rw`, `rwc`, or `immutable` for a file that nothing changes while it is open.
    """
    if mode == "rwc":
        create_private(path)
    options = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    uri = f"file:{urllib.parse.quote(str(path.absolute()))}?{options}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that changes nothing, and leaves nothing behind where it finds the file at rest.

    At rest, a connection with the right to write is used (and forbidden to), because only such a one removes the
    `-wal` and `-shm` that reading needs. Where they cannot be made, on a read-only file system, the file is read as it
    stands. Raises `sqlite3.Error`, `LogReadOnly`.
    """
    at_rest = not _wal_holds_something(path)
    if at_rest and os.access(path, os.W_OK):
        with contextlib.suppress(sqlite3.Error):
            return _only_querying(connect(path, "rw", busy_timeout_s=busy_timeout_s))
    try:
        return _only_querying(connect(path, "ro", busy_timeout_s=busy_timeout_s))
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        if not at_rest:
            raise LogReadOnly(
                f"{path}: its {path.name}-wal holds the end of the log and cannot be read where nothing may be "
                "written: copy both files to a folder of your own and open the copy"
            ) from error
    return _only_querying(connect(path, "immutable", busy_timeout_s=busy_timeout_s))


def _only_querying(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # the first look at the file, which may fail
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _wal_holds_something(path: Path) -> bool:
    try:
        return Path(f"{path}-wal").stat().st_size > 0
    except OSError:
        return False


def refuse_foreign(path: Path) -> None:
    """Raise `NotALog` for anything at `path` that is neither ours nor empty, by looking only.

    SQLite does the looking: `open()` and `close()` on the file would drop the locks of every connection that this
    process has to it (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    if not path.exists():
        return
    if not path.is_file():
        raise NotALog(f"{path} is not a file: name the file of a log, or a new one")
    if 0 < path.stat().st_size < _SMALLEST_BYTES:
        raise NotALog(f"{path} is not a SQLite file: choose another file")
    # The first transaction of a log writes its id and its tables, on one page: a page with tables and without our id
    # is another program's. With neither, that transaction may still be in the -wal, which `immutable` does not see.
    if _is_foreign(path, "immutable") or (_wal_holds_something(path) and _is_foreign(path, "ro")):
        raise NotALog(f"{path} is a SQLite database of something else: choose another file")


def _is_foreign(path: Path, mode: str) -> bool:
    try:
        with contextlib.closing(connect(path, mode, busy_timeout_s=0)) as connection:
            return not sqlite_schema.is_ours(connection) and not sqlite_schema.is_unclaimed(connection)
    except sqlite3.Error as error:
        if _code(error) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise NotALog(f"{path} is not a SQLite file: choose another file") from error
        return False  # opening the file for use meets this error again, and reports it


def is_busy(error: sqlite3.Error) -> bool:
    """True if another connection held the lock."""
    return _code(error) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


_NOTHING_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def nothing_was_committed(error: sqlite3.Error) -> bool:
    """True if a COMMIT that failed with this error left nothing that a later recovery of the file could find.

    A transaction becomes whole with its last frame; what could not write a frame left it torn. After the frames, an
    fsync or the shared index can still fail, and then the transaction is hidden but may be found after a crash.
    """
    code = _code(error)
    return code & 0xFF in _NOTHING_WRITTEN or code == sqlite3.SQLITE_IOERR_WRITE


def translated(error: sqlite3.Error, url: str) -> LogError:
    """The `LogError` for an error of SQLite."""
    code = _code(error)
    match code & 0xFF:
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
        case sqlite3.SQLITE_IOERR:
            return LogError(
                f"{url}: the disk refused ({error}, {error.sqlite_errorname}); nothing of this call was written: look "
                "at the disk, and at limits on the size of files"
            )
        case _:
            return LogError(f"{url}: {error} (nothing of this call was written)")


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended code; 0 for an error that Python's module raises by itself."""
    return getattr(error, "sqlite_errorcode", 0)


class FileIdentity:
    """The file that was opened, and whether it is still what its path names.

    A connection goes on with a file that was removed or replaced, and nobody else would ever see what it writes there.
    """

    def __init__(self, path: Path, url: str) -> None:
        """Remember the file that is at `path` now. Raises `OSError` where there is none."""
        self._path = path
        self._url = url
        self.opened = _identity(path)
        """Device and number of the file that was opened."""
        self.wal: tuple[int, int] | None = None
        """The same of its `-wal`, once it was seen."""
        self.next_look = 0.0
        """When a read looks again, on the monotonic clock."""

    def check(self) -> None:
        """Raise `LogMissing` where the file was removed, `LogDiverged` where another one is in its place."""
        try:
            found = _identity(self._path)
        except OSError as error:
            raise LogMissing(
                f"{self._url}: the file was removed while it was open, and what is written now would be lost: restore "
                "it, and open the log again"
            ) from error
        if found != self.opened:
            raise self._replaced(self._path)

    def check_all(self) -> None:
        """As `check`, and the same for the `-wal`. Reads call it when it is time for the next look."""
        self.check()
        try:
            found = _identity(Path(f"{self._path}-wal"))
        except OSError:
            found = None  # a file at rest that is only read has none
        if self.wal is not None and found != self.wal:
            raise self._replaced(Path(f"{self._path}-wal"))
        self.wal = found
        self.next_look = time.monotonic() + LOOK_EVERY_S

    def _replaced(self, path: Path) -> LogDiverged:
        return LogDiverged(
            f"{self._url}: {path.name} was replaced while it was open, and what is written now would be lost: open the "
            "log again"
        )


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116  # a Path's own is twice as slow
    return found.st_dev, found.st_ino
