"""Workspaces and agents: freshness, positions, several artifacts, the past, and leaving."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Delete, Put, UsageError, VersionConflict, Workspace, WorkspaceSettings
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.protocol.commands import Evict
from ccs_stream.protocol.errors import CcsError, Closed, ContentMissing, LogDiverged, Reclaimed, Reserved, TooLarge
from ccs_stream.protocol.ids import CommandNumber, Micros, SessionId
from ccs_stream.protocol.settings import SECOND_US
from tests.kafka import as_another_host

Connect = Callable[..., Workspace]


KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


@pytest.fixture(params=["memory", "sqlite", KAFKA])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Opens workspaces, on SQLite and Kafka all on one log; closes them."""
    opened: list[Workspace] = []
    name = uuid.uuid4().hex

    def open_one(**options: Any) -> Workspace:
        url: str | None = None
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/log.db"
        elif request.param == "kafka":
            url = request.getfixturevalue("kafka_log")
            options = {"workspace": name, "freshness": "latest", **options}
        opened.append(ccs_stream.connect(url, **options))
        return opened[-1]

    yield open_one
    for workspace in opened:
        workspace.close()


@pytest.fixture(params=["sqlite", KAFKA])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Workspace, Workspace]]:
    """Two connections to one log, as two processes have."""
    if request.param == "sqlite":
        url = elsewhere = f"sqlite:///{tmp_path}/log.db"
        name = "default"
    else:
        url, name = request.getfixturevalue("kafka_log"), uuid.uuid4().hex
        elsewhere = as_another_host(url)
    with (
        ccs_stream.connect(url, workspace=name, freshness="latest") as one,
        ccs_stream.connect(elsewhere, workspace=name, freshness="latest") as other,
    ):
        yield one, other


def test_what_one_process_writes_the_other_reads(two: tuple[Workspace, Workspace]) -> None:
    one, other = two
    reader = other.agent("reader")
    for number in range(5):
        one.agent("writer").write("k", number)
        reading = reader.read("k")
        assert reading is not None
        assert (reading.value, reading.version, reading.agent) == (number, number + 1, "writer")


def test_stale_copy_served_because_another_process_of_the_same_agent_wrote(two: tuple[Workspace, Workspace]) -> None:
    one, other = (workspace.agent("planner") for workspace in two)
    one.write("k", "old")
    assert other.read("k") is not None
    assert one.read("k") is not None
    other.write("k", "new")
    reading = one.read("k")
    assert reading is not None
    assert reading.value == "new"


def test_a_lost_signal_that_means_staleness_for_ever(two: tuple[Workspace, Workspace]) -> None:
    """There is no signal to lose: a reader that heard of nothing for a thousand writes asks the log."""
    one, other = two
    reader = other.agent("reader")
    one.agent("writer").write("k", -1)
    assert reader.read("k") is not None
    for number in range(1_000):
        one.agent("writer").write(f"k{number % 7}", number)
    one.agent("writer").write("k", "last")
    reading = reader.read("k")
    assert reading is not None
    assert reading.value == "last"


def test_local_freshness_is_what_this_process_has_folded(two: tuple[Workspace, Workspace]) -> None:
    one, other = two
    one.agent("a").write("k", 1)
    reader = other.agent("b")
    assert reader.read("k") is not None
    written = one.agent("a").write("k", 2)
    stale = reader.read("k", freshness="local")
    assert stale is not None
    if isinstance(other.coordinator, LocalCoordinator):
        assert (stale.value, stale.position.sequence < written.position.sequence) == (1, True)
    else:
        assert stale.value in (1, 2)  # there what others write is folded as it comes
    fresh = reader.read("k", freshness="local", at_least=str(written.position))
    assert fresh is not None
    assert fresh.value == 2
    with pytest.raises(UsageError, match="latest"):
        reader.read("k", freshness="newest")


def test_a_position_of_another_log_or_beyond_the_end_is_said(connect: Connect, tmp_path: Path) -> None:
    workspace = connect()
    with ccs_stream.connect() as elsewhere:
        token = str(elsewhere.agent("a").write("k", 1).position)
    with pytest.raises(LogDiverged, match="another log"):
        workspace.agent("a").read("k", at_least=token)
    with pytest.raises(UsageError, match="not a position"):
        workspace.agent("a").read("k", at_least="abc")


def test_stale_copy_served_after_a_reclaim(connect: Connect) -> None:
    settings = WorkspaceSettings(crash_recovery=True, maximum_hold_us=Micros(SECOND_US // 100))
    workspace = connect(settings=settings)
    owner, other = workspace.agent("owner"), workspace.agent("other")
    owner.write("k", "old")
    assert workspace.coordinator.wait(
        lambda: any(each.reclaimed for each in workspace.engine.state.artifacts.values()), 20
    )
    with pytest.raises(Reclaimed):
        owner.write("k", "zombie")
    other.write("k", "new")
    reading = owner.read("k")
    assert reading is not None
    assert reading.value == "new"
    written = owner.write("k", "owner again")
    assert written.version == 3


def test_an_observer_callback_that_breaks_blocks_or_deadlocks_a_write(connect: Connect) -> None:
    """Nobody is called inside a write: observers read the log, at their own pace, and may use the workspace."""
    workspace = connect()
    seen: list[Any] = []
    blocked = threading.Event()
    release = threading.Event()

    def breaks() -> None:
        for _ in workspace.watch(after=start):
            return  # an observer that gives up

    def blocks() -> None:
        for change in workspace.watch(after=start):
            blocked.set()
            release.wait(30)
            seen.append(change.value)
            return

    def writes_back() -> None:
        for change in workspace.watch(after=start):
            workspace.agent("observer").write("echo", change.value)
            return

    start = str(workspace.position)
    observers = [threading.Thread(target=each) for each in (breaks, blocks, writes_back)]
    for observer in observers:
        observer.start()
    agent = workspace.agent("a")
    for number in range(20):
        assert agent.write("k", number).version == number + 1
    assert blocked.wait(30)
    assert agent.write("k", "while it blocks").version == 21
    release.set()
    for observer in observers:
        observer.join(30)
    assert seen == [0]
    reading = agent.read("echo")
    assert reading is not None
    assert reading.value == 0


def test_write_all_is_all_or_none(connect: Connect) -> None:
    workspace = connect()
    workspace.agent("a").write("old", 0)
    with pytest.raises(VersionConflict):
        workspace.write_all([Put("new", 1), Put("old", 1, expected=7)], agent="b")
    assert workspace.artifacts() == [((), "old")]
    written = workspace.write_all([Put("new", 1), Delete("old"), Delete("absent")], agent="b")
    assert [each.version for each in written] == [1, 2, None]
    assert workspace.artifacts() == [((), "new")]
    assert workspace.write_all([], agent="b") == []
    with pytest.raises(CcsError, match="twice"):
        workspace.write_all([Put("k", 1), Put("k", 2)], agent="b")


def test_write_all_of_more_than_one_record_holds_goes_by_way_of_the_content_store(connect: Connect) -> None:
    workspace = connect()
    bodies = {f"k{number}": "x" * 60_000 + str(number) for number in range(30)}
    workspace.write_all([Put(key, value) for key, value in bodies.items()], agent="a")
    readings = workspace.read_all(list(bodies))
    assert [reading.value if reading else None for reading in readings] == list(bodies.values())


def test_a_decision_too_large_for_one_record_is_refused_and_the_next_is_served(connect: Connect) -> None:
    workspace = connect(settings=WorkspaceSettings(maximum_decision_bytes=20_000, inline_content_bytes=100))
    with pytest.raises(TooLarge):
        workspace.write_all([Put("k" * 50 + str(number), "x" * 90) for number in range(400)], agent="a")
    assert workspace.artifacts() == []
    assert workspace.agent("a").write("k", 1).version == 1


def test_read_all_is_several_artifacts_at_one_position(connect: Connect) -> None:
    workspace = connect()
    stop = threading.Event()
    torn: list[Any] = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            workspace.write_all([Put("a", number), Put("b", number)], agent="writer")

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(200):
        a, b = workspace.read_all(["a", "b"])
        if a is not None and b is not None and a.value != b.value:
            torn.append((a.value, b.value))
    stop.set()
    writer.join()
    assert torn == []


def test_what_read_all_read_counts_for_the_agent_it_was_read_for(connect: Connect) -> None:
    workspace = connect()
    workspace.agent("a").write("k", 1)
    workspace.read_all(["k"], agent="b")
    assert not workspace.agent("b").write("k", 2).overwrote_unseen
    workspace.read_all(["k"])
    assert workspace.agent("c").write("k", 3).overwrote_unseen


def test_bytes_travel_as_they_are(connect: Connect) -> None:
    workspace = connect()
    agent = workspace.agent("a")
    for body in (b"", b"\x00\xff", b"x" * 200_000):
        agent.write("k", body)
        reading = agent.read("k")
        assert reading is not None
        assert (reading.value, reading.content_type) == (body, "application/octet-stream")


def test_a_watch_resumes_from_any_position_it_was_given(connect: Connect) -> None:
    workspace = connect()
    agent = workspace.agent("a")
    agent.write("k", 1)
    before = workspace.position
    agent.write("k", 2)
    agent.write("other", 3)
    with workspace.watch(after=str(before)) as watch:
        assert [(change.key, change.value) for change in watch.poll()] == [("k", 2), ("other", 3)]


def test_a_life_and_a_reason_are_kept(connect: Connect) -> None:
    agent = connect().agent("a")
    agent.write("k", 1, ttl_s=60, reason="because")
    reading = agent.read("k")
    assert reading is not None
    assert reading.expires_at is not None
    assert (reading.expires_at - reading.updated_at).total_seconds() == 60
    assert agent.history("k")[0].reason == "because"
    with pytest.raises(UsageError, match="more than 0"):
        agent.write("k", 1, ttl_s=0)


def test_delete_and_its_conditions(connect: Connect) -> None:
    agent = connect().agent("a")
    assert agent.delete("k").version is None
    agent.write("k", 1)
    with pytest.raises(VersionConflict):
        agent.delete("k", expected=9)
    assert agent.delete("k", expected=1, reason="gone").version == 2
    assert agent.read("k") is None
    with pytest.raises(VersionConflict):
        agent.compare_and_set("k", 2, expected=1)
    assert agent.compare_and_set("k", 2, expected=2).version == 3


def test_history_tells_of_every_version_and_the_past_is_still_there(connect: Connect) -> None:
    workspace = connect()
    agent = workspace.agent("a")
    positions = [agent.write("k", number).position for number in range(5)]
    positions.append(agent.delete("k").position)
    changes = agent.history("k")
    assert [change.kind for change in changes] == ["deleted", *["written"] * 5]
    assert [change.value for change in changes[1:]] == [4, 3, 2, 1, 0]
    assert len(agent.history("k", limit=2)) == 2
    assert agent.history("absent") == []
    for number, position in enumerate(positions[:5]):
        reading = workspace.as_of(position).read("k")
        assert reading is not None
        assert reading.value == number
    assert workspace.as_of(str(positions[5])).read("k") is None
    with pytest.raises(UsageError, match="holds no sequence"):
        workspace.as_of(10_000)


def test_a_session_that_the_log_has_ended_is_replaced(connect: Connect) -> None:
    workspace = connect()
    agent = workspace.agent("a")
    agent.write("k", 1)
    lost = workspace.engine.session.current.session_id
    operator = SessionId(uuid.uuid4().bytes)
    workspace.coordinator.execute(Evict(session_id=operator, number=CommandNumber(1), target=lost))
    assert agent.write("k", 2).version == 2
    assert workspace.engine.session.current.session_id != lost
    reading = agent.read("k")
    assert reading is not None
    assert reading.value == 2


def test_a_body_cache_of_any_size_changes_nothing_but_speed(connect: Connect) -> None:
    workspace = connect(body_cache_bytes=1)
    agent = workspace.agent("a")
    for number in range(20):
        agent.write(f"k{number}", {"n": number})
    for number in range(20):
        reading = agent.read(f"k{number}")
        assert reading is not None
        assert reading.value == {"n": number}


def test_a_redacted_body_is_said_to_be_missing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url) as workspace:
        workspace.agent("a").write("k", "secret")
        workspace.agent("a").write("other", "kept")
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("UPDATE records SET tail = x'00' WHERE tail LIKE '%secret%'")
    rows = connection.execute("SELECT key, tail FROM records WHERE tail IS NOT NULL").fetchall()
    for key, tail in rows:
        if b"secret" in tail:
            connection.execute("UPDATE records SET tail = x'00' WHERE key = ?", (key,))
    connection.commit()
    connection.close()
    with ccs_stream.connect(url) as workspace:
        with pytest.raises(ContentMissing, match="redacted"):
            workspace.agent("b").read("k")
        reading = workspace.agent("b").read("other")
        assert reading is not None
        assert reading.value == "kept"


def test_settings_are_those_of_the_first_and_others_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, settings=WorkspaceSettings(maximum_content_bytes=1_000, inline_content_bytes=500)):
        pass
    with pytest.raises(CcsError, match="maximum_content_bytes is 1000"):
        ccs_stream.connect(url, settings=WorkspaceSettings())
    with ccs_stream.connect(url) as workspace, pytest.raises(TooLarge):
        workspace.agent("a").write("k", "x" * 2_000)


def test_a_closed_workspace_says_so_and_closes_twice(connect: Connect) -> None:
    workspace = connect()
    agent = workspace.agent("a")
    agent.write("k", 1)
    workspace.close()
    workspace.close()
    for call in (lambda: agent.read("k"), lambda: agent.write("k", 2), workspace.artifacts, workspace.state_hash):
        with pytest.raises(Closed):
            call()


def test_names_are_checked(connect: Connect) -> None:
    workspace = connect()
    for name in ("", None, 7):
        with pytest.raises(UsageError):
            workspace.agent(name)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        connect(workspace="")
    agent, before = workspace.agent("a"), workspace.position
    for key, scope in (("\ud800", ()), (7, ()), ("k", ("\udfff",)), ("k", (None,))):
        with pytest.raises(UsageError):
            agent.write(key, 1, scope=scope)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="lone surrogate"):
        workspace.agent("\ud800").write("k", 1)
    assert workspace.position == before


async def test_everything_has_an_async_form(connect: Connect) -> None:
    async with connect() as workspace:
        a, b = workspace.agent("a"), workspace.agent("b")
        written = await a.awrite("k", {"n": 1})
        reading = await b.aread("k", at_least=written.position)
        assert reading is not None
        assert (await b.acompare_and_set("k", {"n": 2}, expected=reading.version)).version == 2
        await workspace.awrite_all([Put("x", 1), Put("y", 2)], agent="a")
        assert [each.value if each else None for each in await workspace.aread_all(["x", "y"])] == [1, 2]
        async with a.acquire("k", limit_s=30):
            with pytest.raises(Reserved):
                await b.awrite("k", {"n": 3})
            await a.awrite("k", {"n": 4})
        assert [change.version for change in await a.ahistory("k")] == [3, 2, 1]
        past = await workspace.aas_of(written.position)
        then = past.read("k")
        assert then is not None
        assert then.value == {"n": 1}
        assert (await a.adelete("k")).version == 4


async def test_many_coroutines_share_one_thread(connect: Connect) -> None:
    workspace = connect(deliveries=False)
    before = threading.active_count()
    await asyncio.gather(*(workspace.agent(f"a{number % 7}").awrite(f"k{number}", number) for number in range(200)))
    assert threading.active_count() <= before + 1
    assert len(workspace.artifacts()) == 200


async def test_waiting_for_a_reservation_does_not_block_the_loop(connect: Connect) -> None:
    workspace = connect()
    order: list[str] = []

    async def wait() -> None:
        async with workspace.agent("b").acquire("k", wait_s=30):
            order.append("b")

    async with workspace.agent("a").acquire("k", limit_s=30):
        waiting = asyncio.create_task(wait())
        for _ in range(5):
            await asyncio.sleep(0.01)
            order.append("a")
    await asyncio.wait_for(waiting, 30)
    assert order == ["a"] * 5 + ["b"]


def test_waiting_ends_when_the_holder_s_time_is_over(two: tuple[Workspace, Workspace]) -> None:
    one, other = two
    one.agent("a").acquire("k", limit_s=1.0).__enter__()
    with pytest.raises(Reserved), other.agent("b").acquire("k"):
        pass
    with other.agent("b").acquire("k", wait_s=30) as reservation:
        assert reservation.fence == 3


async def test_writes_of_one_moment_are_told_what_they_replaced(tmp_path: Path) -> None:
    async with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", workspace="w") as workspace:
        agents = [workspace.agent(f"agent-{number}") for number in range(8)]
        await asyncio.gather(*(agent.awrite(f"warm-{agent.name}", 1) for agent in agents))
        for number in range(5):
            written = await asyncio.gather(*(agent.awrite(f"plan-{number}", agent.name) for agent in agents))
            assert [each.overwrote_unseen for each in sorted(written, key=lambda each: each.version or 0)] == [
                False,
                *[True] * 7,
            ]
            await agents[0].adelete(f"plan-{number}")
            anew = await asyncio.gather(*(agent.awrite(f"plan-{number}", agent.name) for agent in agents[1:4]))
            assert sorted(each.overwrote_unseen for each in anew) == [False, True, True]
