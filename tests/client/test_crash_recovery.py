"""Crash recovery around the core: its limits, its thread, and processes that are stopped, continued and killed."""

import asyncio
import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import UsageError, Workspace, WorkspaceSettings
from ccs_stream.client.operations.errors import error_of
from ccs_stream.client.operations.steps import run, run_async
from ccs_stream.client.recovery import (
    CrashRecoveryConfig,
    SessionHeartbeat,
    UnknownAgent,
    check_composition,
    heartbeat_steps,
    recover,
    recover_steps,
    settings_with,
    start_heartbeat,
)
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import LogBusy, Reclaimed
from ccs_stream.protocol.events import Event, GrantReclaimed, RefusalReason, SessionRenewed
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.reclaims import ReclaimReason
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.given_when_then import Story
from tests.waiting import until

HOLDER = Path(__file__).with_name("holder.py")


def quick(timeout_s: float = 0.3, **more: Any) -> WorkspaceSettings:
    """Settings of a workspace with crash recovery."""
    settings = settings_with(CrashRecoveryConfig(enabled=True, heartbeat_timeout_s=timeout_s, **more), None)
    assert settings is not None
    return settings


# The limits.


def test_seconds_win_over_ticks_and_ticks_have_a_length() -> None:
    config = CrashRecoveryConfig(True, 20, 300, tick_s=0.5)
    assert (config.heartbeat_timeout_us, config.heartbeat_interval_us, config.max_hold_us) == (
        10_000_000,
        2_000_000,
        150_000_000,
    )
    config = CrashRecoveryConfig(True, 20, 300, heartbeat_timeout_s=0.5, max_hold_s=2, tick_s=7)
    assert (config.heartbeat_timeout_us, config.heartbeat_interval_us, config.max_hold_us) == (
        500_000,
        100_000,
        2_000_000,
    )
    assert CrashRecoveryConfig(heartbeat_timeout_s=0.002).heartbeat_interval_us == 1_000
    assert CrashRecoveryConfig() == CrashRecoveryConfig(
        enabled=False, heartbeat_timeout_ticks=10, max_hold_ticks=1000, tick_s=1.0
    )
    with pytest.raises(AttributeError):
        config.enabled = False  # type: ignore[misc]


@pytest.mark.parametrize(
    "options",
    [
        {"enabled": 1},
        {"enabled": None},
        {"heartbeat_timeout_ticks": 0},
        {"heartbeat_timeout_ticks": -5},
        {"heartbeat_timeout_ticks": True},
        {"heartbeat_timeout_ticks": 2.5},
        {"heartbeat_timeout_ticks": "10"},
        {"max_hold_ticks": 0},
        {"max_hold_ticks": None},
        {"max_hold_ticks": 10**400},
        {"heartbeat_timeout_s": 0},
        {"heartbeat_timeout_s": -1.0},
        {"heartbeat_timeout_s": 0.001},
        {"heartbeat_timeout_s": float("nan")},
        {"heartbeat_timeout_s": "1"},
        {"heartbeat_timeout_s": True},
        {"max_hold_s": 0.0},
        {"max_hold_s": float("inf")},
        {"max_hold_s": 1e300},
        {"max_hold_s": False},
        {"max_hold_s": [1]},
        {"tick_s": 0},
        {"tick_s": None},
        {"tick_s": True},
        {"heartbeat_timeout_ticks": 1, "tick_s": 0.000_1},
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="crash_recovery"):
        CrashRecoveryConfig(**options)


def test_settings_with_crash_recovery_keep_their_other_limits() -> None:
    config = CrashRecoveryConfig(enabled=True, heartbeat_timeout_s=1, max_hold_s=60)
    given = WorkspaceSettings(maximum_changes=7)
    settings = settings_with(config, given)
    assert settings == WorkspaceSettings(
        maximum_changes=7,
        crash_recovery=True,
        heartbeat_interval_us=Micros(200_000),
        session_timeout_us=Micros(1_000_000),
        maximum_hold_us=Micros(60_000_000),
    )
    assert settings_with(config, settings) == settings
    for off in (None, CrashRecoveryConfig()):
        assert settings_with(off, None) is None
        assert settings_with(off, given) is given
    assert settings_with(None, settings) is settings


def test_crash_recovery_and_settings_that_contradict_each_other_are_refused() -> None:
    settings = quick(1.0)
    with pytest.raises(UsageError, match="not enabled"):
        settings_with(CrashRecoveryConfig(), settings)
    with pytest.raises(UsageError, match="different limits"):
        settings_with(CrashRecoveryConfig(enabled=True, heartbeat_timeout_s=2.0), settings)


@pytest.mark.parametrize(
    ("lease_s", "lease_ticks", "refused"),
    [
        (None, None, False),
        (59.999, None, False),
        (60, None, True),
        (61, None, True),
        (None, 119, False),
        (None, 120, True),
        (1, 121, True),
    ],
)
def test_a_lease_is_shorter_than_the_maximum_hold(
    lease_s: float | None, lease_ticks: int | None, refused: bool
) -> None:
    config = CrashRecoveryConfig(enabled=True, max_hold_s=60, tick_s=0.5)
    check_composition(CrashRecoveryConfig(max_hold_s=60), lease_s, lease_ticks)
    check_composition(None, lease_s, lease_ticks)
    if refused:
        with pytest.raises(UsageError, match="crash_recovery composition violation"):
            check_composition(config, lease_s, lease_ticks)
    else:
        check_composition(config, lease_s, lease_ticks)


def test_a_lease_is_held_against_the_settings_of_a_workspace_others_opened_too() -> None:
    check_composition(quick(max_hold_s=60), 59, 61)
    check_composition(WorkspaceSettings(), 10_000, None)
    with pytest.raises(UsageError, match="composition violation"):
        check_composition(quick(max_hold_s=60), 60, None)


def test_a_lease_in_ticks_is_held_against_ticks_of_their_own_length_from_beginning_to_end() -> None:
    config = CrashRecoveryConfig(enabled=True, heartbeat_timeout_ticks=100, max_hold_ticks=1_000, tick_s=0.1)
    with ccs_stream.connect(None, crash_recovery=config, strategy="lease", lease_ttl_ticks=999) as workspace:
        assert workspace.engine.state.settings.maximum_hold_us == 100_000_000
    with pytest.raises(UsageError, match="composition violation"):
        ccs_stream.connect(None, crash_recovery=config, strategy="lease", lease_ttl_ticks=1_000)


# The error.


def test_the_error_of_a_late_write_says_why_and_when() -> None:
    story = Story(quick(30.0))
    story.now = Micros(1_795_687_200_000_000)
    story.given(story.write("a", "k")).after(31).given(story.sweep())
    late = story.write("a", "k")
    story.when(late).refused(RefusalReason.RECLAIMED)
    error = error_of(story.refusal, "write of 'k'", story.state, late.session_id)
    assert isinstance(error, Reclaimed)
    assert (error.trigger, error.at) == ("reclaim_heartbeat", datetime(2026, 11, 26, 10, 0, 31, tzinfo=UTC))
    assert "(reclaim_heartbeat) at 2026-11-26T10:00:31.000000Z" in str(error)
    stranger = story.join("z").session_id
    for unknown in (error_of(story.refusal, "w"), error_of(story.refusal, "w", story.state, stranger)):
        assert isinstance(unknown, Reclaimed)
        assert (unknown.trigger, unknown.at) == (None, None)
    story.given(story.acquire("b", "k", 1))
    late = story.after(3).write("b", "k", fence=1)
    story.when(late).refused(RefusalReason.RECLAIMED)
    error = error_of(story.refusal, "write of 'k'", story.state, late.session_id)
    assert isinstance(error, Reclaimed)
    assert (error.trigger, error.at) == ("expired", datetime(2026, 11, 26, 10, 0, 32, tzinfo=UTC))


# The thread.


@pytest.fixture
def kept() -> Iterator[Callable[[Workspace], SessionHeartbeat]]:
    """Starts a keeper of ours in place of a workspace's own, and ends it."""
    started: list[SessionHeartbeat] = []

    def start(workspace: Workspace) -> SessionHeartbeat:
        if workspace._heartbeat is not None:
            workspace._heartbeat.close()
        keeper = start_heartbeat(workspace.engine)
        assert keeper is not None
        started.append(keeper)
        return keeper

    yield start
    for each in started:
        each.close()


def events_of(url: str) -> list[tuple[Micros, Event]]:
    """Everything that happened, with its time."""
    store = open_log(url, read_only=True)
    found = [
        (entry.record.recorded_at, event)
        for entry in ShardReader(store, "w").read()
        if isinstance(entry.record, DecisionRecord)
        for event in entry.events
    ]
    store.close()
    return found


def owner_is(workspace: Workspace, agent: str) -> bool:
    """Whether the agent of this session holds `k` in M or E, as far as was folded."""
    state, engine = workspace.engine.state, workspace.engine
    artifact = state.artifacts.get(engine.session.address((), "k"))
    return artifact is not None and artifact.owner == engine.session.current.joined.get(agent, -1)


def beats(workspace: Workspace) -> bool | None:
    """Whether the heartbeat of the workspace is alive; None where it has none."""
    return next((worker.alive for worker in workspace.health().workers if worker.name == "heartbeat"), None)


def test_a_workspace_without_crash_recovery_has_no_keeper() -> None:
    with ccs_stream.connect(None, settings=WorkspaceSettings()) as workspace:
        assert start_heartbeat(workspace.engine) is None
        assert beats(workspace) is None


def test_a_workspace_that_others_opened_with_crash_recovery_has_a_keeper(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with ccs_stream.connect(url, workspace="w", settings=quick()):
        pass
    with ccs_stream.connect(url, workspace="w") as workspace:
        assert beats(workspace)
    until("the end of it", lambda: not beats(workspace))


def test_an_idle_process_that_only_hits_is_renewed_at_most_once_an_interval_and_keeps_its_grant(tmp_path: Path) -> None:
    url, settings = f"sqlite:///{tmp_path}/log.db", quick(3.0)
    with (
        ccs_stream.connect(url, workspace="w", settings=settings) as workspace,
        ccs_stream.connect(url, workspace="w"),
    ):
        agent = workspace.agent("a")
        agent.write("k", 1)
        began = workspace.engine.state.recorded_at

        def lived_on() -> bool:
            reading = agent.read("k")
            assert reading is not None
            return workspace.engine.state.recorded_at > began + settings.session_timeout_us

        until("renewals for longer than the time-out", lived_on)
        assert owner_is(workspace, "a")
    found = events_of(url)
    renewed = [at for at, event in found if isinstance(event, SessionRenewed)]
    assert len(renewed) >= 2
    gaps = [later - earlier for earlier, later in itertools.pairwise(renewed)]
    assert all(gap >= settings.heartbeat_interval_us for gap in gaps)
    assert not any(isinstance(event, GrantReclaimed) for _, event in found)


def test_rounds_with_nothing_to_renew_and_nothing_to_take_back_append_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with (
        ccs_stream.connect(url, workspace="w", settings=quick(600.0)) as workspace,
        ccs_stream.connect(url, workspace="w") as other,
    ):
        keeper = SessionHeartbeat(workspace.engine)
        workspace.agent("a").write("k", 1)
        other.agent("b").read("k")
        workspace.engine.coordinator.catch_up()
        assert not owner_is(workspace, "a")
        before = workspace.position
        with monkeypatch.context() as patched:
            patched.setattr(workspace.coordinator, "execute", lambda *_, **__: pytest.fail("something was asked for"))
            for _ in range(20):
                assert keeper._round() is None
        assert workspace.position == before
        assert keeper.failures == 0
        workspace.agent("a").write("k", 2)
        before = workspace.position
        for _ in range(20):
            assert keeper._round() is None
        assert workspace.position.sequence == before.sequence + 1  # one sign of life, and no second one so soon
        assert keeper.failures == 0


def test_rounds_fold_what_others_wrote_so_that_no_cache_stays_behind_for_long(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with (
        ccs_stream.connect(url, workspace="w", settings=quick(0.3)) as workspace,
        ccs_stream.connect(url, workspace="w") as onlooker,
    ):
        written = workspace.agent("a").write("k", 1)
        until("the write", lambda: onlooker.engine.state.sequence >= written.position.sequence)


def test_more_than_one_sweep_takes_back_is_taken_back_in_one_round(
    kept: Callable[[Workspace], SessionHeartbeat],
) -> None:
    store = MemoryLog()
    workspace = Workspace(store, "w", settings=quick(600.0))
    gone = Workspace(store, "w")
    gone.write_all([ccs_stream.Put(f"k{number}", 1) for number in range(600)], agent="gone")
    keeper = kept(workspace)
    now = workspace.coordinator.now()
    workspace.coordinator.now = gone.coordinator.now = lambda: Micros(now + 601_000_000)
    assert keeper._round() is None
    assert not any(each.owner for each in workspace.engine.state.artifacts.values())


def test_a_round_that_fails_is_told_once_counted_and_made_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: Callable[[Workspace], SessionHeartbeat]
) -> None:
    with ccs_stream.connect(None, settings=quick(0.05)) as workspace:
        workspace.agent("a").write("k", 1)

        def fail(*_: Any, **__: Any) -> None:
            raise LogBusy("the log is away")

        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(workspace.engine.session, "heartbeat", fail)
            patched.setattr(workspace.coordinator, "sweep", fail)
            keeper = kept(workspace)
            until("three failures", lambda: keeper.failures >= 3)
        said = [each for each in caplog.records if each.name == "ccs_stream.client.recovery"]
        assert [each.getMessage().rpartition(": ")[2] for each in said] == ["the log is away"]
        before = workspace.position.sequence
        until("a round that does something", lambda: workspace.position.sequence > before)
        assert keeper.alive


def test_a_keeper_ends_with_its_workspace(kept: Callable[[Workspace], SessionHeartbeat]) -> None:
    with ccs_stream.connect(None, settings=quick(0.05)) as workspace:
        workspace.agent("a").write("k", 1)
        keeper = kept(workspace)
        workspace.coordinator.close()  # without its session having left: there is something to renew
        until("the end of it", lambda: not keeper.alive)
        assert keeper.failures == 0


def test_a_workspace_that_nobody_holds_is_not_kept_alive(kept: Callable[[Workspace], SessionHeartbeat]) -> None:
    workspace = Workspace(MemoryLog(), "w", settings=quick(0.05))
    workspace.agent("a").write("k", 1)
    keeper, engine = kept(workspace), weakref.ref(workspace.engine)
    del workspace

    def gone() -> bool:
        gc.collect()
        return engine() is None and not keeper.alive

    until("the end of both", gone)


def test_a_fork_leaves_the_keeper_behind(tmp_path: Path, kept: Callable[[Workspace], SessionHeartbeat]) -> None:
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", workspace="w", settings=quick(0.05)) as workspace:
        workspace.agent("a").write("k", 1)
        keeper = kept(workspace)
        task = keeper._task
        with task._lock, task._called._cond:  # type: ignore[attr-defined]  # as they may be held when the parent forks
            child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # a child that waits for ever is a failure, and not to be waited for
            keeper.close()
            os._exit(int(keeper.alive or threading.active_count() != 1))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert keeper.alive


def test_closing_does_not_wait_for_the_next_round(kept: Callable[[Workspace], SessionHeartbeat]) -> None:
    with ccs_stream.connect(None, settings=quick(6_000.0)) as workspace:
        keeper = kept(workspace)
        keeper.close()
        assert not keeper.alive


# Recovering.


def test_recovering_makes_the_next_read_a_miss_and_what_was_read_unread() -> None:
    with ccs_stream.connect(None) as workspace:
        agent, other = workspace.agent("a"), workspace.agent("b")
        agent.write("k", 1)
        other.write("j", 1)
        agent.read("k"), agent.read("j"), other.read("j")
        engine = workspace.engine
        key, jay = engine.session.address((), "k"), engine.session.address((), "j")
        assert engine.reader.servable("a", key) is not None
        before = workspace.position, workspace.state_hash()
        recover(engine, "a")
        assert (workspace.position, workspace.state_hash()) == before
        assert engine.reader.servable("a", key) is None
        assert engine.reader.servable("a", jay) is None
        assert engine.reader.servable("b", jay) is not None
        assert engine.read_sets.current("a").versions == {}
        assert engine.read_sets.current("b").versions != {}
        reading = agent.read("k")
        assert reading is not None
        assert engine.reader.servable("a", key) is not None
        recover(engine, None)
        assert engine.reader.servable("a", key) is None
        assert engine.reader.servable("b", jay) is None


def test_recovering_gives_a_sign_of_life_where_crash_recovery_is_on() -> None:
    with ccs_stream.connect(None, settings=quick(600.0)) as workspace:
        workspace.agent("a").write("k", 1)
        before = workspace.position.sequence
        recover(workspace.engine, "a")
        assert workspace.position.sequence == before + 1
        run(workspace.coordinator, heartbeat_steps(workspace.engine))
        assert workspace.position.sequence == before + 1


def test_recovering_in_a_coroutine_forgets_what_was_read_where_it_was_called() -> None:
    async def go() -> None:
        with ccs_stream.connect(None, settings=quick(600.0)) as workspace:
            await workspace.agent("a").awrite("k", 1)
            mine = workspace.engine.read_sets.current("a")
            assert mine.versions
            await asyncio.gather(run_async(workspace.coordinator, recover_steps(workspace.engine, "a")))
            assert not mine.versions

    asyncio.run(go())


def test_an_agent_that_is_not_there_cannot_recover() -> None:
    with ccs_stream.connect(None) as workspace:
        with pytest.raises(UnknownAgent, match=r"^unknown_agent 'a'.*joined: none"):
            recover(workspace.engine, "a")
        workspace.agent("b").write("k", 1)
        for kind in (UsageError, KeyError):
            with pytest.raises(kind, match="joined: 'b'"):
                recover(workspace.engine, "a")
        recover(workspace.engine, None)


# Processes.


class Holder:
    """A process of its own, in which the agent `holder` does as it is told."""

    def __init__(self, url: str, workspace: str = "w", timeout_s: float = 0.3) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HOLDER, url, workspace, str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def does(self, order: str) -> dict[str, Any]:
        """Its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Send it."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def holder(url: str) -> Iterator[Holder]:
    started = Holder(url)
    yield started
    started.end()


def lost(workspace: Workspace) -> bool:
    """Whether somebody's silence cost it a grant, as far as was folded."""
    participants = tuple(workspace.engine.state.participants.values())
    return any(
        reclaim is not None and reclaim.reason is ReclaimReason.HEARTBEAT
        for each in participants
        for reclaim in tuple(each.reclaimed.values())
    )


def test_a_killed_holder_loses_its_grant_without_anybody_asking_for_it(url: str, holder: Holder) -> None:
    assert holder.does("write v1") == {"version": 1}
    with ccs_stream.connect(url, workspace="w") as workspace:
        assert workspace.engine.state.settings.crash_recovery
        holder.end()
        until("the reclaim", lambda: lost(workspace))
        artifact = workspace.engine.state.artifacts[workspace.engine.session.address((), "k")]
        assert artifact.owner == 0
        assert workspace.agent("b").write("k", "v2").version == 2
    reclaims = [event for _, event in events_of(url) if isinstance(event, GrantReclaimed)]
    assert [each.from_state for each in reclaims] == [GrantState.MODIFIED]


@pytest.mark.parametrize("freshness", ["", " own_writes"])
def test_C3_a_reclaimed_copy_is_not_served(  # noqa: N802
    url: str, holder: Holder, freshness: str
) -> None:
    assert holder.does("write v1") == {"version": 1}
    assert holder.does("read") == {"value": "v1"}
    with ccs_stream.connect(url, workspace="w") as workspace:
        holder.signal(signal.SIGSTOP)
        until("the reclaim", lambda: lost(workspace))
        workspace.agent("b").write("k", "v2")
        holder.signal(signal.SIGCONT)
        if freshness:  # what it serves then is what it has folded, and its own rounds fold what others wrote
            until("a copy of the new version", lambda: holder.does(f"read{freshness}") == {"value": "v2"})
        assert holder.does(f"read{freshness}") == {"value": "v2"}


def test_C4_no_zombie_write_after_a_reclaim(  # noqa: N802
    url: str, holder: Holder
) -> None:
    assert holder.does("write v1") == {"version": 1}
    with ccs_stream.connect(url, workspace="w") as workspace:
        holder.signal(signal.SIGSTOP)
        until("the reclaim", lambda: lost(workspace))
        workspace.agent("b").write("k", "v2")
        holder.signal(signal.SIGCONT)
        late = holder.does("write late")
        assert late["refused"] == "reclaimed"
        at = next(at for at, event in events_of(url) if isinstance(event, GrantReclaimed))
        time = datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        assert f"your grant was reclaimed (reclaim_heartbeat) at {time}" in late["said"]
        assert holder.does("write again")["refused"] == "reclaimed"
        reading = workspace.agent("b").read("k")
        assert reading is not None
        assert (reading.value, reading.version) == ("v2", 2)
        assert holder.does("read") == {"value": "v2"}
        assert holder.does("write v3") == {"version": 3}


@pytest.mark.kafka
def test_on_kafka_the_leader_reclaims_by_itself(kafka_log: str) -> None:
    name = uuid.uuid4().hex
    holder = Holder(kafka_log, name)
    try:
        assert holder.does("write v1") == {"version": 1}
        with ccs_stream.connect(kafka_log, workspace=name) as workspace:
            holder.end()
            until("the reclaim", lambda: lost(workspace))
            assert workspace.agent("b").write("k", "v2").version == 2
    finally:
        holder.end()


def test_a_lease_longer_than_the_hold_of_a_workspace_that_others_opened_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    config = CrashRecoveryConfig(enabled=True, heartbeat_timeout_s=1, max_hold_s=5)
    options: dict[str, Any] = {"strategy": "lease", "lease_ttl": timedelta(seconds=5)}
    with ccs_stream.connect(url, crash_recovery=config):
        with pytest.raises(UsageError, match="composition violation"):
            ccs_stream.connect(url, **options)
        options["lease_ttl"] = timedelta(seconds=4)
        ccs_stream.connect(url, **options).close()
