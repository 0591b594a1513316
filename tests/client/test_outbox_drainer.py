"""What waits in an outbox comes to the log once, in order, on its bases, or is reported, whatever happens meanwhile."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccs_stream import WorkspaceSettings
from ccs_stream.client.degraded.outbox import FOLLOWS_REFUSED
from ccs_stream.client.degraded.outbox_drainer import UNVERIFIABLE, DrainResult
from ccs_stream.client.degraded.outbox_file import EntryState
from ccs_stream.coordinator.answer import Answer
from ccs_stream.log.port import Appended, Conflict, Draft, LogStore, Unknown
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.commands import Commit
from ccs_stream.protocol.errors import LogBusy, LogFull, LogReadOnly, LogUnavailable, OutcomeUnknown
from ccs_stream.protocol.events import ArtifactDeleted, CommandRefused, ParticipantJoined, SessionEnded, WriteCommitted
from ccs_stream.protocol.ids import Micros
from tests.client.drains import FragileLog, Killed, Rig, events, history


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LogStore:
    """A log."""
    return FragileLog() if request.param == "memory" else SqliteLog(tmp_path / "log.db", busy_timeout_s=0.05)


@pytest.fixture
def rig(store: LogStore, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(store, tmp_path)
    yield rig
    rig.close()


# The plain way.


def test_changes_come_to_the_log_in_order_with_all_they_have(rig: Rig) -> None:
    large = json.dumps("x" * 100_000).encode()
    rig.put("a", b"1", 0, reason="because", ttl_us=Micros(3_600_000_000), index_fields=("x",))
    rig.put("b", large, 0, agent="bob")
    rig.put("a", b"2", 0)
    rig.put("b", None, 0, agent="bob", reason="tidy")
    drained = rig.drain()
    assert drained.error is None
    assert drained.left == 0
    assert not drained.conflicts
    assert [(each.entry.number, each.version) for each in drained.done] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert rig.made() == [(1, b"1"), (1, large), (2, b"2"), (2, None)]
    first, second, third, fourth = history(rig.store)
    assert isinstance(first.event, WriteCommitted)
    assert first.event.options is not None
    assert (first.event.options.reason, first.event.options.index_fields) == ("because", ("x",))
    assert first.event.options.ttl_us == 3_600_000_000
    assert isinstance(second.event, WriteCommitted)
    assert second.event.content_locator is not None  # too large to travel in its decision
    assert [each.base for each in (first, second, third, fourth)] == [0, 0, 1, 1]
    assert isinstance(fourth.event, ArtifactDeleted)
    assert fourth.event.note == "tidy"
    assert rig.drain() == DrainResult((), (), 0, None)


def test_the_session_ends_when_nothing_is_left_and_the_next_changes_have_another(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    first = rig.outbox.session_id
    rig.drain()
    assert [event.session_id for event in events(rig.store, SessionEnded)] == [first]
    rig.put("a", b"2", 1)
    second = rig.outbox.session_id
    assert second != first
    rig.drain()
    assert [each.session_id for each in history(rig.store)] == [first, second]
    assert rig.outbox.session_id not in (first, second)


def test_a_delete_of_nothing_is_done_and_makes_no_version(rig: Rig) -> None:
    rig.put("a", None, 0)
    rig.put("a", b"1", 0)
    drained = rig.drain()
    assert [each.version for each in drained.done] == [None, 1]
    assert rig.made() == [(1, b"1")]


def test_a_change_whose_author_knew_of_nothing_is_made_over_a_tombstone_and_the_next_over_that(rig: Rig) -> None:
    rig.other.write("a", 0, scope=("s",))
    rig.other.delete("a", scope=("s",))
    rig.put("a", b"1", None)
    rig.put("a", b"2", None)
    assert [each.version for each in rig.drain().done] == [3, 4]


# What is refused.


def test_a_change_is_never_made_over_what_its_author_had_not_seen(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    rig.put("a", b"3", 0)
    rig.put("a", b"4", 0, agent="bob", seen=3)
    rig.other.write("a", "theirs", scope=("s",))
    drained = rig.drain()
    assert drained.error is None
    assert [entry.number for entry in drained.conflicts] == [1, 3, 4]
    assert [entry.outcome for entry in drained.conflicts] == ["version_conflict", FOLLOWS_REFUSED, FOLLOWS_REFUSED]
    assert [entry.version for entry in drained.conflicts] == [1, 1, 1]
    assert drained.conflicts[0].detail is not None
    assert "current version is 1" in drained.conflicts[0].detail
    assert drained.conflicts[0].settled_at is not None
    assert drained.conflicts == tuple(rig.outbox.conflicts())
    assert [body for _, body in rig.made()] == [b'"theirs"', b"2"]
    rig.outbox.resolve(1)
    assert rig.outbox.counts.conflicts == 2


def test_what_can_never_be_accepted_is_kept_as_failed_and_stops_nobody(store: LogStore, tmp_path: Path) -> None:
    limits = WorkspaceSettings(inline_content_bytes=100, maximum_content_bytes=1_000)
    rig = Rig(store, tmp_path, limits)
    rig.put("a", b"1" * 2_000, 0)
    rig.put("b", b"2", 0)
    drained = rig.drain()
    assert [(entry.state, entry.outcome) for entry in drained.conflicts] == [(EntryState.FAILED, "content_too_large")]
    assert drained.left == 0
    assert rig.made() == [(1, b"2")]
    rig.close()


def test_a_change_waits_for_another_s_reservation_and_those_behind_it_wait_too(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    with rig.other.acquire("a", scope=("s",)):
        for _ in range(3):
            assert rig.drain() == DrainResult((), (), 2, None)
        assert not events(rig.store, CommandRefused)  # nothing is asked that is known to be refused
    assert [each.entry.number for each in rig.drain().done] == [1, 2]


def test_a_reservation_taken_at_the_last_moment_is_waited_for_under_another_number(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put("a", b"1", 0)
    execute, taken = rig.ours.coordinator.execute, contextlib.ExitStack()

    def late(command: Any, *arguments: Any, **more: Any) -> Answer:
        if isinstance(command, Commit):
            taken.enter_context(rig.other.acquire("a", scope=("s",)))
        return execute(command, *arguments, **more)

    monkeypatch.setattr(rig.ours.coordinator, "execute", late)
    assert rig.drain() == DrainResult((), (), 1, None)
    assert [event.reason for event in events(rig.store, CommandRefused)] == ["reserved"]
    monkeypatch.undo()
    taken.close()
    assert [each.version for each in rig.drain().done] == [1]


# Killed in between.


def test_a_change_that_was_decided_when_its_process_was_killed_is_not_made_again(rig: Rig) -> None:
    for number in range(3):
        rig.put("a", str(number).encode(), 0)
    for _ in range(3):
        rig.die_after_marks(1)
    assert rig.made() == [(1, b"0"), (2, b"1"), (3, b"2")]
    assert [each.version for each in rig.drain().done] == []
    assert rig.outbox.counts.done == 3


def test_a_change_that_was_refused_when_its_process_was_killed_is_a_conflict_even_if_it_would_be_accepted_now(
    rig: Rig,
) -> None:
    rig.put("a", b"1", None)
    rig.other.write("a", 0, scope=("s",))
    rig.die_after_marks(0)
    rig.other.delete("a", scope=("s",))
    drained = rig.drain()
    assert [entry.outcome for entry in drained.conflicts] == ["version_conflict"]
    assert [body for _, body in rig.made()] == [b"0", None]
    assert events(rig.store, SessionEnded)


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("afterwards", ["nothing", "written", "deleted"])
def test_a_change_that_was_decided_is_not_made_again_by_another_session(
    rig: Rig, afterwards: str, forgotten: bool
) -> None:
    rig.put("a", b"1", None)
    rig.put("a", b"2", None)
    rig.die_after_marks(0)
    old = rig.outbox.session_id
    rig.evict()
    if afterwards != "nothing":
        rig.other.write("a", "theirs", scope=("s",))
    if afterwards == "deleted":
        rig.other.delete("a", scope=("s",))  # so that "only if nothing exists" would be true again
    rig.restart()
    if forgotten:
        rig.forget_ended()
    drained = rig.drain()
    assert drained.error is None
    assert (drained.done[0].entry.number, drained.done[0].version) == (1, 1)
    joined = [event.session_id for event in events(rig.store, ParticipantJoined)]
    assert joined.count(old) == 1  # without what it remembered, it would be no protection
    assert [body for _, body in rig.made()].count(b"1") == 1
    if afterwards == "nothing":
        assert rig.made() == [(1, b"1"), (2, b"2")]
    else:
        assert [entry.number for entry in drained.conflicts] == [2]
        assert b"2" not in [body for _, body in rig.made()]


def test_the_same_body_written_by_somebody_else_is_not_taken_for_one_s_own(rig: Rig) -> None:
    rig.put("x", b"0", 0)
    rig.put("a", b"1", 0)
    rig.outbox.marks_left = 1
    with contextlib.suppress(Killed):
        rig.outbox.renumber(1)
        rig.drain()
    rig.restart()
    assert rig.made() == [(1, b"0"), (1, b"1")]
    rig.put("b", b"1", 0)
    rig.evict()
    rig.other.write("b", 1, scope=("s",))
    drained = rig.drain()
    assert [each.entry.key for each in drained.done] == ["a"]
    assert [(entry.key, entry.outcome) for entry in drained.conflicts] == [("b", "version_conflict")]


def test_a_session_that_was_ended_before_is_replaced_and_its_changes_are_made(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    rig.put("c", b"3", 0)
    rig.die_after_marks(0)
    old = rig.outbox.session_id
    rig.evict()
    assert [each.entry.number for each in rig.drain().done] == [1, 2, 3]
    sessions = [each.session_id for each in history(rig.store)]
    assert sessions[0] == old
    assert old not in sessions[1:]
    assert rig.made() == [(1, b"1"), (1, b"2"), (1, b"3")]


def test_a_session_that_is_ended_between_two_commands_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    execute, asked = rig.ours.coordinator.execute, []

    def evicted(command: Any, *arguments: Any, **more: Any) -> Answer:
        asked.append(command)
        if len(asked) in (1, 4):  # before a join, and before a commit
            rig.evict(command.session_id)
        return execute(command, *arguments, **more)

    monkeypatch.setattr(rig.ours.coordinator, "execute", evicted)
    drained = rig.drain()
    assert [each.entry.number for each in drained.done] == [1, 2]
    assert rig.made() == [(1, b"1"), (1, b"2")]


def test_an_old_copy_of_the_file_makes_nothing_twice(store: LogStore, tmp_path: Path) -> None:
    rig = Rig(store, tmp_path, WorkspaceSettings(dedupe_window=4))
    for number in range(8):
        rig.put("ab"[number % 2], str(number).encode(), 0)
    rig.outbox.marks_left = 1
    with contextlib.suppress(Killed):
        rig.drain()
    rig.outbox.close()
    shutil.copy(tmp_path / "outbox.db", tmp_path / "copy.db")
    rig.restart()
    rig.die_after_marks(6)  # all but one marked: the session lives
    before = rig.made()
    assert len(before) == 8
    rig.outbox.close()
    shutil.copy(tmp_path / "copy.db", tmp_path / "outbox.db")
    rig.restart()
    drained = rig.drain()
    assert drained.error is None
    assert rig.made() == before
    assert len(drained.done) == 7
    rig.close()


def test_what_the_log_no_longer_tells_is_reported_and_not_guessed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put("a", b"1", None)
    rig.die_after_marks(0)
    rig.evict()
    rig.other.write("a", "theirs", scope=("s",))
    rig.other.delete("a", scope=("s",))
    monkeypatch.setattr(rig.store, "find", lambda *_: None)
    drained = rig.drain()
    assert [entry.outcome for entry in drained.conflicts] == [UNVERIFIABLE]
    monkeypatch.undo()
    assert len(rig.made()) == 3


# The log is away.


def test_a_log_that_fails_in_the_middle_leaves_the_rest_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        rig.put("a", str(number).encode(), 0)
    append, appended = rig.store.append, []

    def fails(shard: str, drafts: list[Draft], expected: int) -> Appended | Conflict | Unknown:
        appended.append(drafts)
        if len(appended) > 2:
            raise LogUnavailable("planted")
        return append(shard, drafts, expected)

    monkeypatch.setattr(rig.store, "append", fails)
    drained = rig.drain()
    assert isinstance(drained.error, LogUnavailable)
    assert (len(drained.done), drained.left) == (1, 2)
    monkeypatch.undo()
    assert [each.entry.number for each in rig.drain().done] == [2, 3]
    assert rig.made() == [(1, b"0"), (2, b"1"), (3, b"2")]


def test_a_decision_that_nobody_was_told_of_is_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.put("a", b"1", 0)
    execute = rig.ours.coordinator.execute

    def unknown(*arguments: Any, **more: Any) -> Answer:
        execute(*arguments, **more)
        raise OutcomeUnknown("planted")

    monkeypatch.setattr(rig.ours.coordinator, "execute", unknown)
    for _ in range(4):  # the join, the commit, the commit again
        drained = rig.drain()
        assert isinstance(drained.error, OutcomeUnknown)
        assert drained.left == 1
    monkeypatch.undo()
    assert [each.version for each in rig.drain().done] == [1]
    assert rig.made() == [(1, b"1")]


def test_a_disk_of_the_outbox_that_fails_after_the_decision_doubles_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put("a", b"1", 0)

    def full(*_: object) -> None:
        raise LogFull("planted")

    monkeypatch.setattr(rig.outbox, "mark_done", full)
    assert isinstance(rig.drain().error, LogFull)
    monkeypatch.undo()
    assert [each.version for each in rig.drain().done] == [1]
    assert rig.made() == [(1, b"1")]


@pytest.fixture
def sqlite_rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(SqliteLog(tmp_path / "log.db", busy_timeout_s=0.05), tmp_path)
    yield rig
    rig.close()


def writing(rig: Rig) -> sqlite3.Connection:
    """The log's connection that writes."""
    assert isinstance(rig.store, SqliteLog)
    connection = rig.store._for_writing().connection
    assert connection is not None
    return connection


def test_a_locked_log_is_waited_for_and_nobody_is_kept_from_reading_meanwhile(
    sqlite_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = sqlite_rig
    rig.put("a", b"1", 0)
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked: list[object] = []
    execute = rig.ours.coordinator.execute

    def watched(*arguments: Any, **more: Any) -> Answer:
        asked.append(arguments)
        return execute(*arguments, **more)

    monkeypatch.setattr(rig.ours.coordinator, "execute", watched)
    drained = rig.drain()
    assert isinstance(drained.error, LogBusy)
    assert drained.left == 1
    assert not asked  # a command waits for its turn under the lock that readers take
    other.execute("ROLLBACK")
    other.close()
    assert [each.version for each in rig.drain().done] == [1]


def test_a_log_that_is_full_is_waited_for(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    body = json.dumps("x" * 60_000).encode()
    rig.put("a", body, 0)
    connection = writing(rig)
    limit = connection.execute("PRAGMA max_page_count").fetchone()[0]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    drained = rig.drain()
    assert isinstance(drained.error, LogFull)
    assert drained.left == 1
    connection.execute(f"PRAGMA max_page_count = {limit}")
    assert [each.version for each in rig.drain().done] == [1]
    assert rig.made() == [(1, body)]


def test_a_log_that_may_not_be_written_is_waited_for(sqlite_rig: Rig) -> None:
    rig = sqlite_rig
    rig.put("a", b"1", 0)
    writing(rig).execute("PRAGMA query_only = 1")
    drained = rig.drain()
    assert isinstance(drained.error, LogReadOnly)
    assert drained.left == 1
    writing(rig).execute("PRAGMA query_only = 0")
    assert [each.version for each in rig.drain().done] == [1]


def test_what_is_decided_already_does_not_wait_for_a_reservation_taken_since(rig: Rig) -> None:
    rig.put("a", b"1", 0)
    rig.die_after_marks(0)
    with rig.other.acquire("a", scope=("s",)):
        assert [each.version for each in rig.drain().done] == [1]


def test_changes_behind_one_that_was_asked_for_often_are_not_taken_for_stale_copies(
    store: LogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(store, tmp_path, WorkspaceSettings(dedupe_window=4))
    rig.put("a", b"1", 0)
    rig.put("b", b"2", 0)
    execute = rig.ours.coordinator.execute

    def late(command: Any, *arguments: Any, **more: Any) -> Answer:
        if isinstance(command, Commit):
            with rig.other.acquire("a", scope=("s",)):
                return execute(command, *arguments, **more)
        return execute(command, *arguments, **more)

    monkeypatch.setattr(rig.ours.coordinator, "execute", late)
    for _ in range(5):
        assert rig.drain() == DrainResult((), (), 2, None)
    monkeypatch.undo()
    assert [each.entry.number for each in rig.drain().done] == [1, 2]
    assert rig.made() == [(1, b"1"), (1, b"2")]
    rig.close()


@pytest.mark.parametrize("window", [6, 256])
def test_what_a_copy_of_the_file_says_under_a_number_that_was_used_is_another_change(
    store: LogStore, tmp_path: Path, window: int
) -> None:
    rig = Rig(store, tmp_path, WorkspaceSettings(dedupe_window=window))
    rig.put("x", b"0", 0)
    rig.outbox.close()
    shutil.copy(tmp_path / "outbox.db", tmp_path / "copy.db")
    rig.restart()
    bodies = [str(number).encode() for number in range(10, 30)]
    for body in bodies:
        rig.put("a", body, 0)
    rig.die_after_marks(20)
    assert len(rig.made()) == 21
    rig.outbox.close()
    shutil.copy(tmp_path / "copy.db", tmp_path / "outbox.db")
    rig.restart()
    rig.put("a", b"5", 0)  # under a number older than the window, of a change of this artifact
    for key in "bcdef":
        rig.put(key, b"6", 0)  # some under numbers that the window knows for others
    drained = rig.drain()
    assert drained.error is None
    assert drained.left == 0
    assert [(entry.body, entry.outcome) for entry in drained.conflicts] == [(b"5", "version_conflict")]
    assert [each.entry.key for each in drained.done] == ["x", "b", "c", "d", "e", "f"]
    assert [body for _, body in rig.made()] == [b"0", *bodies, *[b"6"] * 5]
    rig.close()


def test_an_upload_that_waited_for_too_long_is_made_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    large = json.dumps("x" * 100_000).encode()
    rig.put("a", large, 0)
    execute = rig.ours.coordinator.execute
    asked: list[Commit] = []

    def late(command: Any, numbers: Any = None, work: Any = None, **more: Any) -> Answer:
        if isinstance(command, Commit) and not asked:
            asked.append(command)
            work()
            command.changes[0].content.uploaded_at -= 2 * rig.ours.engine.state.settings.content_grace_us  # type: ignore[union-attr,operator]
            work = None
        return execute(command, numbers, work, **more)

    monkeypatch.setattr(rig.ours.coordinator, "execute", late)
    assert [each.version for each in rig.drain().done] == [1]
    assert [event.reason for event in events(rig.store, CommandRefused)] == ["content_too_old"]
    assert rig.made() == [(1, large)]
