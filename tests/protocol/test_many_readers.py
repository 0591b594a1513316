"""However many have read an artifact, it can be written, deleted and expired; and sweeps fit into their decisions."""

import time
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Put, WorkspaceSettings
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.log.fold import fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.projections.invariants import Invariants
from ccs_stream.protocol import decide
from ccs_stream.protocol.decide_writes import HOLDERS_MAX, holders_allowed
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.statehash import state_hash

SMALL = WorkspaceSettings(maximum_decision_bytes=5 * 1_024, inline_content_bytes=2 * 1_024)


def violations(log: MemoryLog, workspace: str) -> list[Any]:
    reader, checker = ShardReader(log, workspace), Invariants()
    for entry in reader.read():
        if entry.events:
            checker.decision(entry.record, entry.events)  # type: ignore[arg-type]
    return [each for found in checker.examples.values() for each in found if each.kind.severity == "violation"]


def test_an_artifact_with_many_readers_is_written_deleted_and_expires() -> None:
    log = MemoryLog()
    with ccs_stream.Workspace(log, "w", settings=SMALL) as workspace:
        author = workspace.agent("author")
        author.write("config", 1)
        readers = [workspace.agent(f"user-{number}") for number in range(1_000)]

        def everybody_reads(value: object) -> None:
            for reader in readers:
                read = reader.read("config")
                assert (None if read is None else read.value) == value

        everybody_reads(1)
        assert len(next(iter(workspace.engine.state.artifacts.values())).sharers) <= holders_allowed(SMALL)
        author.write("config", 2)
        everybody_reads(2)
        workspace.write_all([Put("config", 3), Put("other", 3)], agent="author")
        everybody_reads(3)
        author.delete("config")
        everybody_reads(None)
        author.write("config", 4, ttl_s=2)
        everybody_reads(4)
        time.sleep(2.1)
        assert workspace.sweep() >= 2
        assert readers[7].read("config") is None
        state = Directory()
        for _ in fold_log(ShardReader(log, "w"), state):
            pass
        assert state_hash(state) == workspace.state_hash()
        assert violations(log, "w") == []


@pytest.mark.parametrize("settings", [SMALL, WorkspaceSettings()])
def test_naming_all_holders_takes_less_than_half_of_a_decision(settings: WorkspaceSettings) -> None:
    assert 16 <= holders_allowed(settings) <= HOLDERS_MAX
    assert holders_allowed(settings) * 10 < settings.maximum_decision_bytes / 2


def test_a_sweep_of_many_fits_into_a_small_decision() -> None:
    with ccs_stream.connect(settings=SMALL) as workspace:
        author = workspace.agent("author")
        for number in range(600):
            author.write(f"k{number}", number, ttl_s=0.05)
        time.sleep(0.1)
        assert workspace.sweep() >= 600
        assert not [each for each in workspace.engine.state.artifacts.values() if not each.deleted]


def test_agents_of_one_session_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "PARTICIPANTS_MAX", 10)
    log = MemoryLog()
    with ccs_stream.Workspace(log, "w") as workspace:
        for number in range(35):
            workspace.agent(f"a{number}").write("k", number)
        sizes = [len(each.participants) for each in workspace.engine.state.sessions.values()]
        assert max(sizes) == 10
        assert sum(sizes) == 35
        read = workspace.agent("a0").read("k")
        assert read is not None
        assert read.value == 34
    assert isinstance(workspace.coordinator, LocalCoordinator)
