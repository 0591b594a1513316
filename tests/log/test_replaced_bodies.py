"""A log in memory keeps bodies of the past within a budget, and says so where one is no longer there."""

import random
from typing import Any

import pytest

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.log.memory import MemoryLog
from ccs_stream.protocol.errors import ContentMissing


def kept_bytes(log: MemoryLog) -> int:
    inline = sum(len(body) for shard in log._shards.values() for each in shard.records for body in each.contents)
    return inline + sum(len(body) for body in log._contents.values())


@pytest.mark.parametrize("size", [500, 100_000])
def test_bodies_of_the_past_are_kept_within_the_budget(size: int) -> None:
    log = MemoryLog(replaced_bytes_max=1_000_000)
    workspace = ccs_stream.Workspace(log, "w")
    agent, numbers = workspace.agent("a"), random.Random(7)
    written: dict[str, str] = {}
    for number in range(6_000_000 // size):
        key = f"k{numbers.randrange(5)}"
        if numbers.random() < 0.1 and key in written:
            agent.delete(key)
            del written[key]
        else:
            written[key] = f"{number}{'x' * size}"
            agent.write(key, written[key])
    assert kept_bytes(log) < 1_000_000 + (5 + 70) * (size + 20)  # the current ones, and those of the last records
    for key, value in written.items():
        read = workspace.agent(f"new {key}").read(key)
        assert read is not None
        assert read.value == value
    changes = [each for key in written for each in agent.history(key)]
    told, missing = [each for each in changes if each.value], [each for each in changes if each.missing]
    assert told
    assert missing
    assert all("no longer kept" in str(each.missing) and each.value is None for each in missing)
    assert max(each.position.sequence for each in missing) < max(each.position.sequence for each in told)
    workspace.close()


def test_the_newest_version_is_always_there() -> None:
    log = MemoryLog(replaced_bytes_max=0)
    with ccs_stream.Workspace(log, "w") as workspace:
        agent = workspace.agent("a")
        for number in range(500):
            agent.write("k", number)
            workspace.write_all([ccs_stream.Put("x", number), ccs_stream.Put("y", -number)], agent="a")
        past = workspace.as_of(workspace.position)
        assert [getattr(past.read(key), "value", None) for key in ("k", "x", "y")] == [499, 499, -499]
        with pytest.raises(ContentMissing, match="no longer kept"):
            workspace.as_of(4).read("k")
        assert [each.value for each in agent.history("k", limit=1)] == [499]


def test_a_store_in_memory_goes_on_for_ever() -> None:
    with CoherentStore(body_cache_bytes=100_000) as store:
        value: dict[str, Any] = {"text": "x" * 60_000}
        for number in range(1_500):
            store.get(("a",), "state")
            store.put(("a",), "state", {**value, "n": number})
        log = store.workspace.coordinator.store
        assert isinstance(log, MemoryLog)
        assert kept_bytes(log) < 45_000_000
        assert store.history(("a",), "state", limit=1)[0].value["n"] == 1_499
