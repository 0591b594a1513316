"""Every store of the project through the suite that others can run, too."""

import sqlite3
from pathlib import Path

from ccs_stream.log.archive import Anchor, ArchiveLog
from ccs_stream.log.archive_writer import write_archive
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import LogStore
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.testing.conformance import LogStoreConformance, ReadOnlyConformance
from tests.log.faulty import FaultyLog


class TestMemoryLog(LogStoreConformance):
    """The log in memory."""

    durable = False

    def open_store(self, folder: Path) -> LogStore:
        """A new one; it lives nowhere."""
        return MemoryLog()


class TestFaultyLog(TestMemoryLog):
    """The log that the tests make fail, while it does not."""

    def open_store(self, folder: Path) -> LogStore:
        """One without a plan."""
        return FaultyLog()


class TestSqliteLog(LogStoreConformance):
    """The log in a file."""

    def open_store(self, folder: Path) -> LogStore:
        """The file of the folder."""
        return SqliteLog(folder / "log.db")


class TestSqliteLogSynchronousNormal(LogStoreConformance):
    """The same, without an fsync for each turn."""

    def open_store(self, folder: Path) -> LogStore:
        """The file of the folder."""
        return SqliteLog(folder / "log.db", synchronous="normal")


class TestReadOnlySqliteLog(ReadOnlyConformance):
    """A file opened for reading."""

    def copy_of(self, store: LogStore, shard: str, folder: Path) -> LogStore:
        """Its records in a file."""
        path = folder / "log.db"
        copy = SqliteLog(path)
        with copy.turn(shard):
            pass
        copy.close()
        _overwrite(path, store, shard)
        return SqliteLog(path, read_only=True)


class TestArchive(ReadOnlyConformance):
    """An archive."""

    def copy_of(self, store: LogStore, shard: str, folder: Path) -> LogStore:
        """Its records in an archive."""
        reader = ShardReader(store, shard)
        for _ in reader.read():
            pass
        end = reader.position(shard)
        anchor = Anchor(
            workspace=shard,
            log_id=store.log_id,
            offset=end.offset,
            sequence=end.sequence,
            hash=end.hash,
            state_hash="1:none",
        )
        write_archive(store, shard, folder / "log.avro", anchor=anchor)
        return ArchiveLog(folder / "log.avro")


def _overwrite(path: Path, store: LogStore, shard: str) -> None:
    """Put the records of `store` in the place of the file's own, its log id included."""
    connection = sqlite3.connect(path)
    base = connection.execute("SELECT min(key) FROM records").fetchone()[0]
    connection.execute("DELETE FROM records")
    connection.execute("UPDATE meta SET value = ? WHERE name = 'log_id'", (store.log_id,))
    first = 0
    for stored in store.read(shard, -1):
        record = ShardReader(store, shard).decode(stored)
        first = getattr(record, "first_sequence", 0)
        tail = stored.tail if first else None
        connection.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (base + stored.offset, first, stored.head, tail))
    connection.commit()
    connection.close()
