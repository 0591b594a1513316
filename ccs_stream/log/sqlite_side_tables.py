"""Bodies, snapshots and deliveries of a SQLite log, each in a table of its own.

`SqliteLog` holds one object for each file, and finds the numbers of shards for it.

Guarantees: each call is one turn, or part of the turn that the calling thread has. Does not: know records.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from ccs_stream.log.port import SnapshotBlob
from ccs_stream.log.sqlite_reader import PAGE_RECORDS, SqliteReader
from ccs_stream.log.sqlite_uploads import INSERT
from ccs_stream.log.sqlite_writer import SqliteWriter
from ccs_stream.protocol.errors import ContentMissing
from ccs_stream.protocol.ids import SequenceNumber

T = TypeVar("T")

SNAPSHOTS_KEPT: Final = 3
_DELIVERIES_END: Final = "deliveries of shard {}"
_COUNT_DELIVERIES: Final = (
    "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
)


class SqliteSideTables:
    """See the module's docstring. `reader` opens the connection; `writer` raises where the log is read-only."""

    def __init__(self, reader: Callable[[], SqliteReader], writer: Callable[[], SqliteWriter], url: str) -> None:
        self._reader = reader
        self._writer = writer
        self._url = url

    def put_content(self, body: bytes) -> bytes:
        """Keep a body; returns its locator."""
        row = self.in_turn(lambda cursor: cursor.execute(INSERT, (body,)).lastrowid)
        return str(row).encode()

    def drop_content(self, locator: bytes) -> None:
        """Free a body that no decision names."""
        if locator.isdigit() and int(locator) < 1 << 63:
            self.in_turn(lambda cursor: cursor.execute("DELETE FROM contents WHERE id = ?", (int(locator),)))

    def get_content(self, locator: bytes) -> bytes:
        """A body. Raises `ContentMissing`."""
        number = int(locator) if locator.isdigit() else 0
        rows = self._reader().query("SELECT body FROM contents WHERE id = ?", (number,)) if number < 1 << 63 else []
        if not rows:
            raise ContentMissing(f"no body at locator {locator!r} in {self._url}: it was redacted")
        return bytes(rows[0][0])

    def save_snapshot(self, shard: int, snapshot: SnapshotBlob) -> None:
        """Keep a snapshot, and drop those beyond a few. The caller has the turn."""

        def write(cursor: sqlite3.Cursor) -> None:
            cursor.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
                (shard, snapshot.snapshot_id, snapshot.sequence, snapshot.data),
            )
            cursor.execute(
                "DELETE FROM snapshots WHERE shard = ? AND id NOT IN "
                "(SELECT id FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id LIMIT ?)",
                (shard, shard, SNAPSHOTS_KEPT),
            )

        self.in_turn(write)

    def snapshots(self, shard: int | None) -> Iterator[SnapshotBlob]:
        """Snapshots kept, newest first."""
        ids = self._reader().query(
            "SELECT id, sequence FROM snapshots WHERE shard = ? ORDER BY sequence DESC, id", (shard,)
        )
        for snapshot_id, sequence in ids:
            rows = self._reader().query("SELECT data FROM snapshots WHERE shard = ? AND id = ?", (shard, snapshot_id))
            if rows:
                yield SnapshotBlob(snapshot_id=snapshot_id, sequence=SequenceNumber(sequence), data=rows[0][0])

    def append_deliveries(self, shard: int, deliveries: Sequence[bytes]) -> None:
        """Keep deliveries, and count them. The caller has the turn."""

        def write(cursor: sqlite3.Cursor) -> None:
            cursor.executemany(
                "INSERT INTO deliveries (shard, data) VALUES (?, ?)", [(shard, each) for each in deliveries]
            )
            cursor.execute(_COUNT_DELIVERIES, (_DELIVERIES_END.format(shard), len(deliveries)))

        self.in_turn(write)

    def deliveries_end(self, shard: int | None) -> int | None:
        """Count of all deliveries ever kept; None if there was none."""
        rows = self._reader().query("SELECT value FROM meta WHERE name = ?", (_DELIVERIES_END.format(shard),))
        return int(rows[0][0]) if rows else None

    def read_deliveries(self, shard: int | None) -> Iterator[bytes]:
        """Deliveries kept, in order."""
        at = 0
        query = "SELECT id, data FROM deliveries WHERE shard = ? AND id > ? ORDER BY id LIMIT ?"
        while rows := self._reader().query(query, (shard, at, PAGE_RECORDS)):
            yield from (data for _, data in rows)
            at = rows[-1][0]

    def in_turn(self, write: Callable[[sqlite3.Cursor], T]) -> T:
        """Call `write` in the turn that this thread has, or in one of its own, in which no shard is opened."""
        writer = self._writer()
        mine = writer.mine
        try:
            if mine:
                return write(writer.in_turn())
            writer.begin()
            written = write(writer.in_turn())
            writer.end(commit=True)
        except BaseException as error:
            if not mine:
                writer.abandon()
            if isinstance(error, sqlite3.Error):
                writer.fail(error)
            raise
        return written
