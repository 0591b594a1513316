"""The uploads of a SQLite log that no decision names, and how they are freed.

A body too large for its decision is put into the file before the decision is made. A process that ends between the two
leaves a body that nobody will ever read. `SqliteLog` holds one collector for each file.

Guarantees: a body is freed only when every decision that may name it is in the log, and none does. Does not: free
bodies of the past; those are named.

How: marks. A mark is the last upload and the ends of all shards at one moment. Once the grace time has passed after a
mark, whatever was uploaded before it is named by now, or never will be, because a later decision is refused
(`content_too_old`). The next collection then reads the records since the mark before, frees what they do not name, and
sets a new mark. Numbers of uploads are not used again, so that none is mistaken for an older one.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.sqlite_reader import SqliteReader
from ccs_stream.log.sqlite_schema import SHARD_BITS
from ccs_stream.protocol.events import WorkspaceOpened, WriteCommitted
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import SECOND_US
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.settings import DEFAULT_SETTINGS

MARGIN_US: Final = 60 * SECOND_US
"""Beyond the grace time, which begins a moment after an upload: at most the grace time once more."""
INSERT: Final = (
    "INSERT INTO contents (id, body) SELECT max(coalesce((SELECT max(id) FROM contents), 0), "
    "coalesce((SELECT value FROM meta WHERE name = 'last upload marked'), 0)) + 1, ?"
)
"""Adds a body under a number above all that were used before the last mark."""
_MARK: Final = "uploads"
_SET: Final = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

InTurn = Callable[[Callable[[sqlite3.Cursor], Any]], Any]


class UploadCollector:
    """See the module's docstring. `in_turn` calls a function in a turn of the file."""

    def __init__(
        self,
        reader: Callable[[], SqliteReader],
        in_turn: InTurn,
        heads: Callable[[str, int, int], Iterator[bytes]],
    ) -> None:
        """`heads` yields the heads of a shard's records behind one offset, to another."""
        self._reader = reader
        self._in_turn = in_turn
        self._heads = heads

    def collect(self, now: Micros, records_max: int | None = None) -> int:
        """Free what may be freed at `now`; returns how many bodies. Sets the first mark where there is none.

        Does nothing where that takes reading more than `records_max` records.
        """
        stored = self._stored()
        if stored is None:
            if self._reader().query("SELECT 1 FROM contents LIMIT 1"):
                self._in_turn(lambda cursor: _set_mark(cursor, None, None, now))
            return 0
        mark = json.loads(stored)
        grace = self._grace()
        if not mark["at"] + grace + min(grace, MARGIN_US) < now:
            return 0
        if records_max is not None and sum(mark["ends"].values()) - sum(mark["began"].values()) > records_max:
            return 0
        named = self._named(mark["began"])
        freed = 0

        def free(cursor: sqlite3.Cursor) -> None:
            nonlocal freed
            row = cursor.execute("SELECT value FROM meta WHERE name = ?", (_MARK,)).fetchone()
            if row is None or row[0] != stored:
                return  # another process was faster
            rows = cursor.execute("SELECT id FROM contents WHERE id > ? AND id <= ?", (mark["from"], mark["to"]))
            unnamed = [each for (each,) in rows.fetchall() if each not in named]
            cursor.executemany("DELETE FROM contents WHERE id = ?", [(each,) for each in unnamed])
            freed = len(unnamed)
            _set_mark(cursor, mark["to"], mark["ends"], now)

        self._in_turn(free)
        return freed

    def _stored(self) -> str | None:
        rows = self._reader().query("SELECT value FROM meta WHERE name = ?", (_MARK,))
        return rows[0][0] if rows else None

    def _shards(self) -> list[str]:
        return [name for (name,) in self._reader().query("SELECT name FROM shards")]

    def _grace(self) -> int:
        """The longest grace time of the workspaces of this file."""
        longest = 0
        for shard in self._shards():
            for head in self._heads(shard, 0, 1):
                record, _ = DEFAULT_CODEC.decode_record(head)
                event = DEFAULT_CODEC.decode_event(record.events[0]) if type(record) is DecisionRecord else None
                if type(event) is WorkspaceOpened:
                    longest = max(longest, event.content_grace_us)
        return longest or DEFAULT_SETTINGS.content_grace_us

    def _named(self, began: dict[str, int]) -> set[int]:
        """The uploads that decisions name, of those behind these ends."""
        found: set[int] = set()
        for shard in self._shards():
            for head in self._heads(shard, began.get(shard, -1), -1):
                record, _ = DEFAULT_CODEC.decode_record(head)
                for raw in record.events if type(record) is DecisionRecord else ():
                    event = DEFAULT_CODEC.decode_event(raw)
                    if type(event) is WriteCommitted and (event.content_locator or b"").isdigit():
                        found.add(int(event.content_locator or b""))
        return found


def _set_mark(cursor: sqlite3.Cursor, begins: int | None, began: dict[str, int] | None, now: Micros) -> None:
    last = cursor.execute("SELECT max(id) FROM contents").fetchone()[0] or 0
    marked = cursor.execute("SELECT value FROM meta WHERE name = 'last upload marked'").fetchone()
    last = max(last, int(marked[0]) if marked else 0)
    ends: dict[str, int] = {}
    for number, name in cursor.execute("SELECT id, name FROM shards").fetchall():
        base = number << SHARD_BITS
        key = cursor.execute(
            "SELECT max(key) FROM records WHERE key >= ? AND key < ?", (base, base + (1 << SHARD_BITS))
        )
        ends[name] = (key.fetchone()[0] or base) - base
    mark = {"from": begins or 0, "to": last, "at": now, "began": began or {}, "ends": ends}
    cursor.execute(_SET, (_MARK, json.dumps(mark)))
    cursor.execute(_SET, ("last upload marked", last))
