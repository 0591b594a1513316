"""The tables of a SQLite log, and how a file is recognised as one.

The SQLite store uses it.

Guarantees: a file of another program is refused without a byte of it changed; a file of a later format is refused.
Does not: migrate; there is one format.
"""

import sqlite3
from typing import Final

from ccs_stream.protocol.errors import NewerFormat, NotALog

APPLICATION_ID: Final = 0x43435331
"""`CCS1`, in the file's header: https://www.sqlite.org/fileformat2.html#application_id."""
FILE_FORMAT: Final = 1
"""`user_version` of the file."""

TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE shards (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    # One integer key for (shard, offset) keeps this an ordinary rowid table, whose large tails overflow to pages of
    # their own that a scan of heads never reads.
    "CREATE TABLE records (key INTEGER PRIMARY KEY, first_sequence INTEGER NOT NULL, head BLOB NOT NULL, tail BLOB)",
    "CREATE TABLE contents (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE snapshots (shard INTEGER, id TEXT, sequence INTEGER, data BLOB, PRIMARY KEY (shard, id))",
    "CREATE TABLE deliveries (id INTEGER PRIMARY KEY, shard INTEGER NOT NULL, data BLOB NOT NULL)",
)

SHARD_BITS: Final = 40
"""Offsets of a shard fit in this many bits of a record's key; the shard's number stands above them."""


def is_new(connection: sqlite3.Connection) -> bool:
    """True if the file holds no table at all."""
    return not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def is_unclaimed(connection: sqlite3.Connection) -> bool:
    """True if the file holds neither a table nor an application id."""
    return is_new(connection) and not connection.execute("PRAGMA application_id").fetchone()[0]


def is_ours(connection: sqlite3.Connection) -> bool:
    """True if the file has the application id of a log."""
    return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)


def check(connection: sqlite3.Connection, path: str) -> None:
    """Raise `NotALog` or `NewerFormat` unless this is a log that this release reads."""
    if not is_ours(connection):
        raise NotALog(f"{path} is a SQLite database of something else: choose another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FILE_FORMAT:
        raise NewerFormat(f"{path} has file format {version}, this release reads up to {FILE_FORMAT}: upgrade")


def create(connection: sqlite3.Connection, log_id: bytes) -> None:
    """Make the tables. The caller holds a write transaction on an empty file."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FILE_FORMAT}")
    for statement in TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('log_id', ?)", (log_id,))


def log_id(connection: sqlite3.Connection, path: str) -> bytes:
    """Id of the log in the file. Raises `NotALog`."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()
    if row is None:
        raise NotALog(f"{path} holds the tables of a log and no log id: restore it from a copy")
    return bytes(row[0])
