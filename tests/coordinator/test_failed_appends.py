"""The append made to fail at each step: nothing is answered that is not in the log, and a failure leaves no trace."""

import asyncio

import pytest

from ccs_stream import Put, Workspace
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.errors import LogBusy, LogFull, OutcomeUnknown
from ccs_stream.protocol.events import WriteCommitted
from tests.log.faulty import FaultyLog

DEFINITE = {"busy": LogBusy, "full": LogFull, "full-at-end": LogFull}


def writes_in(store: FaultyLog) -> list[tuple[int, str]]:
    """Version and hash of every write in the log."""
    entries = ShardReader(store, "w").read()
    events = (event for entry in entries for event in entry.events)
    return [(event.version, event.content_hash.hex()) for event in events if isinstance(event, WriteCommitted)]


async def queued(workspace: Workspace, count: int) -> None:
    """Wait until so many commands wait for their turn."""
    while workspace.coordinator.health().commands_waiting < count:  # noqa: ASYNC110  # they queue up in this very loop
        await asyncio.sleep(0)


@pytest.mark.parametrize("failure", sorted(DEFINITE))
def test_a_failed_append_leaves_no_trace_and_the_next_one_is_served(failure: str) -> None:
    store = FaultyLog()
    workspace = Workspace(store, "w")
    agent = workspace.agent("a")
    agent.write("k", 1)
    before = workspace.state_hash()
    store.plan = [failure]
    with pytest.raises(DEFINITE[failure]):
        agent.write("k", 2)
    assert workspace.state_hash() == before
    assert workspace.as_of(workspace.position).state_hash() == before
    reading = agent.read("k")
    assert reading is not None
    assert reading.value == 1
    assert agent.write("k", 3).version == 2
    assert [version for version, _ in writes_in(store)] == [1, 2]


@pytest.mark.parametrize("failure", ["lost", "written"])
def test_an_unknown_outcome_is_asked_again_and_applied_once(failure: str) -> None:
    store = FaultyLog()
    workspace = Workspace(store, "w")
    agent = workspace.agent("a")
    agent.write("k", 1)
    store.plan = [failure]
    written = agent.write("k", 2)
    assert written.version == 2
    assert [version for version, _ in writes_in(store)] == [1, 2]
    assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()
    reading = agent.read("k", at_least=written.position)
    assert reading is not None
    assert reading.value == 2


def test_an_answer_from_state_that_never_reached_the_log() -> None:
    # given two commands decided in one batch, the second on top of what the first would leave
    store = FaultyLog()
    store.instantaneous = False
    workspace = Workspace(store, "w")
    agent = workspace.agent("a")
    agent.write("k", 1)
    outcomes: list[object] = []

    async def both() -> None:
        with workspace.coordinator.lock:  # held, so that both are one batch
            store.plan = ["full-at-end"]
            waiting = [
                asyncio.ensure_future(agent.acompare_and_set("k", 2, expected=1)),
                asyncio.ensure_future(agent.acompare_and_set("k", 3, expected=1)),
            ]
            await queued(workspace, 2)
        outcomes.extend(await asyncio.gather(*waiting, return_exceptions=True))

    # when the log refuses the batch
    asyncio.run(both())
    # then neither gets an answer that was true on the overlay only, such as "refused: the version is 2"
    assert [type(outcome) for outcome in outcomes] == [LogFull, LogFull]
    assert [version for version, _ in writes_in(store)] == [1]
    assert agent.compare_and_set("k", 4, expected=1).version == 2
    workspace.close()


def test_an_outcome_that_stays_unknown_is_never_reported_as_done() -> None:
    store = FaultyLog()
    workspace = Workspace(store, "w")
    agent = workspace.agent("a")
    agent.write("k", 1)
    store.plan = ["lost", "lost", "lost", "lost"]
    with pytest.raises(OutcomeUnknown):
        agent.write("k", 2)
    store.plan = []
    reading = agent.read("k")
    assert reading is not None
    assert reading.value == 1


@pytest.mark.parametrize("failure", sorted(DEFINITE))
async def test_a_failed_batch_fails_every_command_in_it(failure: str) -> None:
    store = FaultyLog()
    store.instantaneous = False
    workspace = Workspace(store, "w")
    agent = workspace.agent("a")
    await agent.awrite("k", 0)
    before = workspace.state_hash()
    with workspace.coordinator.lock:  # held, so that all five are one batch
        store.plan = [failure]
        waiting = [asyncio.ensure_future(agent.awrite(f"k{n}", n)) for n in range(5)]
        await queued(workspace, 5)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    failed = [outcome for outcome in outcomes if isinstance(outcome, DEFINITE[failure])]
    assert failed
    live = workspace.state_hash()
    assert workspace.as_of(workspace.position).state_hash() == live
    if len(failed) == 5:
        assert live == before
    workspace.close()


def test_half_of_a_write_all_is_never_seen() -> None:
    store = FaultyLog()
    workspace = Workspace(store, "w")
    store.plan = []
    workspace.write_all([Put("a", 1), Put("b", 1)], agent="x")
    store.plan = ["full-at-end"]
    with pytest.raises(LogFull):
        workspace.write_all([Put("a", 2), Put("b", 2)], agent="x")
    readings = workspace.read_all(["a", "b"])
    assert [reading.value if reading else None for reading in readings] == [1, 1]
