"""The file of an outbox: its format, its rows, and its lock.

Guarantees: a file of something else, of another log or workspace, of a later format, or in use elsewhere, is refused
before it is changed; whoever has it has it alone until it is closed or its process is gone, however that went; a
forked child never touches its parent's. Does not: work on a network file system (SQLite's locks do not).

The format is a contract: `TABLES` of `FILE_FORMAT` 1 are opened by every later release. Sources:
https://www.sqlite.org/pragma.html#pragma_locking_mode, https://www.sqlite.org/wal.html#noshm,
https://www.sqlite.org/howtocorrupt.html (carrying a connection across a fork).
"""

import contextlib
import ctypes
import dataclasses
import enum
import json
import sqlite3
import uuid
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ccs_stream.background import when_forked
from ccs_stream.log.sqlite_file import connect, is_busy, nothing_was_committed, translated
from ccs_stream.protocol.errors import Closed, NewerFormat, OutcomeUnknown, UsageError
from ccs_stream.protocol.ids import ArtifactId, CommandNumber, Micros, Scope, SessionId, Version

APPLICATION_ID: Final = 0x4343534F
"""`CCSO`, in the file's header."""
FILE_FORMAT: Final = 1
"""`user_version` of the file."""
TABLES: Final = (
    # log_id, workspace, session_id; session_used: whether changes were sent in it; numbers: the last one given to an
    # entry or an attempt; done: how many entries came to be in the log.
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE entries (
        number INTEGER PRIMARY KEY,
        command INTEGER NOT NULL,
        follows INTEGER,
        agent TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        artifact BLOB NOT NULL,
        kind TEXT NOT NULL,
        content_type TEXT,
        body BLOB,
        base_version INTEGER,
        ttl_us INTEGER,
        index_fields TEXT,
        reason TEXT,
        queued_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        outcome TEXT,
        detail TEXT,
        version INTEGER,
        settled_at INTEGER
    )""",
    "CREATE INDEX followers ON entries (follows) WHERE follows IS NOT NULL",
)
INSERT: Final = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
"""Takes the columns that `row_of` returns."""
_PATIENCE_S: Final = 0.25
"""For a process that is just closing the file."""
_SMALLEST_BYTES: Final = 512
"""SQLite's smallest page: SQLite takes a shorter file for an empty database."""
ENTRY_BYTES: Final = 512
"""Rough cost of a row besides its body."""


class EntryKind(enum.StrEnum):
    WRITE = "write"
    DELETE = "delete"


class EntryState(enum.StrEnum):
    WAITING = "waiting"
    DONE = "done"
    CONFLICT = "conflict"
    """Another agent had changed the artifact, or the grant was reclaimed: read again, merge, write again."""
    FAILED = "failed"
    """The change can never be accepted as it is: it is too large, for example."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A change, as the file has it."""

    number: int
    """The place of the change in the order."""
    command: CommandNumber
    """Number of its command in the outbox's session; that of a join it needs is one less."""
    follows: int | None
    """The change of the same artifact whose version this one is conditional on."""
    agent: str
    scope: Scope
    key: str
    artifact: ArtifactId
    kind: EntryKind
    content_type: str | None
    body: bytes | None
    """None for a delete, and once it is in the log."""
    base_version: Version | None
    """The version it is conditional on (None: nothing exists); a forecast while the change it follows waits."""
    ttl_us: Micros | None
    index_fields: tuple[str, ...] | None
    reason: str | None
    queued_at: Micros
    state: EntryState = EntryState.WAITING
    outcome: str | None = None
    """Once it was refused: the `RefusalReason`, as text, or `follows_refused`."""
    detail: str | None = None
    version: Version | None = None
    """Once it is done, the version that it made (None: there was nothing to delete); refused, the current one."""
    settled_at: Micros | None = None

    @property
    def size(self) -> int:
        """Bytes it takes, roughly."""
        return ENTRY_BYTES + len(self.key) + len(self.reason or "") + len(self.body or b"")

    @property
    def makes(self) -> Version | None:
        """The version it will make, if it is done as it stands."""
        if self.kind is EntryKind.DELETE and not self.base_version:
            return self.base_version
        return Version((self.base_version or 0) + 1)


_COLUMNS: Final = tuple(field.name for field in dataclasses.fields(OutboxEntry))


def entry_of(row: Sequence[Any]) -> OutboxEntry:
    """The entry of a row of the table, whose columns are the fields."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["scope"] = tuple(json.loads(values["scope"]))
    values["kind"] = EntryKind(values["kind"])
    values["state"] = EntryState(values["state"])
    if values["index_fields"] is not None:
        values["index_fields"] = tuple(json.loads(values["index_fields"]))
    return OutboxEntry(**values)


def row_of(entry: OutboxEntry) -> tuple[Any, ...]:
    """The reverse of `entry_of`."""
    values = {name: getattr(entry, name) for name in _COLUMNS}
    values["scope"] = json.dumps(entry.scope)
    values["kind"], values["state"] = entry.kind.value, entry.state.value
    if entry.index_fields is not None:
        values["index_fields"] = json.dumps(entry.index_fields)
    return tuple(values.values())


class OutboxFile:
    """The file, as long as it is this process's. The caller holds a lock of its own around every call."""

    def __init__(self, path: Path, *, log_id: bytes, workspace: str) -> None:
        """Open the file, or make it. Raises `UsageError`, `NewerFormat`, `LogError`s."""
        self._path = path
        self._log_id = log_id
        self._workspace = workspace
        self._closed = False
        self.connection: sqlite3.Connection | None = None
        """None after a disk failed so that only opening the file anew shows what is in it."""
        self._open()
        _FILES.add(self)

    def meta(self) -> dict[str, Any]:
        """The metadata of the file, by name."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT name, value FROM meta"))

    def entry(self, number: int) -> OutboxEntry | None:
        """A change by its number."""
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM entries WHERE number = ?", (number,)).fetchone()
            return None if row is None else entry_of(row)

    def entries(self, *states: EntryState) -> list[OutboxEntry]:
        """All that are in one of these states, in order."""
        found: list[OutboxEntry] = []
        with self.reading() as connection:
            for state in states:
                rows = connection.execute("SELECT * FROM entries WHERE state = ?", (state.value,))
                found.extend(entry_of(row) for row in rows)
        return sorted(found, key=lambda entry: entry.number)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Look at it. Raises `LogError`s, `Closed`."""
        connection = self._ready()
        try:
            yield connection
        except sqlite3.Error as error:
            raise translated(error, f"outbox={self._path}") from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends. Raises `LogError`s (nothing was written), `OutcomeUnknown`."""
        connection, committing = self._ready(), False
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            committing = True
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            if committing and not nothing_was_committed(error):
                self._disconnect()  # only opening it again shows what a recovery of the file would find
                raise OutcomeUnknown(
                    f"outbox={self._path}: the disk failed while a change was made durable ({error}); it may or may "
                    "not be kept: look at what is waiting"
                ) from error
            raise translated(error, f"outbox={self._path}") from error

    def close(self) -> None:
        """Let go of it."""
        self._closed = True
        self._disconnect()

    def _open(self) -> None:
        self.connection = open_file(self._path, log_id=self._log_id, workspace=self._workspace)

    def _ready(self) -> sqlite3.Connection:
        if self._closed:
            raise Closed(f"outbox={self._path} was closed: connect again")
        if self.connection is None:
            self._open()
        if self.connection is None:
            raise AssertionError("an outbox was opened and has no connection")
        return self.connection

    def _disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def next_number(connection: sqlite3.Connection, *, above: int = 0) -> int:
    """A number above `above` that was never given before, within a transaction."""
    connection.execute("UPDATE meta SET value = max(value, ?) + 1 WHERE name = 'numbers'", (above,))
    return int(connection.execute("SELECT value FROM meta WHERE name = 'numbers'").fetchone()[0])


def open_file(path: Path, *, log_id: bytes, workspace: str) -> sqlite3.Connection:
    """The file, made where there is none, for this process alone. Raises `UsageError`, `NewerFormat`, `LogError`s."""
    if path.exists() and (not path.is_file() or 0 < path.stat().st_size < _SMALLEST_BYTES):
        raise UsageError(f"outbox={path} is not the file of an outbox: name another, or one that does not exist yet")
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path, "rwc", busy_timeout_s=_PATIENCE_S)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the first look, which then takes the lock
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Readers keep no lock in this mode before the first write: this takes it, and the tables are made with it.
        connection.execute("BEGIN EXCLUSIVE")
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            _create(connection, log_id, workspace)
        connection.execute("COMMIT")
        _check_owner(connection, path, log_id, workspace)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if is_busy(error):
            raise UsageError(
                f"outbox={path} is in use, by another process or another workspace: name another"
            ) from error
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN):
            raise UsageError(f"outbox={path} cannot be opened as an outbox ({error}): name another file") from error
        raise translated(error, f"outbox={path}") from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and (application or has_tables):
        raise UsageError(f"outbox={path} is a SQLite database of something else: name another file")
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > FILE_FORMAT:
        raise NewerFormat(f"outbox={path} has file format {found}, this release reads up to {FILE_FORMAT}: upgrade")


def _create(connection: sqlite3.Connection, log_id: bytes, workspace: str) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FILE_FORMAT}")
    for statement in TABLES:
        connection.execute(statement)
    meta = {
        "log_id": log_id,
        "workspace": workspace,
        "session_id": new_session_id(),
        "session_used": 0,
        "numbers": 0,
        "done": 0,
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


def _check_owner(connection: sqlite3.Connection, path: Path, log_id: bytes, workspace: str) -> None:
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if meta["log_id"] != log_id:
        raise UsageError(
            f"outbox={path} holds changes for another log (id {bytes(meta['log_id']).hex()}, not {log_id.hex()}): "
            "name another file for this one"
        )
    if meta["workspace"] != workspace:
        raise UsageError(f"outbox={path} is that of the workspace {meta['workspace']!r}, not of {workspace!r}")


def new_session_id() -> SessionId:
    """A new session id."""
    return SessionId(uuid.uuid4().bytes)


# In a forked child a connection must not even be closed: it believes that it has the lock, and would take the
# write-ahead log away from under the parent.

_FILES: "weakref.WeakSet[OutboxFile]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    for file in tuple(_FILES):
        connection = file.connection
        if connection is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))  # the child ends without having let go of it


when_forked(_leave_to_parent)
