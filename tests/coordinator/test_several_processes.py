"""Several processes, and several threads, on one log: exact totals, no gap, every loss refused."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ccs_stream
from ccs_stream import VersionConflict
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.events import CommandRefused
from ccs_stream.protocol.records import DecisionRecord

WORKER = Path(__file__).with_name("worker.py")


def read_log(url: str) -> tuple[list[int], int]:
    """Sequences of the log in order, and how many refusals it holds; raises on a broken chain."""
    store = open_log(url, read_only=True)
    sequences: list[int] = []
    refusals = 0
    for entry in ShardReader(store, "w").read():
        assert entry.verdict is Verdict.ADMITTED
        if isinstance(entry.record, DecisionRecord):
            sequences.extend(range(entry.record.first_sequence, entry.record.first_sequence + len(entry.events)))
            refusals += sum(isinstance(event, CommandRefused) for event in entry.events)
    store.close()
    return sequences, refusals


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["a"] * 4], ids=["four-names", "one-name"])
def test_four_processes_count_exactly(tmp_path: Path, names: list[str]) -> None:
    url, times = f"sqlite:///{tmp_path}/log.db", 1_000
    workers = [
        subprocess.Popen([sys.executable, WORKER, "count", url, name, str(times)], stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    said = [json.loads(worker.communicate()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    with ccs_stream.connect(url, workspace="w") as workspace:
        reading = workspace.agent("reader").read("n")
        assert reading is not None
        assert (reading.value, reading.version) == (4 * times, 4 * times)
        assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()
    sequences, refusals = read_log(url)
    assert sequences == list(range(1, len(sequences) + 1))
    assert refusals == sum(each["refused"] for each in said)


@pytest.mark.parametrize("names", ["eight", "one"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_eight_threads_count_exactly(tmp_path: Path, kind: str, names: str) -> None:
    times = 1_500
    url = None if kind == "memory" else f"sqlite:///{tmp_path}/log.db?synchronous=normal"
    refused: list[int] = []
    with ccs_stream.connect(url, workspace="w") as workspace:

        def count(name: str) -> None:
            agent, conflicts = workspace.agent(name), 0
            for _ in range(times):
                while True:
                    seen = agent.read("n")
                    try:
                        value = (seen.value if seen else 0) + 1
                        agent.compare_and_set("n", value, expected=seen.version if seen else None)
                        break
                    except VersionConflict:
                        conflicts += 1
            refused.append(conflicts)

        threads = [threading.Thread(target=count, args=(f"a{n}" if names == "eight" else "a",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reading = workspace.agent("reader").read("n")
        assert reading is not None
        assert (reading.value, reading.version) == (8 * times, 8 * times)
        past = workspace.as_of(workspace.position)
        assert past.state_hash() == workspace.state_hash()
        refusals = 0
        for entry in ShardReader(workspace.engine.coordinator.store, "w").read():
            refusals += sum(isinstance(event, CommandRefused) for event in entry.events)
    assert refusals == sum(refused)
