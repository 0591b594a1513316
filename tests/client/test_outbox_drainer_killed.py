"""Replaying, killed at any moment: by SIGKILL, and by a machine that also writes, reserves, evicts, cuts the log."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ccs_stream import Workspace, WorkspaceSettings
from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.degraded.outbox_file import EntryState
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.ids import artifact_id
from tests.client.drains import FragileLog, Rig, assert_conditional, history

WORKER = Path(__file__).with_name("queueing.py")


# Killed at any moment.


def test_a_process_killed_at_random_moments_loses_nothing_it_was_told_is_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    seed = int(os.environ.get("CCS_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"CCS_TEST_SEED={seed}")  # noqa: T201  # shown when the test fails; set it to run the same again
    chance = random.Random(seed)
    kept: list[int] = []
    foreign = 0
    with Workspace(open_log(url), "w") as theirs:
        other = theirs.agent("other")
        for round_number in range(16):
            planted = "never" if round_number % 2 else str(chance.randrange(1, 12))
            first = str(round_number * 1_000_000)
            worker = queueing(url, tmp_path, first, planted)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            if planted == "never":
                time.sleep(chance.uniform(0, 0.05))
                worker.send_signal(signal.SIGKILL)
            if round_number % 3 == 0:
                other.write("k0", f"foreign-{foreign}", scope=("s",))
                foreign += 1
            kept.extend(
                int(line) for line in worker.communicate(timeout=60)[0].splitlines(keepends=True) if line[-1] == "\n"
            )
            assert worker.returncode == -signal.SIGKILL
    assert len(kept) > 50
    assert kept == sorted(kept)
    worker = queueing(url, tmp_path, "drain", "never")
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    store = open_log(url)
    made = history(store)
    outbox = Outbox(tmp_path / "outbox.db", log_id=store.log_id, workspace="w")
    values = [json.loads(each.body) for each in made if each.body is not None]
    ours = [value for value in values if isinstance(value, int)]
    refused = [json.loads(entry.body or b"") for entry in outbox.conflicts()]
    # In the log once and in order, or reported; never both, never neither.
    assert ours == sorted(set(ours))
    assert not set(ours) & set(refused)
    assert set(kept) <= set(ours) | set(refused)
    assert len(ours) > 50
    assert len([value for value in values if isinstance(value, str)]) == foreign
    assert outbox.is_empty
    assert_conditional(made, {str(value).encode() for value in ours})
    outbox.close()
    store.close()


def queueing(url: str, folder: Path, first: str, planted: str) -> "subprocess.Popen[str]":
    """A process that queues numbers and replays; with `planted` it dies between a decision and its mark."""
    command = [sys.executable, str(WORKER), url, str(folder / "outbox.db"), first, planted]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# Everything at once.


class Queueing(RuleBasedStateMachine):
    """Queue, replay, be killed, while others write, delete, reserve and evict, and the log comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ccs-outbox-"))
        self.store = FragileLog()
        self.rig = Rig(self.store, self.folder, WorkspaceSettings(dedupe_window=8))
        self.queued: dict[int, bytes] = {}
        """The mark of each, by number."""
        self.reservations: dict[str, contextlib.ExitStack] = {}
        self.count = 0

    def teardown(self) -> None:
        try:
            self.store.away = False
            self.release_all()
            drained = self.rig.drain()
            assert drained.error is None
            assert drained.left == 0
            self.each_change_is_in_the_log_or_reported()
        finally:
            self.rig.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def mark(self) -> bytes:
        """One that nobody wrote before."""
        self.count += 1
        return str(self.count).encode()

    @rule(
        key=st.sampled_from("xy"),
        agent=st.sampled_from(["ann", "bob"]),
        knows=st.sampled_from(["now", "now", "now", "nothing", "before"]),
        erase=st.booleans(),
        seen=st.booleans(),
    )
    def queue(self, key: str, agent: str, knows: str, erase: bool, seen: bool) -> None:
        artifact = artifact_id("w", ("s",), key)
        state = self.rig.ours.coordinator.state.artifacts.get(artifact)
        current = 0 if state is None else int(state.version)
        base = {"now": current, "nothing": None, "before": max(0, current - 1)}[knows]
        mark = self.mark()
        body, reason = (None, mark.decode()) if erase else (mark, None)
        latest = self.rig.outbox.latest(artifact)
        number = latest.number if latest is not None and seen else None
        queued = self.rig.put(key, body, base, agent=agent, seen=number, reason=reason)
        self.queued[queued.number] = mark

    @rule()
    def drain(self) -> None:
        self.rig.drain()

    @rule(marks=st.integers(0, 3))
    def replay_and_be_killed(self, marks: int) -> None:
        self.rig.die_after_marks(marks)

    @rule()
    def restart(self) -> None:
        self.rig.restart()

    @rule(key=st.sampled_from("xy"))
    @precondition(lambda self: not self.store.away)
    def somebody_writes(self, key: str) -> None:
        if key not in self.reservations:
            self.rig.other.write(key, f"foreign-{self.mark().decode()}", scope=("s",))

    @rule(key=st.sampled_from("xy"))
    @precondition(lambda self: not self.store.away)
    def somebody_deletes(self, key: str) -> None:
        if key not in self.reservations:
            self.rig.other.delete(key, scope=("s",))

    @rule(key=st.sampled_from("xy"))
    @precondition(lambda self: not self.store.away)
    def somebody_reserves(self, key: str) -> None:
        if key not in self.reservations:
            self.reservations[key] = contextlib.ExitStack()
            self.reservations[key].enter_context(self.rig.other.acquire(key, scope=("s",), limit_s=3_000))

    @rule()
    @precondition(lambda self: not self.store.away)
    def release_all(self) -> None:
        for stack in self.reservations.values():
            stack.close()
        self.reservations.clear()

    @rule(forgotten=st.booleans())
    @precondition(lambda self: not self.store.away)
    def evict(self, forgotten: bool) -> None:
        self.rig.evict()
        if forgotten:
            self.rig.forget_ended()

    @rule(away=st.booleans())
    def the_log_comes_and_goes(self, away: bool) -> None:
        self.store.away = away

    @invariant()
    def each_change_is_in_the_log_or_reported(self) -> None:
        made = history(self.store)
        marks = [each.mark for each in made]
        outbox = self.rig.outbox
        waiting = {entry.number for entry in outbox.waiting()}
        refused = {entry.number for entry in outbox.conflicts()}
        applied: list[int] = []
        for number, mark in self.queued.items():
            entry = outbox.entry(number)
            assert entry is not None
            done = entry.state is EntryState.DONE
            assert (number in waiting) + (number in refused) + done == 1
            times = marks.count(mark)
            if number in waiting:
                # Where its process was killed before the mark; nothing behind it was sent then.
                assert times == 0 or (times == 1 and number == min(waiting))
            else:
                assert times == (done and entry.version is not None)
            if times:
                applied.append(marks.index(mark))
        assert applied == sorted(applied)
        assert_conditional(made, set(self.queued.values()))
        self.chains_hold(outbox)

    def chains_hold(self, outbox: Outbox) -> None:
        """What follows a refused change was refused, too; what follows one that waits, waits."""
        by_number = {number: outbox.entry(number) for number in self.queued}
        for entry in by_number.values():
            before = None if entry is None or entry.follows is None else by_number[entry.follows]
            if entry is None or before is None:
                continue
            if before.state is EntryState.CONFLICT:
                assert entry.state is EntryState.CONFLICT
            if before.state is EntryState.WAITING:
                assert entry.state is EntryState.WAITING


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
