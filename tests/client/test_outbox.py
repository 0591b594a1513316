"""The file in which changes wait: what is in it is durable, in order, conditional, bounded, and one process's."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream.client.degraded import outbox_file
from ccs_stream.client.degraded.outbox import (
    DONE_KEPT,
    FOLLOWS_REFUSED,
    Outbox,
    OutboxChange,
    OutboxCounts,
    OutboxFull,
    QueuedChange,
)
from ccs_stream.client.degraded.outbox_file import EntryKind, EntryState
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import (
    Closed,
    ForkedProcess,
    LogError,
    LogFull,
    NewerFormat,
    OutcomeUnknown,
    TooLarge,
    UsageError,
)
from ccs_stream.protocol.ids import Micros, Version, artifact_id

LOG_ID = b"L" * 16
GOLDEN = Path(__file__).parent / "golden" / "outbox-1.sql"


def wanted(key: str = "k", body: bytes | None = b"1", base: int | None = None, **more: Any) -> OutboxChange:
    """A change of one artifact."""
    return OutboxChange(
        scope=("s",),
        key=key,
        content_type=None if body is None else "application/json",
        body=body,
        base_version=None if base is None else Version(base),
        **more,
    )


def opened(path: Path, **options: Any) -> Outbox:
    """The outbox of the workspace `w` of one log."""
    return Outbox(path, **{"log_id": LOG_ID, "workspace": "w", **options})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    outbox = opened(path)
    yield outbox
    outbox.close()


def bodies(outbox: Outbox) -> list[bytes | None]:
    """Of what waits, in order."""
    return [entry.body for entry in outbox.waiting()]


# What is kept.


def test_everything_of_a_change_is_there_after_a_restart_in_order(path: Path) -> None:
    outbox = opened(path, clock=lambda: Micros(7))
    more = {"ttl_us": Micros(5), "index_fields": ("a", "b"), "reason": "because"}
    assert outbox.put("ann", wanted("k", b"1", 3, **more)) == QueuedChange(1, Version(3))
    assert outbox.put("bob", wanted("gone", None, 8, reason="tidy")) == QueuedChange(2, Version(8))
    before, session = outbox.waiting(), outbox.session_id
    outbox.close()
    outbox = opened(path)
    assert outbox.waiting() == before
    assert outbox.session_id == session
    assert len(session) == 16
    first, second = before
    assert (first.agent, first.scope, first.key, first.body) == ("ann", ("s",), "k", b"1")
    assert (first.ttl_us, first.index_fields, first.reason, first.queued_at) == (5, ("a", "b"), "because", 7)
    assert first.artifact == artifact_id("w", ("s",), "k")
    assert (first.kind, second.kind, second.body) == (EntryKind.WRITE, EntryKind.DELETE, None)
    assert [(entry.number, entry.command) for entry in before] == [(1, 2), (2, 4)]
    assert outbox.put("ann", wanted("other")).number == 3
    outbox.close()


def test_a_put_is_synced_before_it_returns(outbox: Outbox) -> None:
    connection = outbox._file.connection
    assert connection is not None
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the write-ahead log, at every commit
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    outbox.put("ann", wanted())
    assert not connection.in_transaction


def test_what_waits_is_found_by_its_artifact(outbox: Outbox) -> None:
    artifact = artifact_id("w", ("s",), "k")
    assert outbox.latest(artifact) is None
    outbox.put("ann", wanted("k", b"1"))
    outbox.put("ann", wanted("other", b"2"))
    outbox.put("ann", wanted("k", b"3"))
    found = outbox.latest(artifact)
    assert found is not None
    assert found.body == b"3"
    outbox.mark_done(1, Version(1))
    outbox.mark_done(3, Version(2))
    assert outbox.latest(artifact) is None


def test_threads_queue_side_by_side(outbox: Outbox, path: Path) -> None:
    numbers: list[int] = []

    def queue(name: str) -> None:
        numbers.extend(outbox.put(name, wanted(f"{name}-{n}")).number for n in range(50))

    threads = [threading.Thread(target=queue, args=(f"a{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 201))
    outbox.close()
    again = opened(path)
    assert [entry.number for entry in again.waiting()] == list(range(1, 201))
    again.close()


# Bases.


def test_an_author_s_next_change_is_conditional_on_the_version_his_first_will_make(outbox: Outbox) -> None:
    assert outbox.put("ann", wanted("k", b"1", 3)).base_version == 3
    assert outbox.put("ann", wanted("k", b"2", 3)).base_version == 4
    assert outbox.put("ann", wanted("k", None, 3)).base_version == 5
    assert outbox.put("ann", wanted("k", b"4", 3)).base_version == 6
    assert outbox.put("ann", wanted("new", None, 0)).base_version == 0
    assert outbox.put("ann", wanted("new", b"1", 0)).base_version == 0  # nothing was there to delete


def test_a_change_of_somebody_else_is_followed_only_by_who_has_seen_it(outbox: Outbox) -> None:
    first = outbox.put("ann", wanted("k", b"1", 3))
    assert outbox.put("bob", wanted("k", b"2", 3)).base_version == 3
    assert outbox.put("eve", wanted("k", b"3", 3), seen=first.number).base_version == 4
    assert outbox.put("ann", wanted("k", b"4", 3)).base_version == 4  # on her own, not on what she has not seen
    assert [entry.follows for entry in outbox.waiting()] == [None, None, 1, 1]
    outbox.mark_done(1, Version(9))
    assert outbox.put("cyd", wanted("k", b"5", 3), seen=1).base_version == 9  # it is in the log meanwhile


def test_the_version_a_change_really_made_becomes_the_base_of_what_follows_it(outbox: Outbox, path: Path) -> None:
    outbox.put("ann", wanted("k", b"1", None))
    outbox.put("ann", wanted("k", b"2", None))
    outbox.mark_done(1, Version(6))  # over a tombstone nobody here had seen
    outbox.close()
    again = opened(path)
    (entry,) = again.waiting()
    assert entry.base_version == 6
    again.mark_done(2, Version(7))
    again.close()


def test_what_follows_a_refused_change_is_refused_with_it_and_nothing_else(outbox: Outbox, path: Path) -> None:
    outbox.put("ann", wanted("k", b"1", 3))
    outbox.put("bob", wanted("k", b"2", 3))
    outbox.put("ann", wanted("k", b"3", 3))
    outbox.put("ann", wanted("other", b"4", 3))
    outbox.put("ann", wanted("k", b"5", 3))
    assert outbox.mark_refused(1, EntryState.CONFLICT, "version_conflict", "why", Version(4)) == [1, 3, 5]
    outbox.close()
    again = opened(path)
    assert bodies(again) == [b"2", b"4"]
    conflicts = again.conflicts()
    assert [entry.body for entry in conflicts] == [b"1", b"3", b"5"]
    assert [entry.outcome for entry in conflicts] == ["version_conflict", FOLLOWS_REFUSED, FOLLOWS_REFUSED]
    assert [entry.version for entry in conflicts] == [4, 4, 4]
    assert conflicts[0].detail == "why"
    assert all(entry.settled_at for entry in conflicts)
    again.close()


# What became of changes.


def test_a_done_change_gives_its_body_up_and_a_refused_one_keeps_it_until_it_is_resolved(outbox: Outbox) -> None:
    outbox.put("ann", wanted("a", b"x" * 1_000))
    outbox.put("ann", wanted("b", b"x" * 1_000))
    held = outbox.counts.bytes
    assert held > 2_000
    outbox.mark_done(1, Version(1))
    assert outbox.counts == OutboxCounts(waiting=1, conflicts=0, done=1, bytes=held // 2)
    outbox.mark_refused(2, EntryState.FAILED, "content_too_large", "why", None)
    assert outbox.counts == OutboxCounts(waiting=0, conflicts=1, done=1, bytes=held // 2)
    assert outbox.is_empty
    outbox.resolve(2)
    assert outbox.counts == OutboxCounts(waiting=0, conflicts=0, done=1, bytes=0)
    done = outbox.entry(1)
    assert done is not None
    assert (done.state, done.version, done.body) == (EntryState.DONE, 1, None)
    for number in (1, 2, 99):
        with pytest.raises(UsageError, match=f"change {number} "):
            outbox.resolve(number)
    with pytest.raises(UsageError, match="does not wait"):
        outbox.mark_done(1, Version(1))


def test_only_so_many_done_changes_are_named(outbox: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DONE_KEPT > 100
    monkeypatch.setattr("ccs_stream.client.degraded.outbox.DONE_KEPT", 3)
    for number in range(1, 9):
        outbox.put("ann", wanted())
        outbox.mark_done(number, Version(number))
    assert [number for number in range(1, 9) if outbox.entry(number)] == [6, 7, 8]
    outbox.close()
    again = opened(path)
    assert again.counts.done == 8
    again.close()


def test_numbers_are_never_given_twice(outbox: Outbox, path: Path) -> None:
    outbox.put("ann", wanted())
    assert outbox.renumber(1).command == 4
    assert outbox.waiting()[0].command == 4
    old = outbox.session_id
    outbox.use_session()
    assert outbox.new_session(old) == 6
    assert outbox.session_id != old
    assert not outbox.session_used
    present = outbox.session_id
    outbox.use_session()
    assert outbox.new_session(old) == 8  # somebody did it already
    assert (outbox.session_id, outbox.session_used) == (present, True)
    outbox.close()
    again = opened(path)
    assert (again.session_id, again.session_used) == (present, True)
    assert again.put("ann", wanted("other")).number == 5
    again.close()


def test_an_outbox_is_bounded_and_says_so(path: Path) -> None:
    outbox = opened(path, entries_max=2, bytes_max=3_000)
    outbox.put("ann", wanted("a", b"x" * 1_500))
    with pytest.raises(OutboxFull, match="at most 2 changes of 3000 bytes") as full:
        outbox.put("ann", wanted("b", b"x" * 1_500))
    assert isinstance(full.value, TooLarge)
    assert full.value.reason == "outbox_full"
    outbox.put("ann", wanted("b", b"x"))
    with pytest.raises(OutboxFull, match="not taken"):
        outbox.put("ann", wanted("c", b"x"))
    outbox.mark_refused(1, EntryState.CONFLICT, "version_conflict", "why", None)
    with pytest.raises(OutboxFull, match="1 waiting and 1 refused"):
        outbox.put("ann", wanted("c", b"x"))
    outbox.resolve(1)
    outbox.put("ann", wanted("c", b"x"))
    assert bodies(outbox) == [b"x", b"x"]
    outbox.close()
    for wrong in ({"entries_max": 0}, {"bytes_max": 0}):
        with pytest.raises(UsageError, match="at least one"):
            opened(path, **wrong)


@pytest.mark.parametrize(
    ("agent", "change"),
    [
        ("\ud800", wanted()),
        ("ann", wanted("\ud800")),
        ("ann", OutboxChange(scope=("\ud800",), key="k", content_type=None, body=None, base_version=None)),
        ("ann", OutboxChange(scope=(), key="k", content_type=None, body=b"1", base_version=None)),
        ("ann", OutboxChange(scope=(), key="k", content_type="t", body=None, base_version=None)),
    ],
)
def test_what_could_never_be_sent_is_not_taken(outbox: Outbox, agent: str, change: OutboxChange) -> None:
    with pytest.raises(UsageError):
        outbox.put(agent, change)
    assert outbox.is_empty


# Whose file it is.


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_of_something_else_are_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("notes\n" * 500)
    (tmp_path / "short").write_text("x")
    theirs = sqlite3.connect(tmp_path / "theirs.db")
    theirs.execute("CREATE TABLE t (x)")
    theirs.commit()
    theirs.close()
    SqliteLog(tmp_path / "log.db").close()
    for name in ("text", "short", "theirs.db", "log.db"):
        before = digest(tmp_path / name)
        with pytest.raises(UsageError, match="name another"):
            opened(tmp_path / name)
        assert digest(tmp_path / name) == before
    (tmp_path / "folder").mkdir()
    for name in ("folder", "nowhere/outbox.db"):
        with pytest.raises(UsageError, match="name another"):
            opened(tmp_path / name)


def test_a_log_that_is_in_use_is_refused_as_its_own_outbox(tmp_path: Path) -> None:
    store = SqliteLog(tmp_path / "log.db")
    with pytest.raises(UsageError, match="name another"):
        opened(tmp_path / "log.db")
    with store.turn("w"):
        pass
    store.close()


def test_a_file_of_another_log_or_workspace_is_refused(outbox: Outbox, path: Path) -> None:
    outbox.put("ann", wanted())
    outbox.close()
    with pytest.raises(UsageError, match="another log"):
        opened(path, log_id=b"M" * 16)
    with pytest.raises(UsageError, match="the workspace 'w', not of 'x'"):
        opened(path, workspace="x")
    again = opened(path)
    assert bodies(again) == [b"1"]
    again.close()


def test_a_file_of_a_later_release_is_refused(outbox: Outbox, path: Path) -> None:
    outbox.close()
    later = sqlite3.connect(path, isolation_level=None)
    later.execute("PRAGMA user_version = 2")
    later.close()
    with pytest.raises(NewerFormat, match="format 2"):
        opened(path)


def test_one_outbox_at_a_time_in_one_process(outbox: Outbox, path: Path) -> None:
    with pytest.raises(UsageError, match="in use"):
        opened(path)
    outbox.put("ann", wanted())
    outbox.close()
    opened(path).close()


HOLDER = """
import signal, sys, time
from ccs_stream.client.degraded.outbox import Outbox, OutboxChange
outbox = Outbox(sys.argv[1], log_id=b"L" * 16, workspace="w")
outbox.put("ann", OutboxChange(scope=("s",), key="k", content_type="t", body=b"theirs", base_version=None))
print("holding", flush=True)
time.sleep(600)
"""


def test_another_process_keeps_it_and_a_killed_one_does_not(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holding\n"
    with pytest.raises(UsageError, match="in use"):
        opened(path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    outbox = opened(path)
    assert bodies(outbox) == [b"theirs"]
    outbox.close()


FORKING = """
import os, sys
from ccs_stream.client.degraded.outbox import Outbox, OutboxChange
from ccs_stream.protocol.errors import ForkedProcess
outbox = Outbox(sys.argv[1], log_id=b"L" * 16, workspace="w")
def put(body):
    outbox.put("ann", OutboxChange(scope=("s",), key=body.decode(), content_type="t", body=body, base_version=None))
put(b"before")
child = os.fork()
if child == 0:
    try:
        put(b"child")
    except ForkedProcess:
        outbox.close()
        del outbox
        sys.exit(0)  # with everything that an interpreter tidies up when it ends
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
put(b"after")
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_that_ends_takes_nothing_from_its_parent(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, path], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    outbox = opened(path)
    assert bodies(outbox) == [b"before", b"after"]
    outbox.close()


def test_a_child_is_refused_even_where_the_parent_was_busy(outbox: Outbox) -> None:
    with outbox._lock:
        child = os.fork()
        if child == 0:
            try:
                outbox.put("ann", wanted())
            except ForkedProcess:
                os._exit(0)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_outbox_is_closed(outbox: Outbox) -> None:
    outbox.close()
    outbox.close()
    with pytest.raises(Closed):
        outbox.put("ann", wanted())


# Disks.


def test_a_full_disk_takes_nothing_and_goes_on_when_there_is_room(outbox: Outbox, path: Path) -> None:
    outbox.put("ann", wanted("a", b"1"))
    connection = outbox._file.connection
    assert connection is not None
    limit = connection.execute("PRAGMA max_page_count").fetchone()[0]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogFull, match="outbox="):
        outbox.put("ann", wanted("b", b"x" * 100_000))
    assert outbox.counts.waiting == 1
    connection.execute(f"PRAGMA max_page_count = {limit}")
    outbox.put("ann", wanted("c", b"2"))
    outbox.close()
    again = opened(path)
    assert bodies(again) == [b"1", b"2"]
    again.close()


class Failing:
    """A connection whose next COMMIT fails; what it was to make durable is there or not."""

    def __init__(self, real: sqlite3.Connection, code: int, *, written: bool) -> None:
        self._real = real
        self._code = code
        self._written = written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql != "COMMIT":
            return self._real.execute(sql, *values)
        if self._written:
            self._real.execute("COMMIT")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = self._code, "SQLITE_IOERR"
        raise error


@pytest.mark.parametrize("written", [False, True])
def test_a_disk_that_fails_at_the_end_leaves_the_outcome_unknown_and_the_file_tells(
    outbox: Outbox, path: Path, written: bool
) -> None:
    outbox.put("ann", wanted("a", b"1"))
    real = outbox._file.connection
    assert real is not None
    outbox._file.connection = Failing(real, sqlite3.SQLITE_IOERR_FSYNC, written=written)  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown, match="look at what is waiting"):
        outbox.put("ann", wanted("b", b"2"))
    expected = [b"1", b"2"] if written else [b"1"]
    assert bodies(outbox) == expected
    assert outbox.counts.waiting == len(expected)
    outbox.put("ann", wanted("c", b"3"))
    outbox.close()
    again = opened(path)
    assert bodies(again) == [*expected, b"3"]
    again.close()


def test_a_disk_that_refuses_before_the_end_has_kept_nothing(outbox: Outbox) -> None:
    real = outbox._file.connection
    assert real is not None
    outbox._file.connection = Failing(real, sqlite3.SQLITE_IOERR_WRITE, written=False)  # type: ignore[assignment]
    with pytest.raises(LogError, match="nothing of this call was written"):
        outbox.put("ann", wanted())
    outbox._file.connection = real
    assert outbox.is_empty
    assert outbox.put("ann", wanted()).number == 1


# The format.


def of_golden(path: Path) -> None:
    """The golden file, made of its dump."""
    connection = sqlite3.connect(path)
    connection.executescript(GOLDEN.read_text(encoding="utf-8"))
    connection.close()


def test_a_file_of_format_1_opens_for_ever(path: Path) -> None:
    of_golden(path)
    outbox = opened(path)
    assert outbox.session_id == bytes(range(16))
    assert outbox.session_used
    assert outbox.counts.waiting == 3
    assert outbox.counts.conflicts == 3
    assert outbox.counts.done == 1
    step, note, erase = outbox.waiting()
    assert (step.number, step.command, step.follows, step.base_version) == (2, 16, 1, 4)
    assert (step.agent, step.scope, step.key) == ("ann", ("team", "a:b"), "plan")
    assert (step.body, step.content_type, step.queued_at) == (b'{"step":2}', "application/json", 1_700_000_001_000_000)
    assert step.artifact == artifact_id("w", ("team", "a:b"), "plan")
    assert (note.ttl_us, note.index_fields, note.reason, note.base_version) == (60_000_000, ("text",), "because", None)
    assert (erase.kind, erase.follows, erase.reason) == (EntryKind.DELETE, 3, "tidy")
    conflict, after, failed = outbox.conflicts()
    assert (conflict.agent, conflict.state, conflict.outcome, conflict.version) == (
        "zoë",
        EntryState.CONFLICT,
        "version_conflict",
        2,
    )
    assert (after.state, after.outcome, after.body) == (EntryState.CONFLICT, "follows_refused", b"[1]")
    assert (failed.state, failed.outcome) == (EntryState.FAILED, "content_too_large")
    done = outbox.entry(1)
    assert done is not None
    assert (done.state, done.version) == (EntryState.DONE, 4)
    assert outbox.put("ann", wanted()).number == 9
    outbox.close()


def test_what_is_made_today_has_the_tables_of_its_format(outbox: Outbox, path: Path, tmp_path: Path) -> None:
    outbox.close()
    of_golden(tmp_path / "golden.db")
    assert outbox_file.FILE_FORMAT == 1  # with another: a golden file of its own
    found = []
    for each in (path, tmp_path / "golden.db"):
        connection = sqlite3.connect(each)
        tables = sorted(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        names = sorted(row[0] for row in connection.execute("SELECT name FROM meta"))
        pragmas = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
        found.append((tables, names, pragmas))
        connection.close()
    assert found[0] == found[1]
