"""A coroutine that is cancelled: its write may happen, what it acquired is given back, its author goes on."""

import asyncio
import random
from pathlib import Path

import pytest

from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.protocol.errors import Closed
from tests.client import cancellations


@pytest.mark.filterwarnings("ignore::ccs_stream.client.lost_updates.LostUpdateWarning")
def test_cancelled_calls_leave_nothing_wrong() -> None:
    seed = random.randrange(1 << 32)
    print(f"python -m tests.client.cancellations --count 150 --seed {seed}")
    found = asyncio.run(cancellations.run(150, seed))
    assert {name: found[name] for name in cancellations.FAULTS} == dict.fromkeys(cancellations.FAULTS, 0)


async def test_a_write_after_a_cancelled_write_of_its_flow_is_based_on_what_came_of_that(tmp_path: Path) -> None:
    async with CoherentStore(f"sqlite:///{tmp_path}/log.db", workspace="w", writes="guarded") as store:
        await store.aput(("a",), "k", {"v": 0})
        for number in range(1, 20):
            assert await cancellations.cancelled(store.aput(("a",), "k", {"v": number}), 1, late=False)
            await store.aput(("a",), "k", {"v": -number})  # at once
        found = await store.aget(("a",), "k")
        assert found is not None
        assert found.value == {"v": -19}


async def test_an_expected_version_stays_that_of_the_caller_after_a_cancelled_write(tmp_path: Path) -> None:
    async with CoherentStore(f"sqlite:///{tmp_path}/log.db", workspace="w") as store:
        agent = store.workspace.agent("a")
        first = await agent.awrite("k", 0)
        assert await cancellations.cancelled(agent.awrite("k", 1), 1, late=False)
        with pytest.raises(Exception, match="version"):
            await agent.acompare_and_set("k", 2, expected=first.version)


async def test_every_call_that_meets_the_closing_is_answered(tmp_path: Path) -> None:
    for number in range(10):
        store = CoherentStore(f"sqlite:///{tmp_path}/{number}.db?synchronous=normal", workspace="w", deliveries=False)

        async def work(name: str, store: CoherentStore = store) -> None:
            for step in range(1_000):
                await store.aput(("a",), name, {"v": step})
                await store.aget(("a",), f"other-{step}")
                await store.asearch(("a",), limit=1)

        tasks = [asyncio.create_task(work(f"k{each}")) for each in range(4)]
        await asyncio.sleep(0.002 * number)
        await asyncio.to_thread(store.close)
        done, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        assert {type(task.exception()) for task in done} == {Closed}
        for call in (store.aput(("a",), "k", {"v": 1}), store.aget(("a",), "new"), store.adelete(("a",), "k")):
            async with asyncio.timeout(3):
                with pytest.raises(Closed):
                    await call
