"""Degraded mode: begun once, told aside, never waited for, and left by itself."""

import contextlib
import logging
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ccs_stream import Workspace
from ccs_stream.client.degraded import mode as mode_module
from ccs_stream.client.degraded.mode import CoherenceDegradedWarning, DegradedMode, is_log_unavailable
from ccs_stream.client.degraded.outbox_drainer import DrainResult, require_log
from ccs_stream.clock import SystemClock
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import (
    CcsError,
    Closed,
    ContentMissing,
    ForkedProcess,
    LogBusy,
    LogDiverged,
    LogError,
    LogFull,
    LogReadOnly,
    LogUnavailable,
    NotAuthorised,
    OutcomeUnknown,
    Reserved,
    TooLarge,
    UsageError,
    VersionConflict,
)
from tests.client.drains import FragileLog, Rig
from tests.waiting import until

AWAY = LogUnavailable("planted")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_module, "PAUSE_MIN_S", 0.01)
    monkeypatch.setattr(mode_module, "PAUSE_MAX_S", 0.02)


class Log:
    """What is probed."""

    def __init__(self) -> None:
        self.error: Exception | None = AWAY
        self.probes = 0

    def __call__(self) -> None:
        self.probes += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def mode(log: Log) -> Iterator[DegradedMode]:
    mode = DegradedMode("the workspace 'w'", log)
    yield mode
    assert mode.close(10)


def fail(mode: DegradedMode, error: Exception = AWAY) -> None:
    """The log fails somebody who expects to be warned."""
    with pytest.warns(CoherenceDegradedWarning):
        mode.failed(error)


def threads() -> list[threading.Thread]:
    """Those that try logs now."""
    return [each for each in threading.enumerate() if each.name == "ccs-degraded"]


# What it is.


@pytest.mark.parametrize(
    "error",
    [
        LogBusy("x"),
        LogFull("x"),
        LogReadOnly("x"),
        LogUnavailable("x"),
        OutcomeUnknown("x"),
        LogError("x: the disk refused"),
        OSError("x"),
        sqlite3.OperationalError("x"),
    ],
)
def test_a_log_that_cannot_be_used_is_degraded(error: Exception) -> None:
    assert is_log_unavailable(error)


@pytest.mark.parametrize(
    "error",
    [
        VersionConflict("x", reason="version_conflict"),
        Reserved("x", reason="reserved"),
        TooLarge("x", reason="content_too_large"),
        UsageError("x"),
        Closed("x"),
        ForkedProcess("x"),
        LogDiverged("x"),
        NotAuthorised("x"),
        ContentMissing("x"),
        CcsError("x"),
        ValueError("x"),
    ],
)
def test_refusals_and_wrong_calls_are_not(error: Exception) -> None:
    assert not is_log_unavailable(error)


def test_only_the_first_trouble_warns_and_all_are_logged_and_counted(
    mode: DegradedMode, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.warns(CoherenceDegradedWarning, match="'w' is degraded, reads may be stale and writes are refused"):
        mode.failed(AWAY)
    degraded = [mode.is_degraded]
    mode.failed(LogFull("no space"))
    assert mode.count == 2
    log.error = None
    until("the mode is normal", lambda: not mode.is_degraded)
    log.error = AWAY
    mode.failed(LogFull("no space again"))  # another time, and no other warning
    degraded.append(mode.is_degraded)
    assert degraded == [True, True]
    assert mode.count == 3
    said = [each.message for each in caplog.records if "is degraded:" in each.message]
    assert said == [
        "the workspace 'w' is degraded: planted",
        "the workspace 'w' is degraded: no space",
        "the workspace 'w' is degraded: no space again",
    ]


def test_a_warning_that_is_an_error_leaves_the_mode_as_it_should_be(mode: DegradedMode, log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CoherenceDegradedWarning):
            mode.failed(AWAY)
    assert mode.is_degraded
    log.error = None
    until("the mode is normal", lambda: not mode.is_degraded)


# The way back.


def test_the_log_is_tried_only_while_that_is_needed(mode: DegradedMode, log: Log) -> None:
    assert not threads()
    fail(mode)
    until("the log was tried again and again", lambda: log.probes > 3)
    assert len(threads()) == 1
    degraded = [mode.is_degraded]
    log.error = None
    until("nobody tries the log", lambda: not threads())
    degraded.append(mode.is_degraded)
    assert degraded == [True, False]
    before = log.probes
    mode.watch()
    assert not threads()
    assert log.probes == before
    log.error = AWAY
    mode.failed(AWAY)
    until("the log is tried again", lambda: log.probes > before)


def test_pauses_grow_to_a_bound(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_module, "PAUSE_MIN_S", 0.25)
    monkeypatch.setattr(mode_module, "PAUSE_MAX_S", 2.0)
    pauses: list[float] = []

    class NoWaiting(SystemClock):
        """Returns from every wait at once."""

        @staticmethod
        def wait(event: threading.Event, timeout_s: float | None = None) -> bool:
            pauses.append(timeout_s or 0.0)
            if len(pauses) == 6:
                log.error = None
            return event.is_set()

    mode = DegradedMode("the workspace 'w'", log, clock=NoWaiting())
    fail(mode)
    until("the mode is normal", lambda: not threads())
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_trouble_that_comes_while_the_log_is_tried_is_not_forgotten(log: Log) -> None:
    log.error = None
    trying, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        log()
        trying.set()
        assert go_on.wait(60)

    mode = DegradedMode("w", slow)
    fail(mode)
    assert trying.wait(60)
    mode.failed(AWAY)
    trying.clear()
    go_on.set()
    assert trying.wait(60)  # it was tried once more
    until("the mode is normal", lambda: not mode.is_degraded)
    assert log.probes >= 2
    assert mode.close(10)


def test_a_bug_in_what_is_tried_does_not_end_the_way_back(
    mode: DegradedMode, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    log.error = ZeroDivisionError("planted")
    fail(mode)
    until("the log was tried again and again", lambda: log.probes > 3)
    assert isinstance(mode.last_error, ZeroDivisionError)
    assert len([each for each in caplog.records if "is still degraded" in each.message]) == 1
    log.error = None
    until("the mode is normal", lambda: not mode.is_degraded)


def test_a_log_that_was_closed_is_not_tried_any_more(mode: DegradedMode, log: Log) -> None:
    log.error = Closed("planted")
    fail(mode)
    until("nobody tries the log", lambda: not threads())
    assert mode.is_degraded


# Whoever wants to know.


def test_listeners_are_told_of_changes_in_order_and_harm_nobody(mode: DegradedMode, log: Log) -> None:
    told: list[bool] = []
    hangs = threading.Event()

    def raising(_: bool) -> None:
        raise ZeroDivisionError("planted")

    mode.on_change(raising)
    mode.on_change(lambda _: hangs.wait(60))
    mode.on_change(told.append)
    fail(mode)
    mode.failed(AWAY)
    log.error = None
    until("both changes were told", lambda: told == [True, False])
    assert not mode.is_degraded
    hangs.set()


def test_closing_ends_it_and_says_whether_that_was_in_time(log: Log) -> None:
    hangs = threading.Event()

    def slow() -> None:
        log.probes += 1
        hangs.wait(60)

    mode = DegradedMode("w", slow)
    fail(mode)
    until("the log is tried", lambda: log.probes)
    assert not mode.close(0.01)
    hangs.set()
    assert mode.close(10)
    mode.failed(AWAY)
    assert not threads()


def test_a_forked_child_is_not_degraded_and_tries_nothing(mode: DegradedMode) -> None:
    fail(mode)
    with mode._lock:
        child = os.fork()
        if child == 0:
            mode.failed(AWAY)
            mode.watch()
            well = not mode.is_degraded and mode.close(1) and not threads()
            os._exit(0 if well else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert mode.is_degraded


# With an outbox.


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(FragileLog(), tmp_path)
    yield rig
    rig.close()


def of(rig: Rig, on_drained: Callable[[DrainResult], object] | None = None) -> DegradedMode:
    """The mode of a workspace with an outbox."""
    return DegradedMode("w", lambda: require_log(rig.ours.coordinator), rig.drainer, on_drained=on_drained)


def test_what_waits_keeps_the_mode_degraded_until_it_is_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(rig.store, FragileLog)
    caplog.set_level(logging.INFO)
    rig.store.away = True
    told: list[DrainResult] = []
    mode = of(rig, told.append)
    with pytest.warns(CoherenceDegradedWarning, match="kept in .*outbox.db"):
        mode.failed(AWAY)
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    rig.other.read("b", scope=("s",))
    mode.watch()
    until("the log was tried", lambda: mode.last_error is not AWAY)
    assert mode.is_degraded
    assert not told
    rig.store.away = False
    until("the mode is normal", lambda: not mode.is_degraded)
    until("nobody tries the log", lambda: not threads())
    assert rig.made() == [(1, b"1"), (1, b"2")]
    assert [len(each.done) for each in told] == [2]
    assert "w is back to normal" in caplog.text
    assert mode.close(10)


def test_what_was_left_by_an_earlier_run_goes_first(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    rig.restart()
    mode = of(rig)
    assert mode.is_degraded  # before anybody looks, so that nothing live overtakes it
    assert not threads()
    mode.watch()
    until("the mode is normal", lambda: not mode.is_degraded)
    assert rig.made() == [(1, b"1")]
    rig.put("a", b"2", 1)
    assert mode.is_degraded
    assert mode.attempt()  # in this thread, at once
    assert rig.made() == [(1, b"1"), (2, b"2")]
    assert mode.close(10)


def test_a_put_behind_the_last_look_is_seen(rig: Rig) -> None:
    mode = of(rig)
    for number in range(30):
        rig.put("a", str(number).encode(), number)
        mode.watch()
        until("it is in the log", lambda: not mode.is_degraded)
    assert [version for version, _ in rig.made()] == list(range(1, 31))
    assert mode.close(10)


def test_conflicts_are_told_and_do_not_keep_the_mode_degraded(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def raising(drained: DrainResult) -> None:
        assert [entry.outcome for entry in drained.conflicts] == ["version_conflict"]
        raise ZeroDivisionError("planted")

    mode = of(rig, raising)
    rig.other.write("a", 0, scope=("s",))
    rig.put("a", b"1", 0)
    mode.watch()
    until("the mode is normal", lambda: not mode.is_degraded)
    assert "1 changes that waited" in caplog.text
    assert "the drained changes are not affected" in caplog.text
    assert rig.outbox.counts.conflicts == 1
    assert mode.close(10)


def test_a_reservation_of_somebody_else_keeps_the_mode_degraded_and_is_waited_for(rig: Rig) -> None:
    mode = of(rig)
    with rig.other.acquire("a", scope=("s",)):
        rig.put("a", b"1", 0)
        assert not mode.attempt()
        assert mode.is_degraded
        mode.watch()
    until("the mode is normal", lambda: not mode.is_degraded)
    assert rig.made() == [(1, b"1")]
    assert mode.close(10)


# A real log, taken away.


@pytest.fixture
def sqlite_rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(SqliteLog(tmp_path / "log.db", busy_timeout_s=0.05), tmp_path)
    yield rig
    rig.close()


def failing_write(workspace: Workspace) -> Exception:
    """What a live write says."""
    with pytest.raises(CcsError) as failed:
        workspace.agent("ann").write("a", "x" * 50_000, scope=("s",))
    return failed.value


def connection_of(rig: Rig) -> sqlite3.Connection:
    assert isinstance(rig.store, SqliteLog)
    connection = rig.store._for_writing().connection
    assert connection is not None
    return connection


@contextlib.contextmanager
def taken_away(rig: Rig, how: str) -> Iterator[None]:
    """The log cannot be written meanwhile."""
    connection = connection_of(rig)
    if how == "locked":
        other = sqlite3.connect(rig.folder / "log.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.close()
    elif how == "full":
        limit = connection.execute("PRAGMA max_page_count").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        yield
        connection.execute(f"PRAGMA max_page_count = {limit}")
    else:
        connection.execute("PRAGMA query_only = 1")
        yield
        connection.execute("PRAGMA query_only = 0")


@pytest.mark.parametrize(("how", "expected"), [("locked", LogBusy), ("full", LogFull), ("read_only", LogReadOnly)])
def test_a_log_that_is_taken_away_and_given_back(sqlite_rig: Rig, how: str, expected: type[CcsError]) -> None:
    rig = sqlite_rig
    mode = of(rig)
    with taken_away(rig, how):
        error = failing_write(rig.ours)
        assert isinstance(error, expected)
        assert is_log_unavailable(error)
        fail(mode, error)
        for number in range(3):
            rig.put("a", b"%d" % number + b" " * 50_000, 0)
            mode.watch()
        until("the log was tried", lambda: mode.last_error is not error)
        assert mode.is_degraded
        assert rig.outbox.counts.waiting == 3
    until("the mode is normal", lambda: not mode.is_degraded)
    assert [(version, (body or b"")[:1]) for version, body in rig.made()] == [(1, b"0"), (2, b"1"), (3, b"2")]
    assert mode.close(10)
