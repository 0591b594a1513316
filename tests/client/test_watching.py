"""Watches and histories lose nothing and invent nothing: errors, missing bodies, long pasts, and endings."""

import asyncio
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ccs_stream
from ccs_stream import CcsError, LogError, Put, UsageError, Workspace
from ccs_stream.client.history import Watch
from ccs_stream.protocol.errors import Closed
from tests.waiting import until

LARGE = "x" * 100_000
"""Longer than what travels in a decision: its body is beside the log."""


class Away(LogError):
    """The log does not answer for a moment."""

    retryable = True


class Failing:
    """Stands before a method, and fails at the calls whose numbers are in `at`."""

    def __init__(self, method: Callable[..., Any], at: set[int]) -> None:
        self._method = method
        self._at = at
        self._calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._calls += 1
        if self._calls in self._at:
            raise Away("no answer")
        return self._method(*arguments, **options)


def taken(watch: Watch, count: int, *, by_polls: bool, limit: int | None = None) -> Iterator[Any]:
    """So many changes, by whichever way; errors are passed over, as a consumer that tries again would."""
    attempts = itertools.count()
    found = 0
    while found < count:
        assert next(attempts) < 10_000
        try:
            some = watch.poll(limit) if by_polls else [next(watch)]
        except Away:
            continue
        found += len(some)
        yield from some


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 100_000]), min_size=1, max_size=8),
    failing=st.sets(st.integers(1, 30), max_size=12),
    method=st.sampled_from(["get_content", "find", "read"]),
    by_polls=st.booleans(),
    limit=st.sampled_from([None, 1, 3]),
)
def test_errors_pass_no_change_over_and_repeat_none(
    sizes: list[int], failing: set[int], method: str, by_polls: bool, limit: int | None
) -> None:
    with ccs_stream.connect() as workspace:
        agent = workspace.agent("a")
        with workspace.watch() as watch:
            for number, size in enumerate(sizes):
                agent.write(f"k{number}", [number, "x" * size])
            store: Any = workspace.coordinator.store
            original = getattr(store, method)
            setattr(store, method, Failing(original, failing))
            told = list(taken(watch, len(sizes), by_polls=by_polls, limit=limit))
            setattr(store, method, original)
            assert [(each.key, each.value) for each in told] == [
                (f"k{number}", [number, "x" * size]) for number, size in enumerate(sizes)
            ]
            assert watch.poll() == []


def test_an_error_in_the_middle_of_a_page_passes_nothing_over(tmp_path: Path) -> None:
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db?synchronous=normal", workspace="w") as workspace:
        agent = workspace.agent("a")
        with workspace.watch() as watch:
            for number in range(30):
                agent.write("k", number)
            reader = watch._reader  # made to fail at one record, as a damaged page of the file would
            judged = itertools.count()
            judge = type(reader).judge

            def judge_or_fail(self: Any, stored: Any) -> Any:
                if next(judged) == 17:
                    raise Away("no answer")
                return judge(self, stored)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(reader), "judge", judge_or_fail)
                told = list(taken(watch, 30, by_polls=False))
            assert [each.value for each in told] == list(range(30))


@pytest.mark.parametrize("by_polls", [True, False])
def test_a_missing_body_is_a_value_of_its_change(tmp_path: Path, by_polls: bool) -> None:
    path = tmp_path / "log.db"
    with ccs_stream.connect(f"sqlite:///{path}", workspace="w") as workspace:
        agent = workspace.agent("a")
        start = agent.write("first", 1).position
        agent.write("plan", LARGE)
        agent.write("plan", [LARGE, 2])
        agent.write("last", 3)
    with sqlite3.connect(path) as file:
        assert file.execute("DELETE FROM contents WHERE id = 1").rowcount == 1
    file.close()
    with ccs_stream.connect(f"sqlite:///{path}", workspace="w") as workspace:
        with workspace.watch(after=start) as watch:
            told = list(taken(watch, 3, by_polls=by_polls))
        assert [(each.key, each.version, each.missing is None) for each in told] == [
            ("plan", 1, False),
            ("plan", 2, True),
            ("last", 1, True),
        ]
        assert told[0].value is None
        assert "redacted" in str(told[0].missing)
        newer, older = workspace.agent("b").history("plan")
        assert (newer.value, newer.missing, older.value) == ([LARGE, 2], None, None)
        assert "redacted" in str(older.missing)
        assert [each.missing for each in workspace.agent("b").history("plan", values=False)] == [None, None]


def test_a_long_past_is_read_page_by_page() -> None:
    with ccs_stream.connect() as workspace:
        agent = workspace.agent("a")
        start = agent.write("k", 0).position
        for number in range(3_000):
            agent.write("k", number)
        read: list[int] = []
        store: Any = workspace.coordinator.store
        original = store.read

        def counted(shard: str, after: int, *, until: int | None = None, bodies: bool = True) -> Any:
            for record in original(shard, after, until=until, bodies=bodies):
                read.append(record.offset)
                yield record

        with workspace.watch(after=start) as watch:
            store.read = counted
            assert next(watch).value == 0
            assert len(read) <= 1_000
            assert len(watch.poll(limit=1_500)) == 1_500
            assert [each.value for each in watch.poll()] == list(range(1_501, 3_000))


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
def test_a_limit_of_changes_is_a_whole_number(limit: Any) -> None:
    with ccs_stream.connect() as workspace, workspace.watch() as watch, pytest.raises(UsageError, match="limit"):
        watch.poll(limit)


@pytest.mark.parametrize("url", ["memory:", "sqlite"])
def test_a_watch_ends_with_its_workspace(url: str, tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db" if url == "sqlite" else None)
    watch = workspace.watch()
    seen: list[str] = []

    def look() -> None:
        seen.extend(change.key for change in watch)
        seen.append("ended")

    thread = threading.Thread(target=look)
    thread.start()
    workspace.agent("a").write("plan", 1)
    until("the change is told", lambda: seen == ["plan"])
    workspace.close()
    thread.join(2)
    assert seen == ["plan", "ended"]
    used = time.process_time()
    assert next(iter(watch), None) is None
    assert time.process_time() - used < 0.1
    with pytest.raises(Closed):
        watch.poll()


async def test_an_async_watch_ends_with_its_workspace(tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db")

    async def look() -> list[str]:
        return [change.key async for change in workspace.watch()]

    looking = asyncio.ensure_future(look())
    await asyncio.sleep(0.05)
    await workspace.agent("a").awrite("plan", 1)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(workspace.close)
    assert await asyncio.wait_for(looking, 3) == ["plan"]


def test_several_threads_share_a_watch() -> None:
    with ccs_stream.connect() as workspace, workspace.watch() as watch:
        told: list[int] = []

        def take() -> None:
            for change in watch:
                told.append(change.value)
                if change.value is None:
                    return

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        agent = workspace.agent("a")
        for number in range(500):
            agent.write("k", number)
        until("all are told", lambda: len(told) >= 500)
        assert sorted(told) == list(range(500))
        watch.close()
        for thread in threads:
            thread.join(5)


def opened(path: Path) -> Workspace:
    return ccs_stream.connect(f"sqlite:///{path}", workspace="w")


def remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def replace(path: Path) -> None:
    remove(path)
    with opened(path) as other:
        other.agent("b").write("plan", "of another log")


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def remove_wal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


USES: dict[str, Callable[[Workspace], object]] = {
    "write": lambda workspace: workspace.agent("a").write("plan", 2),
    "write_all": lambda workspace: workspace.write_all([Put("plan", 2), Put("other", LARGE)], agent="a"),
    "read of a copy": lambda workspace: workspace.agent("a").read("plan"),
    "read": lambda workspace: workspace.agent("c").read("plan"),
    "history": lambda workspace: workspace.agent("a").history("plan"),
    "as_of": lambda workspace: workspace.as_of(1),
    "watch": lambda workspace: workspace.watch().poll(),
    "state_hash": lambda workspace: workspace.state_hash(),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("lose", [remove, replace, rename, remove_wal])
def test_a_file_that_is_removed_or_replaced_is_an_error_of_the_next_call(
    tmp_path: Path, lose: Callable[[Path], None], name: str
) -> None:
    path = tmp_path / "log.db"
    workspace = opened(path)
    workspace.agent("a").write("plan", 1)
    lose(path)
    time.sleep(0.03)
    for _ in range(2):
        with pytest.raises(LogError, match="while it was open"):
            USES[name](workspace)
    workspace.close()
    with opened(path) as again:
        read = again.agent("b").read("plan")
        assert read is None or read.value in (1, "of another log")


def test_what_is_acknowledged_after_a_removal_is_there(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "log.db", []
    workspace = opened(path)
    workspace.agent("a").write("plan", 0)
    remove(path)
    for number in range(3):
        try:
            workspace.agent("a").write(f"k{number}", number)
            acknowledged.append(number)
        except CcsError:
            continue
    workspace.close()
    with opened(path) as again:
        assert [each for each in acknowledged if again.agent("b").read(f"k{each}") is None] == []
