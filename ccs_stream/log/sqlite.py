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
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

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
    count_records,
    scan_shards,
)
from ccs_stream.log.sqlite_file import connect, connect_to_read, refuse_foreign, translated
from ccs_stream.log.sqlite_reader import PAGE_RECORDS, Reader
from ccs_stream.log.sqlite_writer import Writer
from ccs_stream.protocol.errors import (
    Closed,
    ContentMissing,
    ForkedProcess,
    LogMissing,
    LogReadOnly,
    MissingHead,
    OutcomeUnknown,
    UsageError,
)
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.ids import LogId, Micros, SequenceNumber
from ccs_stream.protocol.records import DecisionRecord, LogOpened

BUSY_TIMEOUT_S: Final = 30.0
"""How long to wait for another process's turn: many times the longest turn, which is a checkpoint's fsync."""
BUSY_TIMEOUT_MAX_S: Final = 86_400.0
"""SQLite counts milliseconds in 32 bits; whoever waits for a day waits for something else."""
SNAPSHOTS_KEPT: Final = 3
_POLL_S: Final = 0.005
"""How often `wait` looks whether another process has appended; a look costs some three microseconds."""
_BITS: Final = sqlite_schema.SHARD_BITS
_DELIVERIES_END: Final = "deliveries of shard {}"
_COUNT_DELIVERIES: Final = (
    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
)
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
    ) -> None:
        """Open the file, creating it where `create` allows.

        With `read_only` the file is not changed, and on a read-only file system it is read as it stands at this moment.
        Raises `UsageError`, `LogMissing`, `NotALog`, `NewerFormat`, `LogReadOnly`, `LogBusy`, `LogFull`.
        """
        if synchronous not in ("full", "normal"):
            raise UsageError(f"synchronous is 'full' (durable, the default) or 'normal', got {synchronous!r}")
        if not 0 <= busy_timeout_s <= BUSY_TIMEOUT_MAX_S:
            raise UsageError(f"busy_timeout_s is between 0 and {BUSY_TIMEOUT_MAX_S:.0f}, got {busy_timeout_s!r}")
        self._path = Path(path)
        self._pid = os.getpid()
        self._closed = False
        self._shards: dict[str, int] = {}
        """Numbers of the shards met so far; a shard never changes its number."""
        self._writer: Writer | None = None
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
                    self._writer = Writer(
                        self._path, self.display_url, synchronous=synchronous, busy_timeout_s=busy_timeout_s
                    )
                    undo.callback(self._writer.close)
                    self._writer.open(uuid.uuid4().bytes)
                    connection = connect(self._path, "rw", busy_timeout_s=busy_timeout_s)
                    undo.callback(connection.close)
                self._log_id = LogId(sqlite_schema.log_id(connection, str(self._path)))
            except sqlite3.Error as error:
                self._raise(error)
            undo.pop_all()
        self._reader = Reader(connection, self.display_url, self._check)

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
        writer = self._for_writing()
        try:
            writer.begin()
        except sqlite3.Error as error:
            self._raise(error)
        if shard in self._shards:
            return
        try:
            self._meet_shard(writer, shard)
        except BaseException as error:
            if writer.mine:
                writer.end(commit=False)
            if isinstance(error, sqlite3.Error):
                self._raise(error)
            raise

    def finish(self, *, commit: bool) -> None:
        """End the turn; `_Turn` calls it."""
        self._for_writing().end(commit=commit)

    def _meet_shard(self, writer: Writer, shard: str) -> None:
        """Look a shard up, opening one that does not exist; the turn is the caller's before and after."""
        while True:
            row = writer.connection.execute("SELECT id FROM shards WHERE name = ?", (shard,)).fetchone()
            if row is not None:
                self._shards[shard] = int(row[0])
                return
            number = writer.connection.execute("INSERT INTO shards (name) VALUES (?)", (shard,)).lastrowid or 0
            opened = LogOpened(
                log_id=self._log_id,
                shards=0,
                partitioner="workspace",
                format=LOG_FORMAT,
                opened_at=Micros(time.time_ns() // 1_000),
            )
            head = DEFAULT_CODEC.encode_record(opened)
            writer.connection.execute("INSERT INTO records VALUES (?, 0, ?, NULL)", (number << _BITS, head))
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
        base = self._base(shard)
        connection = writer.connection
        try:
            last = connection.execute(_LAST_KEY, (base, base + (1 << _BITS))).fetchone()[0]
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
        base = number << _BITS
        last = base + ((1 << _BITS) - 1 if until is None else until)
        at, bounded = base + after, until is not None
        while True:
            rows, more = self._reader.page(at, last, bodies=bodies)
            if more and not bounded:
                # What others append while the consumer is busy is not followed.
                last, bounded = base + self._reader.end(base), True
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
        offset = self._reader.offset_of(base, sequence)
        rows = self._reader.query("SELECT head, tail FROM records WHERE key = ?", (base + offset,))
        if not rows or offset < 1:
            return None
        stored = StoredRecord(offset, rows[0][0], tail=rows[0][1] or b"")
        record, _ = DEFAULT_CODEC.decode_record(stored.head)
        if type(record) is not DecisionRecord:
            return None
        last = record.first_sequence + len(record.events) - 1
        return stored if record.first_sequence <= sequence <= last else None

    def learn(self, workspace: str, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        del workspace, first_sequence, offset, events  # found without being told

    def end(self, shard: str) -> int:
        number = self._known_shard(shard)
        return BEFORE_FIRST if number is None else self._reader.end(number << _BITS)

    def change_mark(self, shard: str) -> int:
        del shard  # one file, one mark: a turn in any workspace moves it, and a turn of this process as well
        return self._reader.data_version()

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
        return sorted(name for (name,) in self._reader.query("SELECT name FROM shards"))

    def scan(self) -> Iterator[str | None]:
        return scan_shards(self)

    def record_count(self) -> int:
        return count_records(self)

    # Bodies, snapshots, deliveries.

    def put_content(self, body: bytes) -> bytes:
        with self._any_turn() as connection:
            row = connection.execute("INSERT INTO contents (body) VALUES (?)", (body,)).lastrowid
        return str(row).encode()

    def get_content(self, locator: bytes) -> bytes:
        number = int(locator) if locator.isdigit() else 0
        rows = self._reader.query("SELECT body FROM contents WHERE id = ?", (number,)) if number < 1 << 63 else []
        if not rows:
            raise ContentMissing(f"no body at locator {locator!r} in {self.display_url}: it was redacted")
        return bytes(rows[0][0])

    def save_snapshot(self, shard: str, snapshot: SnapshotBlob) -> None:
        with self._any_turn(shard) as connection:
            number = self._base(shard) >> _BITS
            connection.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
                (number, snapshot.snapshot_id, snapshot.sequence, snapshot.data),
            )
            connection.execute(
                "DELETE FROM snapshots WHERE shard = ? AND id NOT IN "
                "(SELECT id FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id LIMIT ?)",
                (number, number, SNAPSHOTS_KEPT),
            )

    def snapshots(self, shard: str) -> Iterator[SnapshotBlob]:
        number = self._known_shard(shard)
        ids = self._reader.query(
            "SELECT id, sequence FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id", (number,)
        )
        for snapshot_id, sequence in ids:
            rows = self._reader.query("SELECT data FROM snapshots WHERE shard = ? AND id = ?", (number, snapshot_id))
            if rows:
                yield SnapshotBlob(snapshot_id=snapshot_id, sequence=SequenceNumber(sequence), data=rows[0][0])

    def append_deliveries(self, shard: str, deliveries: Sequence[bytes]) -> None:
        with self._any_turn(shard) as connection:
            number = self._base(shard) >> _BITS
            connection.executemany(
                "INSERT INTO deliveries (shard, data) VALUES (?, ?)", [(number, each) for each in deliveries]
            )
            connection.execute(_COUNT_DELIVERIES, (_DELIVERIES_END.format(number), len(deliveries)))

    def deliveries_end(self, shard: str) -> int | None:
        number = self._known_shard(shard)
        rows = self._reader.query("SELECT value FROM meta WHERE name = ?", (_DELIVERIES_END.format(number),))
        return int(rows[0][0]) if rows else None

    def read_deliveries(self, shard: str) -> Iterator[bytes]:
        number, at = self._known_shard(shard), 0
        query = "SELECT id, data FROM deliveries WHERE shard = ? AND id > ? ORDER BY id LIMIT ?"
        while rows := self._reader.query(query, (number, at, PAGE_RECORDS)):
            yield from (data for _, data in rows)
            at = rows[-1][0]

    def close(self) -> None:
        if self._closed:
            return
        if self._writer is not None and self._writer.mine:
            raise UsageError(f"{self.display_url}: leave the turn before you close the log")
        self._closed = True
        if self._pid != os.getpid():
            return  # the parent's handles: closing them here would drop the parent's locks
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    # Within.

    def _check(self) -> None:
        if self._closed:
            raise Closed(f"{self.display_url} was closed: open it again")
        if self._pid != os.getpid():
            raise ForkedProcess(f"{self.display_url} was opened in another process: open it in this one")

    def _for_writing(self) -> Writer:
        if self._writer is None:
            raise LogReadOnly(f"{self.display_url} was opened read-only: open it for writing to append")
        return self._writer

    @contextlib.contextmanager
    def _any_turn(self, shard: str | None = None) -> Iterator[sqlite3.Connection]:
        """The turn this thread has, or one of its own; without a shard, none is opened."""
        writer = self._for_writing()
        try:
            if writer.mine:
                yield writer.connection
            elif shard is not None:
                with self.turn(shard):
                    yield writer.connection
            else:
                self._check()
                writer.begin()
                done = False
                try:
                    yield writer.connection
                    done = True
                finally:
                    writer.end(commit=done)
        except sqlite3.Error as error:
            self._raise(error)

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

    def _raise(self, error: sqlite3.Error) -> NoReturn:
        self._check()  # closed meanwhile, by another thread
        raise translated(error, self.display_url) from error


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
