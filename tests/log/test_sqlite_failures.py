"""What can be wrong with a file, and what is then said and left alone."""

import hashlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream import UsageError
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.log.port import Appended
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import (
    CcsError,
    Closed,
    CorruptRecord,
    ForkedProcess,
    LogBusy,
    LogDiverged,
    LogFull,
    LogMissing,
    LogReadOnly,
    MissingHead,
    NewerFormat,
    NotALog,
)
from ccs_stream.testing.conformance import filled
from ccs_stream.testing.records import Chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with five decisions."""
    store = SqliteLog(tmp_path / "log.db")
    filled(store, "w", 5)
    store.close()
    return tmp_path / "log.db"


@pytest.fixture
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The same file, without us."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


def digest(path: Path) -> str:
    """What the file holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def writing(store: SqliteLog) -> sqlite3.Connection:
    """The connection that writes: limits are its own, and root ignores those of the file system."""
    connection = store._for_writing().connection
    assert connection is not None
    return connection


def test_a_log_that_is_locked_for_long_is_a_clear_error_and_nothing_is_written(
    path: Path, raw: sqlite3.Connection
) -> None:
    store = SqliteLog(path, busy_timeout_s=0.05)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogBusy, match="kept the log locked") as caught, store.turn("w"):
        pass
    assert caught.value.retryable
    assert store.end("w") == 5  # reading goes on
    raw.execute("ROLLBACK")
    with store.turn("w"):
        pass
    store.close()


def test_a_turn_waits_for_another_process_s_turn(path: Path, raw: sqlite3.Connection) -> None:
    store = SqliteLog(path)
    raw.execute("BEGIN IMMEDIATE")
    entered = threading.Event()

    def wait() -> None:
        with store.turn("w"):
            entered.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not entered.wait(0.05)
    raw.execute("ROLLBACK")
    assert entered.wait(30)
    waiter.join()
    store.close()


def test_a_full_disk_is_a_clear_error_and_nothing_is_half_written(path: Path) -> None:
    store = SqliteLog(path)
    writer = writing(store)
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    chain = Chain("w")
    for _ in range(5):
        chain.draft()
    large = [chain.draft(contents=(b"x" * 20_000,)) for _ in range(3)]
    with pytest.raises(LogFull, match="nothing was written"), store.turn("w"):
        store.append("w", large, 5)
    assert store.end("w") == 5
    writer.execute(f"PRAGMA max_page_count = {pages + 1_000}")
    with store.turn("w"):
        assert store.append("w", large, 5) == Appended(8)
    assert sum(1 for _ in store.read("w", -1)) == 9
    store.close()


def test_a_full_disk_fails_the_write_of_an_agent_and_the_next_one_is_served(tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db")
    agent = workspace.agent("a")
    agent.write("k", "small")
    before = workspace.state_hash()
    store = workspace.engine.coordinator.store
    assert isinstance(store, SqliteLog)
    writer = writing(store)
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogFull):
        agent.write("k", "x" * 60_000)
    with pytest.raises(LogFull):
        agent.write("k", "x" * 600_000)  # by way of the content store
    assert workspace.state_hash() == before
    reading = agent.read("k")
    assert reading is not None
    assert reading.value == "small"
    writer.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    assert agent.write("k", "x" * 600_000).version == 2
    workspace.close()


def test_a_read_only_log_is_read_and_refuses_to_be_written(path: Path) -> None:
    before = digest(path)
    store = SqliteLog(path, read_only=True)
    assert sum(1 for _ in ShardReader(store, "w").read()) == 6
    with pytest.raises(LogReadOnly, match="read-only"), store.turn("w"):
        pass
    store.close()
    assert digest(path) == before


def test_a_file_that_may_not_be_written_is_a_clear_error(path: Path) -> None:
    store = SqliteLog(path)
    writing(store).execute("PRAGMA query_only = 1")
    chain = Chain("w")
    for _ in range(5):
        chain.draft()
    with pytest.raises(LogReadOnly), store.turn("w"):
        store.append("w", [chain.draft()], 5)
    assert store.end("w") == 5
    store.close()


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    for written in ("x", "shopping list\n" * 100):
        text.write_text(written)
        for read_only in (False, True):
            with pytest.raises(NotALog):
                SqliteLog(text, read_only=read_only)
        assert text.read_text() == written
    assert list(tmp_path.iterdir()) == [text]


def test_another_application_s_database_is_refused_untouched(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    connection = sqlite3.connect(theirs)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    before = digest(theirs)
    for read_only in (False, True):
        with pytest.raises(NotALog, match="something else"):
            SqliteLog(theirs, read_only=read_only)
    assert digest(theirs) == before
    assert not Path(f"{theirs}-wal").exists()


def test_a_newer_format_is_refused(path: Path, raw: sqlite3.Connection) -> None:
    raw.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerFormat, match="upgrade"):
        SqliteLog(path)


def test_a_missing_file_is_created_only_where_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(LogMissing):
        open_log(f"sqlite:///{tmp_path}/absent.db", create=False)
    with pytest.raises(LogMissing):
        open_log(f"sqlite:///{tmp_path}/absent.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LogReadOnly, match="folder"):
        open_log(f"sqlite:///{tmp_path}/no/such/folder/log.db")


def test_a_truncated_log_that_validates_head(path: Path, raw: sqlite3.Connection) -> None:
    raw.execute("DELETE FROM records WHERE key = (SELECT min(key) FROM records)")
    with pytest.raises(MissingHead):
        list(ShardReader(SqliteLog(path, read_only=True), "w").read())
    with pytest.raises(MissingHead):
        ccs_stream.connect(f"sqlite:///{path}", workspace="w")


def test_a_log_without_any_record_is_no_empty_log(path: Path, raw: sqlite3.Connection) -> None:
    raw.execute("DELETE FROM records")
    with pytest.raises(MissingHead):
        ccs_stream.connect(f"sqlite:///{path}", workspace="w")


def test_a_truncated_log_that_validates_tail(tmp_path: Path) -> None:
    """A copy made without its -wal is a valid, older log: a known position tells."""
    path = tmp_path / "log.db"
    workspace = ccs_stream.connect(f"sqlite:///{path}")
    agent = workspace.agent("a")
    for number in range(19):
        agent.write("k", number)
    token = str(agent.write("k", 19).position)
    shutil.copy(path, tmp_path / "copy.db")  # while the -wal holds the end
    workspace.close()
    older = ccs_stream.connect(f"sqlite:///{tmp_path}/copy.db")
    with pytest.raises(LogDiverged):
        older.agent("b").read("k", at_least=token)
    older.close()


def test_a_snapshot_beyond_the_end_is_not_used(path: Path, raw: sqlite3.Connection) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{path.parent}/s.db")
    workspace.agent("a").write("k", 1)
    assert isinstance(workspace.coordinator, LocalCoordinator)
    workspace.coordinator._save_snapshot(0)  # now, rather than after thousands of decisions
    position = workspace.position
    workspace.close()
    cut = sqlite3.connect(path.parent / "s.db")
    cut.execute("DELETE FROM records WHERE key & 0xffffffff >= ?", (position.offset,))
    cut.commit()
    cut.close()
    again = ccs_stream.connect(f"sqlite:///{path.parent}/s.db")
    assert again.position.sequence < position.sequence
    assert again.as_of(again.position).state_hash() == again.state_hash()
    again.close()


def test_an_altered_record_stops_the_reader(path: Path, raw: sqlite3.Connection) -> None:
    key, head = raw.execute("SELECT key, head FROM records ORDER BY key LIMIT 1 OFFSET 2").fetchone()
    altered = bytearray(head)
    altered[40] ^= 1  # inside the envelope, so that it still decodes
    raw.execute("UPDATE records SET head = ? WHERE key = ?", (bytes(altered), key))
    with pytest.raises((LogDiverged, CorruptRecord)):
        list(ShardReader(SqliteLog(path, read_only=True), "w").read())


def test_a_database_with_a_damaged_page_is_said_to_be_damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data)):
        data[at] = 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(CcsError, match=r"damaged|not a SQLite file"):
        SqliteLog(path)


def test_a_forked_child_is_refused(path: Path) -> None:
    store = SqliteLog(path)
    child = os.fork()
    if child == 0:  # pragma: no cover  # in the child
        try:
            store.end("w")
        except ForkedProcess:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert store.end("w") == 5
    store.close()


def test_a_workspace_is_refused_in_a_forked_child(tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db")
    agent = workspace.agent("a")
    agent.write("k", 1)
    child = os.fork()
    if child == 0:  # pragma: no cover  # in the child
        refused = 0
        for call in (lambda: agent.write("k", 2), lambda: agent.read("k"), workspace.state_hash):
            try:
                call()
            except ForkedProcess:
                refused += 1
        os._exit(refused)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert agent.write("k", 3).version == 2
    workspace.close()


def test_a_closed_log_raises(path: Path) -> None:
    store = SqliteLog(path)
    store.close()
    for call in (lambda: store.end("w"), lambda: store.change_mark("w"), lambda: store.put_content(b"x")):
        with pytest.raises(Closed):
            call()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x.db?synchronus=full", "did you mean 'synchronous'"),
        ("sqlite:///x.db?synchronous=off", "'full'"),
        ("sqlite:///x.db?busy_timeout_s=soon", "no number"),
        ("sqlite://x.db", "names no file"),
        ("sqlit:///x.db", "did you mean 'sqlite'"),
        ("team.db", "is no URL"),
        ("postgres://me:secret@localhost/db", "known: memory, sqlite, file, kafka"),
    ],
)
def test_an_unknown_url_is_explained(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_log(url)
