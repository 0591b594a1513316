"""Real disks: full, read-only, limited, failing; and what opening a file leaves behind."""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.log.port import Appended, Unknown
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import LogError, LogFull, LogReadOnly, NotALog, OutcomeUnknown
from ccs_stream.testing.conformance import filled
from ccs_stream.testing.records import Chain
from tests.disks import mounted, read_only


@contextlib.contextmanager
def opened(path: Path, **options: Any) -> Iterator[SqliteLog]:
    """A log that is closed whatever happens, so that its file system can be unmounted."""
    store = SqliteLog(path, **options)
    try:
        yield store
    finally:
        store.close()


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file of the folder: its digest, and when it was written."""
    return {
        each.name: (hashlib.sha256(each.read_bytes()).hexdigest(), each.stat().st_mtime_ns) for each in folder.iterdir()
    }


def append_until_full(store: SqliteLog, chain: Chain, end: int) -> tuple[int, Any]:
    """Append until the disk refuses; the last acknowledged offset, and the draft that was refused."""
    for _ in range(10_000):
        draft = chain.draft(contents=(os.urandom(3_000),))
        try:
            with store.turn("w"):
                assert store.append("w", [draft], end) == Appended(end + 1)
        except LogFull:
            return end, draft
        end += 1
    pytest.fail("the disk never became full")


def test_a_disk_that_is_really_full_refuses_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)):
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(400_000))
        with opened(tmp_path / "log.db") as store:
            chain = filled(store, "w", 1)
            end, refused = append_until_full(store, chain, 1)
            assert end > 50
            assert store.end("w") == end
            with pytest.raises(LogFull):
                store.put_content(bytes(500_000))
            ballast.unlink()
            with store.turn("w"):
                assert store.append("w", [refused], end) == Appended(end + 1)
            reader = ShardReader(store, "w")
            assert sum(1 for _ in reader.read()) == end + 2
            assert reader.position("w").hash == chain.hash
        with opened(tmp_path / "log.db") as again:
            assert again.end("w") == end + 1


def test_a_limit_on_file_sizes_is_an_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    program = """
import os, resource, sys
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import LogError
from ccs_stream.testing.conformance import filled
store = SqliteLog(sys.argv[1])
chain = filled(store, "w", 1)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
end = 1
while True:
    draft = chain.draft(contents=(os.urandom(3_000),))
    try:
        with store.turn("w"):
            store.append("w", [draft], end)
    except LogError as error:
        print(type(error).__name__, error)
        break
    end += 1
assert store.end("w") == end, (store.end("w"), end)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
with store.turn("w"):
    store.append("w", [draft], end)
print(store.end("w") - end)
os._exit(0)  # without closing: what was said to be there is there
"""
    path = tmp_path / "log.db"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    said, more = done.stdout.splitlines()
    assert "limits on the size of files" in said
    assert more == "1"
    with opened(path) as store:
        assert sum(1 for _ in ShardReader(store, "w").read()) == store.end("w") + 1


def test_a_log_on_a_read_only_file_system_is_read_and_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    with opened(folder / "log.db") as store:
        chain = filled(store, "w", 5)
    with read_only(folder):
        before = contents(folder)
        with opened(folder / "log.db", read_only=True) as store:
            reader = ShardReader(store, "w")
            assert sum(1 for _ in reader.read()) == 6
            assert reader.position("w").hash == chain.hash
            assert store.change_mark("w") == store.change_mark("w")
        with pytest.raises(LogReadOnly):
            SqliteLog(folder / "log.db")
        with pytest.raises(LogReadOnly):
            SqliteLog(folder / "new.db")
        assert contents(folder) == before


def test_a_log_that_was_not_closed_on_a_read_only_file_system_is_not_read_without_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    with opened(tmp_path / "log.db") as store:
        filled(store, "w", 5)
        for suffix in ("", "-wal"):  # as a crash leaves them, and no -shm, as in a backup
            shutil.copy(tmp_path / f"log.db{suffix}", folder / f"log.db{suffix}")
    with read_only(folder), pytest.raises(LogReadOnly, match="copy both files"):
        SqliteLog(folder / "log.db", read_only=True)
    with opened(folder / "log.db", read_only=True) as store:
        assert store.end("w") == 5


def test_reading_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        filled(store, "w", 5)
    before = contents(tmp_path)
    with opened(tmp_path / "log.db", read_only=True) as store:
        assert sum(1 for _ in ShardReader(store, "w").read()) == 6
    assert contents(tmp_path) == before


def test_reading_follows_a_writer(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as first:
        chain = filled(first, "w", 1)
    with opened(tmp_path / "log.db", read_only=True) as store:
        mark = store.change_mark("w")
        with opened(tmp_path / "log.db") as writer, writer.turn("w"):
            writer.append("w", [chain.draft()], 1)
        assert store.change_mark("w") != mark
        assert store.end("w") == 2
        assert store.wait("w", 1, 0)


class FailingCursor:
    """A cursor whose next COMMIT fails as a disk makes it fail; what SQLite wrote by then stays hidden or not."""

    def __init__(self, real: sqlite3.Cursor, code: int, *, written: bool) -> None:
        self.real = real
        self.code = code
        self.written = written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        """The same, but for COMMIT."""
        if sql == "COMMIT":
            if self.written:
                self.real.execute("COMMIT")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self.code
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error
        return self.real.execute(sql, *values)


@pytest.mark.parametrize("written", [False, True])
def test_a_disk_that_fails_after_the_frames_were_written_leaves_the_outcome_unknown(
    tmp_path: Path, written: bool
) -> None:
    store = SqliteLog(tmp_path / "log.db")
    chain = filled(store, "w", 2)
    writer = store._for_writing()
    draft = chain.draft()
    for _ in range(2):
        assert writer.cursor is not None
        failing = FailingCursor(writer.cursor, sqlite3.SQLITE_IOERR_FSYNC, written=written)
        writer.cursor = failing  # type: ignore[assignment]
        end = store.end("w")
        if end == 2:
            assert isinstance(store.append("w", [draft], 2), Unknown)
        else:
            with pytest.raises(OutcomeUnknown, match="same number"), store.turn("w"):
                pass
        assert store.end("w") == (3 if written else 2)
        with store.turn("w"):  # by a new connection, as durable as the one before
            connection = store._for_writing().in_turn()
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_disk_that_refuses_the_frames_has_written_nothing(tmp_path: Path) -> None:
    store = SqliteLog(tmp_path / "log.db")
    chain = filled(store, "w", 2)
    writer = store._for_writing()
    real = writer.cursor
    assert real is not None
    writer.cursor = FailingCursor(real, sqlite3.SQLITE_IOERR_WRITE, written=False)  # type: ignore[assignment]
    with pytest.raises(LogError, match="nothing of this call was written"), store.turn("w"):
        store.append("w", [chain.draft()], 2)
    writer.cursor = real
    assert store.end("w") == 2
    store.close()


def test_another_application_s_live_database_is_refused_untouched(tmp_path: Path) -> None:
    theirs = sqlite3.connect(tmp_path / "theirs.db", isolation_level=None)
    theirs.execute("PRAGMA journal_mode = WAL")
    theirs.execute("CREATE TABLE t (x)")
    for name in ("theirs.db", "theirs.db-wal"):
        assert (tmp_path / name).stat().st_size
    before = {name: each for name, each in contents(tmp_path).items() if not name.endswith("-shm")}
    for read in (False, True):
        with pytest.raises(NotALog, match="something else"):
            SqliteLog(tmp_path / "theirs.db", read_only=read)
    assert {name: each for name, each in contents(tmp_path).items() if not name.endswith("-shm")} == before
    theirs.close()


def test_a_database_that_bears_another_application_s_id_is_refused_even_when_empty(tmp_path: Path) -> None:
    theirs = sqlite3.connect(tmp_path / "theirs.db", isolation_level=None)
    theirs.execute("PRAGMA application_id = 4711")
    theirs.execute("VACUUM")
    theirs.close()
    before = contents(tmp_path)
    with pytest.raises(NotALog, match="something else"):
        SqliteLog(tmp_path / "theirs.db")
    assert contents(tmp_path) == before


def test_a_log_whose_first_page_is_still_in_the_wal_is_ours(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        filled(store, "w", 2)
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"log.db{suffix}", tmp_path / f"copy.db{suffix}")
    with opened(tmp_path / "copy.db") as copy:
        assert copy.end("w") == 2


def test_a_folder_is_no_log_and_an_empty_file_becomes_one(tmp_path: Path) -> None:
    with pytest.raises(NotALog, match="not a file"):
        SqliteLog(tmp_path)
    (tmp_path / "log.db").touch()
    with opened(tmp_path / "log.db") as store:
        assert store.end("w") == -1


def test_a_log_without_its_id_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "log.db") as store:
        filled(store, "w", 1)
    raw = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    raw.execute("DELETE FROM meta")
    raw.close()
    with pytest.raises(NotALog, match="no log id"):
        SqliteLog(tmp_path / "log.db")
