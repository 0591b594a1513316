"""The connection of a SQLite log that reads.

`SqliteLog` and its side tables hold one reader for each file.

Guarantees: serves every thread of the process, and never waits for the one that writes; no call leaves a transaction
open behind it, so that a slow consumer keeps no checkpoint from the file. Does not: see what a turn under way appended.
"""

import contextlib
import sqlite3
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

from ccs_stream.log import sqlite_schema
from ccs_stream.log.port import BEFORE_FIRST
from ccs_stream.log.sqlite_file import translated

PAGE_RECORDS: Final = 1_000
"""Records read at once: enough to hide the query, few enough to stay in memory."""
_PAGE_BYTES: Final = 4 * 1024 * 1024
"""The same for records with their bodies, which may be long: a page ends with the record that exceeds this."""
_KEYS_AT_ONCE: Final = 200
"""Records fetched by one query that names their keys."""
_SHARD: Final = 1 << sqlite_schema.SHARD_BITS
_LAST_KEY: Final = "SELECT max(key) FROM records WHERE key >= ? AND key < ?"
_LAST: Final = "SELECT key, first_sequence FROM records WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT 1"
_FROM: Final = "SELECT key, first_sequence FROM records WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_TWO: Final = "SELECT key, first_sequence FROM records WHERE key >= ? AND key < ? ORDER BY key LIMIT 2"


class SqliteReader:
    """See the module's docstring. `check` raises where the log may not be used any more."""

    def __init__(self, connection: sqlite3.Connection, url: str, check: Callable[[], None]) -> None:
        self.connection = connection
        self.cursor = connection.cursor()
        """For use under `lock`. One for all queries: the next one ends a query whose rows an interrupt left unfetched,
        and which would hold the view of the log at that moment for as long as its traceback lives."""
        self.lock = threading.Lock()
        self._url = url
        self._check = check

    def query(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query that returns few. Raises `LogError`s, and what `check` raises."""
        self._check()
        try:
            with self.lock:
                return self.cursor.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self.fail(error)

    def page(self, after: int, last: int, *, bodies: bool) -> tuple[list[Any], bool]:
        """Rows of key, head and tail with keys above `after`, to `last`; and whether there may be more of them."""
        if not bodies:
            query = "SELECT key, head, NULL FROM records WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
            rows = self.query(query, (after, last, PAGE_RECORDS))
            return rows, len(rows) == PAGE_RECORDS
        query = "SELECT key, head, tail FROM records WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
        rows, cut = self._bounded(query, (after, last, PAGE_RECORDS))
        return rows, cut or len(rows) == PAGE_RECORDS

    def _bounded(self, query: str, values: tuple[int, ...]) -> tuple[list[Any], bool]:
        """Rows of key, head and tail, to the end of the query or of a page; and whether it was cut at a page's size."""
        self._check()
        rows, size = [], 0
        try:
            with self.lock:
                for row in self.cursor.execute(query, values):
                    rows.append(row)
                    size += len(row[1]) + len(row[2] or b"")
                    if size > _PAGE_BYTES:
                        self.cursor.execute("SELECT NULL WHERE 0")  # ends the query, and its transaction
                        return rows, True
        except sqlite3.Error as error:
            self.fail(error)
        return rows, False

    def end(self, base: int) -> int:
        """Offset of the last record of the shard whose keys begin at `base`."""
        last = self.query(_LAST_KEY, (base, base + _SHARD))[0][0]
        return BEFORE_FIRST if last is None else int(last) - base

    def offset_of(self, base: int, sequence: int) -> int:
        """Offset of the last record whose first sequence is at most `sequence`.

        Offsets and sequences grow together and nearly evenly, so the log is its own index, for which appending pays
        nothing: where the sequence should be is computed from two records around it, by turns with plain halving,
        which bounds the looks at twice the logarithm. Some four looks, where halving alone takes twenty.
        """
        rows: list[tuple[int, int]] = self.query(_LAST, (base, base + _SHARD))
        if not rows or rows[0][1] <= sequence:
            return rows[0][0] - base if rows else BEFORE_FIRST
        low: int = 0
        low_sequence = 0
        high, high_sequence = rows[0][0] - base, rows[0][1]
        halve = False
        while high - low > 1:
            guess = (low + high) // 2
            if not halve:
                guess = low + (sequence - low_sequence) * (high - low) // (high_sequence - low_sequence)
                guess = min(max(guess, low + 1), high - 1)
            halve = not halve
            here, *following = self.query(_TWO, (base + guess, base + _SHARD))
            if here[1] > sequence:
                high, high_sequence = guess, here[1]
                continue
            low, low_sequence = here[0] - base, here[1]
            for key, first_sequence in following:
                if first_sequence > sequence:
                    return low
                low, low_sequence = key - base, first_sequence
        return low

    def keys_of(self, base: int, sequences: Sequence[int]) -> Iterator[tuple[int, bool]]:
        """For ascending sequences, the keys of the last records whose first sequences are not higher, as `offset_of`.

        Each with whether a later record follows, so that it is certain that the record reaches to its sequence. Reads
        the numbers of the records in pages where the sequences are near each other, and looks for the others.
        """
        rows: list[tuple[int, int]] = []
        firsts: list[int] = []
        ended = False
        for sequence in sequences:
            if not rows or (sequence >= firsts[-1] and not ended):
                near = bool(rows) and sequence - firsts[-1] <= PAGE_RECORDS
                start = rows[-1][0] if near else base + max(self.offset_of(base, sequence), 0)
                while True:
                    rows = self.query(_FROM, (start, base + _SHARD, PAGE_RECORDS))
                    ended = len(rows) < PAGE_RECORDS
                    if ended or rows[-1][1] > sequence:
                        break
                    start = rows[-1][0]
                firsts = [first for _, first in rows]
            place = max(bisect_right(firsts, sequence) - 1, 0)
            yield rows[place][0], place < len(rows) - 1

    def rows_of(self, keys: Sequence[int]) -> Iterator[tuple[int, bytes, bytes | None]]:
        """Key, head and tail of the records with these keys, which ascend, in pages of a bounded size."""
        at = 0
        while at < len(keys):
            some = keys[at : at + _KEYS_AT_ONCE]
            query = f"SELECT key, head, tail FROM records WHERE key IN ({','.join('?' * len(some))}) ORDER BY key"  # noqa: S608
            rows, _ = self._bounded(query, tuple(some))
            if not rows:
                return
            yield from rows
            at = bisect_right(keys, rows[-1][0])

    def close(self) -> None:
        """Wait for the call that is under way, and disconnect."""
        with self.lock, contextlib.suppress(sqlite3.Error):
            self.connection.close()

    def fail(self, error: sqlite3.Error) -> NoReturn:
        """Raise the `LogError` for an error of SQLite's, or that the log was closed meanwhile, by another thread."""
        self._check()
        raise translated(error, self._url) from error
