"""Several workspaces of one process on one log: one connection, one follower, and each of them by itself."""

import multiprocessing
import threading
import uuid

import pytest

import ccs_stream
from ccs_stream import Workspace
from ccs_stream.coordinator.kafka.follower.shared_follower import _SHARED
from ccs_stream.coordinator.kafka.shard.replica import ShardReplica
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.shared_logs import _OPEN
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, Closed
from ccs_stream.protocol.statehash import state_hash
from tests.kafka import as_another_host, coordinator_of
from tests.waiting import until

pytestmark = pytest.mark.kafka

MODES = ("embedded", "remote")


def value(workspace: Workspace, key: str) -> object:
    reading = workspace.agent("reader").read(key, freshness="latest")
    return None if reading is None else reading.value


def holds(workspace: Workspace) -> bool:
    """True if its state is a fold of its log."""
    return workspace.as_of(workspace.position).state_hash() == workspace.state_hash()


def test_workspaces_of_one_process_have_one_follower(log: str) -> None:
    with ccs_stream.connect(log, workspace="a") as a, ccs_stream.connect(f"{log}&workspace=b") as b:
        assert coordinator_of(a).follower is coordinator_of(b).follower
        assert coordinator_of(a).leads
        assert coordinator_of(b).leads
        a.agent("x").write("k", 1)
        b.agent("x").write("k", 2)
        assert (value(a, "k"), value(b, "k")) == (1, 2)
        assert (a.name, b.name) == ("a", "b")
        with ccs_stream.connect(as_another_host(log), workspace="a") as elsewhere:
            assert coordinator_of(elsewhere).follower is not coordinator_of(a).follower
            assert value(elsewhere, "k") == 1


def test_the_health_of_a_workspace_says_who_leads_and_which_threads_run(log: str) -> None:
    with (
        ccs_stream.connect(log, workspace="w") as leading,
        ccs_stream.connect(as_another_host(f"{log}&coordinator=remote"), workspace="w") as asking,
    ):
        written = asking.agent("a").write("k", 1)
        leader, asker = (coordinator_of(each).health() for each in (leading, asking))
        assert (leader.leads, leader.offers_to_lead, asker.leads, asker.offers_to_lead) == (True, True, False, False)
        assert leader.epoch == asker.epoch == 1
        assert (asker.commands_waiting, asker.commands_in_flight, asker.last_error) == (0, 0, None)
        assert asker.connected
        assert asker.folded_offset >= written.position.offset
        assert asker.lag_records == 0
        alive = {worker.name for worker in leader.workers if worker.alive}
        assert {"follow", "member", "candidate", "topic-monitor"} <= alive
        assert not any(worker.failures for worker in leader.workers)
    assert coordinator_of(asking).health().closed
    assert not any(worker.alive for worker in coordinator_of(asking).health().workers)


@pytest.mark.parametrize("mode", MODES)
def test_each_is_closed_by_itself_and_the_last_one_ends_it(log: str, mode: str) -> None:
    url = f"{log}&coordinator={mode}"
    with ccs_stream.connect(as_another_host(log), workspace="leading"):
        first, second, again = (ccs_stream.connect(url, workspace=name) for name in ("a", "b", "a"))
        follower = coordinator_of(first).follower
        first.agent("x").write("k", 1)
        first.close()
        with pytest.raises(Closed):
            first.agent("x").write("k", 2)
        assert value(again, "k") == 1
        second.agent("x").write("k", 3)
        again.close()
        with ccs_stream.connect(url, workspace="a") as back:
            assert coordinator_of(back).follower is follower
            assert value(back, "k") == 1
            assert holds(back)
        second.agent("x").write("k", 4)
        assert value(second, "k") == 4
        second.close()
        assert not any(worker.alive for worker in follower.workers())
        with ccs_stream.connect(url, workspace="b") as anew:
            assert coordinator_of(anew).follower is not follower
            assert value(anew, "k") == 4


def test_a_workspace_with_a_past_is_followed_beside_another_that_goes_on(log: str) -> None:
    """Of a client that follows only what it has open."""
    with (
        ccs_stream.connect(log, workspace="past") as past,
        ccs_stream.connect(as_another_host(f"{log}&coordinator=remote"), workspace="busy") as busy,
    ):
        for number in range(300):
            past.agent("x").write(f"k{number % 7}", number)
        stop = threading.Event()

        def write_on() -> None:
            agent, number = busy.agent("y"), 0
            while not stop.is_set():
                agent.write("k", number := number + 1)

        writing = threading.Thread(target=write_on)
        writing.start()
        try:
            opened = []
            for name in ("past", *(uuid.uuid4().hex for _ in range(5))):
                opened.append(ccs_stream.connect(as_another_host(f"{log}&coordinator=remote"), workspace=name))
                assert coordinator_of(opened[-1]).shard is coordinator_of(busy).shard
        finally:
            stop.set()
            writing.join()
        assert value(opened[0], "k6") == 293
        past.agent("x").write("k6", "later")
        assert value(opened[0], "k6") == "later"
        assert all(holds(each) for each in (busy, *opened))
        assert opened[0].state_hash() == past.state_hash()
        for each in opened:
            each.close()
        assert set(coordinator_of(busy).shard.states) == {"busy"}


@pytest.mark.parametrize("stands_at", [20, 45], ids=["where-buffering-began", "at-a-snapshot-further-on"])
def test_records_that_come_while_a_workspace_is_read_by_itself_are_buffered_for_it(log: str, stands_at: int) -> None:
    with ccs_stream.connect(log, workspace="past") as past, ccs_stream.connect(log, workspace="busy") as busy:
        for number in range(40):
            past.agent("x").write("k", number)
            busy.agent("x").write("k", number)
        store = KafkaLog(KafkaSettings.parse(log))
        messages = list(store.messages(0, -1))
        followed, other = ShardReplica(store, 0, workspace="busy"), ShardReplica(store, 0, workspace="past")
        followed.take(messages[:20])
        with followed.buffering() as buffer:
            assert buffer.after == messages[19].offset()
            other.take(messages[:stands_at])
            followed.take(messages[20:40])
            assert followed.merge_from(other, buffer) == (stands_at < 40)
            if stands_at > 40:
                followed.take(messages[40:60])
                assert followed.merge_from(other, buffer)
        followed.take(each for each in messages if (each.offset() or 0) > followed.reader.offset)
        assert state_hash(followed.states["past"]) == past.state_hash()
        assert state_hash(followed.states["busy"]) == busy.state_hash()
        store.close()


@pytest.mark.parametrize("mode", MODES)
def test_workspaces_opened_at_once_by_several_threads(log: str, mode: str) -> None:
    url, opened = f"{log}&coordinator={mode}", list[Workspace]()
    with ccs_stream.connect(as_another_host(log), workspace="leading"):

        def open_one(name: str) -> None:
            workspace = ccs_stream.connect(url, workspace=name)
            workspace.agent("x").write("k", name)
            opened.append(workspace)

        threads = [threading.Thread(target=open_one, args=(f"w{number % 4}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) == 8
        assert all(value(each, "k") == each.name and holds(each) for each in opened)
        for each in opened:
            each.close()
    assert not _SHARED
    assert not _OPEN


def test_two_openings_of_one_workspace_both_get_every_decision(log: str) -> None:
    with ccs_stream.connect(log, workspace="a") as one, ccs_stream.connect(log, workspace="a") as two:
        called: list[str] = []
        for name, each in (("one", one), ("two", two)):
            coordinator_of(each).on_bodies = lambda events, bodies, name=name: called.append(name)
        one.agent("x").write("k", 1)  # by whom it was written has its body
        assert called == ["two"]
        two.agent("x").write("k", 2)
        assert called == ["two", "one"]
        assert one.state_hash() == two.state_hash()


def test_a_failed_follower_fails_all_workspaces_and_the_next_one_begins_with_a_new_one(log: str) -> None:
    with ccs_stream.connect(log, workspace="a") as a, ccs_stream.connect(log, workspace="b") as b:
        a.agent("x").write("k", 1)
        follower = coordinator_of(a).follower
        follower.fail(CcsError("planted"))
        until("it has ended", lambda: not follower.workers()[0].alive)
        for each in (a, b):
            with pytest.raises(CcsError, match="planted"):
                each.agent("x").write("k", 2)
        with ccs_stream.connect(log, workspace="a") as anew:
            assert coordinator_of(anew).store.clients is not coordinator_of(a).store.clients
            anew.agent("x").write("k", 3)
            assert value(anew, "k") == 3


def _write_in_child(url: str, said: "multiprocessing.queues.Queue[object]") -> None:
    with ccs_stream.connect(url, workspace="child") as workspace:
        workspace.agent("x").write("k", "child")
        said.put(value(workspace, "k"))


def test_a_forked_child_shares_nothing_with_its_parent(log: str) -> None:
    context = multiprocessing.get_context("fork")
    with ccs_stream.connect(log, workspace="parent") as parent:
        parent.agent("x").write("k", 1)
        said = context.Queue()
        child = context.Process(target=_write_in_child, args=(log, said))
        child.start()
        assert said.get(timeout=30) == "child"
        child.join(30)
        assert child.exitcode == 0
        parent.agent("x").write("k", 2)
        assert value(parent, "k") == 2


def test_a_log_that_is_open_is_asked_for_with_all_its_settings(log: str) -> None:
    """Only the workspace may differ."""
    settings = KafkaSettings.parse(log)
    opened = KafkaLog(settings)
    other = opened.share(KafkaSettings.parse(f"{log}&workspace=b"))
    assert other is not None
    assert (opened.named_workspace, other.named_workspace) == (None, "b")
    opened.close()
    assert other.end("b") == 0
    with pytest.raises(Closed):
        opened.end("b")
    other.close()
    assert opened.share() is None
