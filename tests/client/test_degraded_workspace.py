"""Workspaces and stores while their log is taken away in the middle of a run, and when it comes back."""

import contextlib
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import CoherenceDegradedWarning, Put, UsageError
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore, StoreMetricEvent
from ccs_stream.log.sqlite_writer import SqliteWriter
from ccs_stream.protocol.errors import LogBusy, LogError, LogUnavailable, VersionConflict
from tests.disks import mounted
from tests.waiting import until

Away = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes, where one can be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)):
        yield folder


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the log is: on a small disk for the tests that fill it."""
    filled = "away" in request.fixturenames and request.node.callspec.params.get("away") == "full"
    folder: Path = request.getfixturevalue("disk") if filled else tmp_path
    return folder / "log.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}?busy_timeout_s=0.05"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process has the turn, and does not give it up."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield
    finally:
        holder.communicate("done\n")


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """The disk has no room left."""
    ballast = path.parent / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """SQLite is told that it may not write, by the connection of whoever has the turn."""
    del path
    begin = SqliteWriter.begin

    def begin_to_read(self: SqliteWriter) -> None:
        begin(self)
        self.in_turn().execute("PRAGMA query_only = ON")

    def restored(self: SqliteWriter) -> None:
        if self.connection is not None:
            self.connection.execute("PRAGMA query_only = OFF")
        begin(self)

    SqliteWriter.begin = begin_to_read  # type: ignore[method-assign]
    try:
        yield
    finally:
        SqliteWriter.begin = restored  # type: ignore[method-assign]


@pytest.fixture(params=["locked", "full", "read-only"])
def away(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Away:
    """Takes the log away: nothing can be appended inside the block."""
    monkeypatch.setattr(SqliteWriter, "begin", SqliteWriter.begin)  # put back at the end, whatever happens
    take = {"locked": locked, "full": full, "read-only": unwritable}[request.param]
    return lambda: take(path)


def test_reads_come_from_what_is_known_here_and_are_marked(url: str, away: Away) -> None:
    with ccs_stream.connect(url, on_error="degrade") as workspace:
        a, b = workspace.agent("a"), workspace.agent("b")
        a.write("k", {"n": 1})
        b.read("k")
        with away():
            with (
                pytest.warns(CoherenceDegradedWarning, match="writes are refused"),
                pytest.raises(LogError, match="outbox=PATH"),
            ):
                a.write("k", {"n": 2})
            assert workspace.is_degraded
            reading = b.read("k")
            assert reading is not None
            assert (reading.value, reading.version, reading.stale) == ({"n": 1}, 1, True)
            assert b.read("never there") is None
            newcomer = workspace.agent("new").read("k")
            assert newcomer is not None
            assert newcomer.stale
            assert [each and each.stale for each in workspace.read_all(["k", "none"], agent="b")] == [True, None]
            assert workspace.stale
            assert workspace.degradation_count >= 1
        until("the mode is normal again", lambda: not workspace.is_degraded)
        a.write("k", {"n": 3})
        reading = b.read("k")
        assert reading is not None
        assert (reading.value, reading.stale) == ({"n": 3}, False)


def test_it_is_warned_of_once(url: str, away: Away) -> None:
    with ccs_stream.connect(url, on_error="degrade") as workspace:
        a = workspace.agent("a")
        a.write("k", 1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(2):
                with away():
                    for _ in range(3):
                        with pytest.raises(LogError):
                            a.write("k", 2)
                until("the mode is normal again", lambda: not workspace.is_degraded)
        assert [each.category for each in said].count(CoherenceDegradedWarning) == 1
        assert workspace.degradation_count >= 2


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_with_an_outbox_writes_wait_and_are_read_by_all_of_this_process(url: str, away: Away, tmp_path: Path) -> None:
    with ccs_stream.connect(url, on_error="degrade", outbox=tmp_path / "outbox.db") as workspace:
        a, b = workspace.agent("a"), workspace.agent("b")
        a.write("k", 1)
        b.read("k")
        with away():
            written = a.write("k", 2)
            assert (written.version, written.queued) == (None, 1)
            assert a.write("new", "x").queued == 2
            assert a.write("k", 3).queued == 3
            assert a.delete("new").queued == 4
            for agent in (a, b):
                reading = agent.read("k")
                assert reading is not None
                assert (reading.value, reading.version, reading.stale) == (3, 1, True)
                assert agent.read("new") is None
            with pytest.raises(LogUnavailable, match="one by one"):
                workspace.write_all([Put("x", 1), Put("y", 2)], agent="a")
        until("the outbox is empty", lambda: not workspace.is_degraded)
        reading = b.read("k")
        assert reading is not None
        assert (reading.value, reading.version, reading.stale) == (3, 3, False)
        assert [change.value for change in a.history("k")] == [3, 2, 1]
        assert [change.kind for change in a.history("new")] == ["deleted", "written"]
        assert workspace.outbox is not None
        assert (workspace.outbox.counts.done, workspace.outbox.conflicts()) == (4, [])


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_what_another_wrote_meanwhile_is_a_conflict_and_is_kept(url: str, path: Path, tmp_path: Path) -> None:
    with ccs_stream.connect(url, on_error="degrade", outbox=tmp_path / "outbox.db") as workspace:
        a = workspace.agent("a")
        a.write("k", "base")
        a.write("alone", 0)
        with locked(path):
            a.write("k", "mine")
            a.write("k", "mine, too")
            a.write("alone", 1)
        # Now, or after the outbox was replayed: whoever has the log writes at once.
        with ccs_stream.connect(f"sqlite:///{path}") as elsewhere, contextlib.suppress(VersionConflict):
            elsewhere.agent("b").compare_and_set("k", "theirs", expected=1)
        until("the outbox is empty", lambda: not workspace.is_degraded)
        assert workspace.outbox is not None
        reading = a.read("k")
        assert reading is not None
        refused = workspace.outbox.conflicts()
        if reading.value == "theirs":
            assert [(each.key, each.outcome) for each in refused] == [
                ("k", "version_conflict"),
                ("k", "follows_refused"),
            ]
            assert refused[0].body == b'"mine"'
            for each in refused:
                workspace.outbox.resolve(each.number)
            assert workspace.outbox.conflicts() == []
        else:
            assert reading.value == "mine, too"  # the replay was faster
            assert refused == []
        assert [change.value for change in a.history("alone")] == [1, 0]


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_whoever_saw_a_waiting_change_follows_it_and_whoever_did_not_meets_it(
    url: str, path: Path, tmp_path: Path
) -> None:
    with ccs_stream.connect(url, on_error="degrade", outbox=tmp_path / "outbox.db") as workspace:
        a, b, c = (workspace.agent(name) for name in "abc")
        a.write("k", "base")
        with locked(path):
            a.write("k", "by a")
            reading = b.read("k")
            assert reading is not None
            assert reading.value == "by a"
            b.write("k", "by b, who saw it")
            c.write("k", "by c, who saw nothing")
        until("the outbox is empty", lambda: not workspace.is_degraded)
        assert workspace.outbox is not None
        assert [change.value for change in a.history("k")] == ["by b, who saw it", "by a", "base"]
        assert [(each.agent, each.outcome) for each in workspace.outbox.conflicts()] == [("c", "version_conflict")]


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_once_it_is_in_the_log_an_author_may_write_over_what_waited(url: str, path: Path, tmp_path: Path) -> None:
    author = ("docs",)
    with CoherentStore(url, writes="guarded", on_error="degrade", outbox=tmp_path / "outbox.db") as store:
        store.put(author, "k", {"n": 1})
        with locked(path):
            store.put(author, "k", {"n": 2})
        until("the outbox is empty", lambda: not store.is_degraded)
        store.put(author, "k", {"n": 3})  # over version 2, which is its own
        item = store.get(author, "k")
        assert item is not None
        assert (item.value, item.version) == ({"n": 3}, 3)


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_a_write_of_somebody_who_never_read_is_conditional_on_what_is_known_here(
    url: str, path: Path, tmp_path: Path
) -> None:
    with ccs_stream.connect(url, on_error="degrade", outbox=tmp_path / "outbox.db") as workspace:
        workspace.agent("a").write("k", "base")
        with locked(path):
            assert workspace.agent("b").write("k", "by b").base_version == 1
            assert workspace.agent("b").write("new", "by b").base_version is None
        until("the outbox is empty", lambda: not workspace.is_degraded)
        assert [change.value for change in workspace.agent("a").history("k")] == ["by b", "base"]


KILLED = """
import ccs_stream, os, signal, sqlite3, sys, warnings
warnings.simplefilter("ignore")
workspace = ccs_stream.connect(sys.argv[1], on_error="degrade", outbox=sys.argv[2])
a = workspace.agent("a")
a.write("k", 0)
other = sqlite3.connect(sys.argv[3], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
for number in range(1, 6):
    a.write("k", number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_waits_outlives_a_kill(url: str, path: Path, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.db"
    subprocess.run([sys.executable, "-c", KILLED, url, str(outbox), str(path)], check=False)
    with ccs_stream.connect(url, on_error="degrade", outbox=outbox) as workspace:
        until("the outbox is empty", lambda: not workspace.is_degraded)
        a = workspace.agent("a")
        assert [change.value for change in a.history("k")] == [5, 4, 3, 2, 1, 0]


@pytest.mark.filterwarnings("ignore::ccs_stream.client.degraded.mode.CoherenceDegradedWarning")
def test_a_store_degrades_and_says_so(url: str, away: Away, tmp_path: Path) -> None:
    told: list[StoreMetricEvent] = []
    planner, reviewer = ("planner", "shared"), ("reviewer", "shared")
    with CCSStore(url, on_error="degrade", outbox=tmp_path / "outbox.db", on_metric=told.append) as store:
        store.put(planner, "plan", {"step": 1})
        store.get(reviewer, "plan")
        store.put(planner, "known", {})
        with away():
            store.put(planner, "plan", {"step": 2})
            item = store.get(reviewer, "plan")
            assert item is not None
            assert (item.value, item.stale, item.version) == ({"step": 2}, True, 1)
            assert store.is_degraded
            known = store.get(reviewer, "known")
            assert known is not None
            assert known.stale
        until("the outbox is empty", lambda: not store.is_degraded)
        item = store.get(reviewer, "plan")
        assert item is not None
        assert (item.value, item.stale, item.version) == ({"step": 2}, False, 2)
    assert [each.operation for each in told] == ["put", "get", "put", "degraded", "degraded", "degraded", "get"]


def test_strict_raises_what_it_always_did(url: str, path: Path) -> None:
    with ccs_stream.connect(url) as workspace:
        workspace.agent("a").write("k", 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogBusy):
            workspace.agent("a").write("k", 2)
        other.rollback()
        other.close()
        assert not workspace.is_degraded


def test_refusals_and_wrong_calls_are_no_trouble_of_the_log(url: str) -> None:
    with ccs_stream.connect(url, on_error="degrade") as workspace:
        a = workspace.agent("a")
        a.write("k", 1)
        with pytest.raises(VersionConflict):
            a.compare_and_set("k", 2, expected=None)
        with pytest.raises(UsageError):
            a.write("k", float("nan"))
        assert (workspace.is_degraded, workspace.degradation_count) == (False, 0)


def test_while_degraded_nobody_waits_for_the_log(path: Path, tmp_path: Path) -> None:
    """The first call waits as long as it may (here 1 s); those after it do not ask."""
    url = f"sqlite:///{path}?busy_timeout_s=1"
    with ccs_stream.connect(url, on_error="degrade", outbox=tmp_path / "outbox.db") as workspace:
        a = workspace.agent("a")
        a.write("k", 0)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(CoherenceDegradedWarning):
            a.write("k", 1)
        began = time.monotonic()
        for number in range(20):
            a.write("k", number)
            a.read("k")
        asked_s = time.monotonic() - began
        other.rollback()
        other.close()
        assert asked_s < 20 * 1.0, "each call had waited for the log"
        until("the outbox is empty", lambda: not workspace.is_degraded)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_error": "ignore"}, "'strict' or 'degrade'"),
        ({"outbox": "outbox.db"}, "needs on_error='degrade'"),
        ({"on_error": "degrade", "outbox": 7}, "path of a file"),
        ({"on_error": "degrade", "outbox": "/nowhere/outbox.db"}, "no folder"),
        ({"on_error": "degrade", "outbox": "outbox.db"}, "log in memory"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        ccs_stream.connect(**options)


def test_an_outbox_that_is_in_use_is_refused(url: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "degrade", "outbox": tmp_path / "outbox.db"}
    with ccs_stream.connect(url, **options), pytest.raises(UsageError, match="in use"):
        ccs_stream.connect(url, **options)
