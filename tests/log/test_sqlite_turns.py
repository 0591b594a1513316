"""Turns of the SQLite log: whose they are, what joins them, what an error inside one leaves; and how it reads."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_stream.log.port import Appended, SnapshotBlob
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import Closed, ContentMissing, LogBusy, LogError, LogFull, UsageError
from ccs_stream.protocol.ids import SequenceNumber
from ccs_stream.testing.conformance import EVENT, filled
from ccs_stream.testing.records import Chain


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteLog]:
    """An empty log."""
    opened = SqliteLog(tmp_path / "log.db", busy_timeout_s=0.2)
    yield opened
    opened.close()


def continuing(decisions: int) -> Chain:
    """A chain that stands where `filled` left it."""
    chain = Chain("w")
    for number in range(decisions):
        chain.draft([EVENT] * (number % 3 + 1), contents=(b"body %d" % number,))
    return chain


def test_turns_do_not_nest_and_the_outer_one_is_unharmed(store: SqliteLog) -> None:
    chain = filled(store, "w", 1)
    with store.turn("w"):
        assert store.append("w", [chain.draft()], 1) == Appended(2)
        with pytest.raises(UsageError, match="nest"), store.turn("w"):
            pass
        assert store.append("w", [chain.draft()], 2) == Appended(3)
    assert store.end("w") == 3


def test_bodies_snapshots_and_deliveries_belong_to_the_turn_in_which_they_are_kept(store: SqliteLog) -> None:
    filled(store, "w", 1)

    def keep() -> bytes:
        locator = store.put_content(b"body")
        store.save_snapshot("w", SnapshotBlob(snapshot_id="s", sequence=SequenceNumber(1), data=b"state"))
        store.append_deliveries("w", [b"delivery"])
        return locator

    locators: list[bytes] = []

    def fail() -> None:
        with store.turn("w"):
            locators.append(keep())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(store.snapshots("w")) == []
    assert list(store.read_deliveries("w")) == []
    with pytest.raises(ContentMissing):
        store.get_content(locators[0])
    with store.turn("w"):
        locator = keep()
    assert [blob.data for blob in store.snapshots("w")] == [b"state"]
    assert list(store.read_deliveries("w")) == [b"delivery"]
    assert store.get_content(locator) == b"body"


def test_after_an_error_that_ended_it_the_rest_of_a_turn_writes_nothing(store: SqliteLog) -> None:
    chain = filled(store, "w", 1)
    writer = store._for_writing()
    assert writer.connection is not None
    pages = writer.connection.execute("PRAGMA page_count").fetchone()[0]
    writer.connection.execute(f"PRAGMA max_page_count = {pages}")
    after = chain.draft(contents=(b"x" * 50_000,))

    def go_on_regardless() -> None:
        with store.turn("w"):
            with pytest.raises(LogFull):
                store.append("w", [after], 1)
            writer.in_turn().execute("ROLLBACK")  # as SQLite itself does on some errors
            with pytest.raises(LogError, match="ended this turn"):
                store.append("w", [Chain("w").draft()], 1)

    with pytest.raises(LogError, match="ended this turn"):
        go_on_regardless()
    assert store.end("w") == 1
    with store.turn("w"):
        pass


def test_a_thread_that_keeps_its_turn_is_reported_to_the_others(store: SqliteLog) -> None:
    entered, leave = threading.Event(), threading.Event()

    def keep() -> None:
        with store.turn("w"):
            entered.set()
            leave.wait(30)

    keeper = threading.Thread(target=keep)
    keeper.start()
    assert entered.wait(30)
    with pytest.raises(LogBusy, match="thread"), store.turn("w"):
        pass
    with pytest.raises(LogBusy, match="thread"):
        store.put_content(b"body")
    leave.set()
    keeper.join()
    with store.turn("w"):
        pass


def test_a_log_is_not_closed_inside_a_turn(store: SqliteLog) -> None:
    filled(store, "w", 1)
    with pytest.raises(UsageError, match="leave the turn"), store.turn("w"):
        store.close()
    assert store.end("w") == 1


def test_closing_waits_for_the_turn_of_another_thread(store: SqliteLog) -> None:
    chain = filled(store, "w", 1)
    entered = threading.Event()
    appended: list[object] = []

    def work() -> None:
        with store.turn("w"):
            entered.set()
            time.sleep(0.05)
            appended.append(store.append("w", [chain.draft()], 1))

    worker = threading.Thread(target=work)
    worker.start()
    assert entered.wait(30)
    store.close()
    worker.join()
    assert appended == [Appended(2)]
    with pytest.raises(Closed):
        store.put_content(b"body")
    again = SqliteLog(store.path)
    assert again.end("w") == 2
    again.close()


def test_two_objects_of_one_process_share_a_file(tmp_path: Path, store: SqliteLog) -> None:
    chain = filled(store, "w", 1)
    other = SqliteLog(tmp_path / "log.db")
    with other.turn("w"):
        assert other.append("w", [chain.draft()], 1) == Appended(2)
    other.close()
    with store.turn("w"):
        assert store.append("w", [chain.draft()], 2) == Appended(3)
    assert other.log_id == store.log_id


def test_processes_that_make_one_file_at_the_same_moment_make_one_log(tmp_path: Path) -> None:
    program = """
import sys
from ccs_stream.log.sqlite import SqliteLog
print("ready", flush=True)
sys.stdin.readline()
store = SqliteLog(sys.argv[1])
for shard in (sys.argv[2], "same"):
    with store.turn(shard):
        pass
print(store.log_id.hex())
store.close()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "log.db")]
    makers = [
        subprocess.Popen([*command, f"w{number % 2}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(5)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    said = {maker.communicate("go\n")[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0] * len(makers)
    store = SqliteLog(tmp_path / "log.db")
    assert said == {store.log_id.hex() + "\n"}
    assert store.workspaces() == ["same", "w0", "w1"]
    assert [store.end(each) for each in store.workspaces()] == [0, 0, 0]
    store.close()


def test_a_forked_child_that_ends_normally_takes_nothing_from_its_parent(store: SqliteLog, tmp_path: Path) -> None:
    filled(store, "w", 3)
    wal = (tmp_path / "log.db-wal").stat().st_ino
    child = os.fork()
    if child == 0:  # pragma: no cover  # in the child
        connections = [store._reader.connection, store._for_writing().connection]
        store.close()
        for connection in connections:
            if connection is not None:
                connection.close()  # worse than letting go of everything, as an interpreter that ends does
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    chain = continuing(3)
    with store.turn("w"):
        assert store.append("w", [chain.draft()], 3) == Appended(4)
    assert (tmp_path / "log.db-wal").stat().st_ino == wal
    # Another process that leaves must not take itself for the last one.
    script = "import sys; from ccs_stream.log.sqlite import SqliteLog; SqliteLog(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "log.db")], check=True)
    assert (tmp_path / "log.db-wal").stat().st_ino == wal
    with store.turn("w"):
        assert store.append("w", [chain.draft()], 4) == Appended(5)


def test_a_slow_consumer_does_not_block_checkpoints_of_the_file(store: SqliteLog, tmp_path: Path) -> None:
    filled(store, "w", 5)
    reading = store.read("w", 0)
    next(reading)
    raw = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    raw.close()
    assert busy == 0
    assert [record.offset for record in reading] == [2, 3, 4, 5]


@pytest.mark.parametrize("bodies", [False, True])
def test_many_and_long_records_are_read_page_by_page_to_where_the_log_ended(store: SqliteLog, bodies: bool) -> None:
    chain = Chain("w")
    drafts = [chain.draft(contents=(bytes(30_000),)) for _ in range(150)]
    drafts += [chain.draft() for _ in range(2_100)]
    with store.turn("w"):
        store.append("w", drafts, 0)
    reading = store.read("w", 0, bodies=bodies)
    offsets = [next(reading).offset]
    more = [chain.draft() for _ in range(10)]
    with store.turn("w"):
        store.append("w", more, 2_250)
    offsets += [record.offset for record in reading]
    assert offsets[:2_250] == list(range(1, 2_251))
    assert len(offsets) <= 2_260  # those that came while the first page was read, and no others
    assert sum(1 for _ in ShardReader(store, "w").read(bodies=bodies)) == 2_261


def test_a_sequence_is_found_however_unevenly_decisions_grow(store: SqliteLog) -> None:
    seed = int(os.environ.get("CCS_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"CCS_TEST_SEED={seed}")  # noqa: T201  # shown when the test fails; set it to run the same again
    chance = random.Random(seed)
    chain, drafts, holder = Chain("w"), [], [0]
    for offset in range(1, 400):
        size = chance.choice([1, 1, 1, 2, 5, 300 if offset % 97 == 0 else 1])
        drafts.append(chain.draft([EVENT] * size))
        holder += [offset] * size
    with store.turn("w"):
        store.append("w", drafts, 0)
    for sequence in range(1, len(holder)):
        found = store.find("w", sequence)
        assert found is not None
        assert found.offset == holder[sequence]
    assert store.find("w", len(holder)) is None
