"""The end of a workspace: closed, dropped, or left open at the end of the program."""

import gc
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.client.lifetime import ClosingChain
from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.events import Event, SessionEnded
from tests.waiting import until


def events(url: str) -> list[Event]:
    store = open_log(url, read_only=True)
    found = [event for entry in ShardReader(store, "w").read() for event in entry.events]
    store.close()
    return found


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ccs-")]


def descriptors(folder: Path) -> int:
    """Files of this folder that the process has open."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(each.readlink()))
        except OSError:  # the descriptor of the listing itself
            continue
    return sum(link.startswith(str(folder)) for link in links)


# Closing.


def test_every_link_is_closed_in_reverse_order_whatever_one_raises() -> None:
    closed: list[str] = []

    def link(name: str, error: BaseException | None = None) -> None:
        closed.append(name)
        if error is not None:
            raise error

    chain = ClosingChain("a chain")
    chain.close_last(lambda _: link("store"), when_dropped=True)
    chain.add(lambda _: link("coordinator"))
    chain.add(lambda _: link("observers", ZeroDivisionError("first")))
    chain.add(lambda _: link("heartbeat", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        chain.close()
    assert closed == ["heartbeat", "observers", "coordinator", "store"]
    chain.close()
    assert len(closed) == 4


def test_links_share_a_bounded_time() -> None:
    left: list[float] = []
    chain = ClosingChain("a chain")
    for _ in range(3):
        chain.add(left.append)
    chain.close(5.0)
    assert all(0 < each <= 5 for each in left)


def test_closing_goes_on_where_an_observer_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    workspace = ccs_stream.connect(url, workspace="w")
    workspace.agent("planner").write("plan", 1)

    def failing(timeout_s: float) -> None:
        raise ZeroDivisionError("planted")

    assert workspace.observers.deliveries is not None
    monkeypatch.setattr(workspace.observers.deliveries, "close", failing)
    with pytest.raises(ZeroDivisionError):
        workspace.close()
    assert descriptors(tmp_path) == 0
    assert isinstance(events(url)[-1], SessionEnded)
    workspace.close()


def test_closing_in_a_forked_child_leaves_the_parent_alone(tmp_path: Path) -> None:
    workspace = ccs_stream.connect(f"sqlite:///{tmp_path}/log.db", workspace="w")
    workspace.agent("planner").write("plan", 1)
    child = os.fork()
    if child == 0:
        try:
            workspace.close()
            workspace.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert workspace.agent("planner").write("plan", 2).version == 2
    workspace.close()


# Dropping.


def test_a_dropped_store_lets_go_of_its_threads_and_files_and_says_so_once(tmp_path: Path) -> None:
    url, threads = f"sqlite:///{tmp_path}/log.db", len(own_threads())
    store = CoherentStore(url, workspace="w", state_log=tmp_path / "state.jsonl", strategy="eager", benchmark=True)
    store.put(("team",), "plan", {"step": 1})
    assert store.get(("team",), "plan") is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert [str(each.message).partition(" of ")[0] for each in caught] == ["the workspace 'w'"]
    assert issubclass(caught[0].category, ResourceWarning)
    until("its threads have ended", lambda: len(own_threads()) <= threads)
    until("its files are closed", lambda: descriptors(tmp_path) == 0)
    assert isinstance(events(url)[-1], SessionEnded), "its session has left"


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_closed_store_is_dropped_without_a_word(tmp_path: Path) -> None:
    store = CoherentStore(f"sqlite:///{tmp_path}/log.db")
    store.put(("team",), "plan", {"step": 1})
    store.close()
    del store
    gc.collect()


@pytest.mark.filterwarnings("ignore:.*was dropped without close:ResourceWarning")
def test_whatever_is_still_used_keeps_its_workspace_open() -> None:
    agent = ccs_stream.connect().agent("planner")
    gc.collect()
    assert agent.write("plan", 1).version == 1
    with ccs_stream.connect().agent("planner").acquire("plan") as reservation:
        gc.collect()
        assert reservation.fence is not None
    watch = ccs_stream.connect().watch()
    gc.collect()
    assert watch.poll() == []
    past = ccs_stream.connect().as_of(1)
    gc.collect()
    assert past.artifacts() == []


@pytest.mark.filterwarnings("ignore:.*was dropped without close:ResourceWarning")
async def test_a_coroutine_keeps_its_store_open() -> None:
    await CoherentStore().aput(("team",), "plan", {"step": 1})
    gc.collect()
    assert await CoherentStore().aget(("team",), "plan") is None


# The end of the program.

PROGRAM = """
import sys
import ccs_stream

workspace = ccs_stream.connect(
    sys.argv[1], workspace="w", state_log=sys.argv[2], on_metric=lambda event: print(event.operation)
)
agent = workspace.agent("planner")
for number in range(20):
    agent.write("plan", number)
    agent.read("plan")
"""


def test_a_program_that_just_ends_loses_nothing(tmp_path: Path) -> None:
    url, lines = f"sqlite:///{tmp_path}/log.db", tmp_path / "state.jsonl"
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(lines)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stderr == ""
    assert sorted(ran.stdout.split()) == ["get"] * 20 + ["put"] * 20
    found = events(url)
    assert isinstance(found[-1], SessionEnded)
    store = open_log(url, read_only=True)
    deliveries = [decode_delivery(each) for each in store.read_deliveries("w")]
    store.close()
    assert [each.number for each in deliveries] == list(range(1, 41))
    assert len(lines.read_text().splitlines()) >= 20


HANGING = """
import threading
import ccs_stream

workspace = ccs_stream.connect(on_metric=lambda event: threading.Event().wait())
workspace.agent("planner").write("plan", 1)
"""


def test_a_listener_that_hangs_does_not_keep_the_program_from_ending() -> None:
    subprocess.run([sys.executable, "-c", HANGING], timeout=60, check=True)


FORKING = """
import os, sys
import ccs_stream

workspace = ccs_stream.connect(sys.argv[1], workspace="w")
workspace.agent("planner").write("plan", 1)
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
assert workspace.agent("planner").write("plan", 2).version == 2
"""


def test_a_forked_child_that_ends_leaves_the_parents_session(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING, url], timeout=60, check=True)
    assert sum(isinstance(event, SessionEnded) for event in events(url)) == 1
