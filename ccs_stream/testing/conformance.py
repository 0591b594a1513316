"""The suite that every log store must pass, and that any store can run.

A third party subclasses `LogStoreConformance` in a test module of its own and says how to open a store:

    class TestMyLog(LogStoreConformance):
        def open_store(self, folder):
            return MyLog(folder / "log")

Guarantees: each sentence of `ccs_stream.log.port.LogStore` has a test here. Does not: test durability, which takes
killed processes, or read-only stores, which have `ReadOnlyConformance`.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import BEFORE_FIRST, Appended, Conflict, LogStore, Position, SnapshotBlob
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import Closed, ContentMissing, LogReadOnly
from ccs_stream.protocol.events import CommandAnswered
from ccs_stream.protocol.ids import SequenceNumber
from ccs_stream.protocol.records import DecisionRecord, LogOpened
from ccs_stream.testing.records import Chain

EVENT = CommandAnswered(original_sequence=SequenceNumber(0))


def filled(store: LogStore, shard: str, decisions: int) -> Chain:
    """Append so many decisions, of 1, 2, 3, 1, 2, 3, ... events, each with a body."""
    chain = Chain(shard)
    for number in range(decisions):
        draft = chain.draft([EVENT] * (number % 3 + 1), contents=(b"body %d" % number,))
        with store.turn(shard):
            assert store.append(shard, [draft], store.end(shard)) == Appended(number + 1)
    return chain


class LogStoreConformance:
    """The suite of a store that can be written to. Subclass it, and implement `open_store`."""

    durable = True
    """True if a store opened later finds what another object appended."""
    turns_are_transactions = True
    """True if a turn that raises undoes what was appended in it."""
    opens_shards = True
    """True if a shard begins with the first append to it, rather than with the log."""

    def open_store(self, folder: Path) -> LogStore:
        """Open the log in `folder`, creating it if it does not exist."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LogStore]:
        """An empty log."""
        opened = self.open_store(tmp_path)
        yield opened
        opened.close()

    def test_a_shard_that_does_not_exist_ends_before_its_first_record(self, store: LogStore) -> None:
        if self.opens_shards:
            assert store.end("w") == BEFORE_FIRST
            assert list(store.read("w", BEFORE_FIRST)) == []
        else:
            assert store.end("w") == 0
            assert [record.offset for record in store.read("w", BEFORE_FIRST)] == [0]
        assert store.find("w", 1) is None
        assert list(store.snapshots("w")) == []
        assert list(store.read_deliveries("w")) == []

    def test_a_shard_opens_with_the_record_that_names_the_log(self, store: LogStore) -> None:
        filled(store, "w", 1)
        first = next(iter(ShardReader(store, "w").read()))
        assert isinstance(first.record, LogOpened)
        assert first.record.log_id == store.log_id
        assert (first.offset, first.verdict) == (0, Verdict.ADMITTED)

    def test_what_was_appended_is_read_in_order_with_its_bodies(self, store: LogStore) -> None:
        chain = filled(store, "w", 7)
        records = list(store.read("w", 0))
        assert [record.offset for record in records] == list(range(1, 8))
        assert [record.contents for record in records] == [(b"body %d" % number,) for number in range(7)]
        reader = ShardReader(store, "w")
        assert all(entry.verdict is Verdict.ADMITTED for entry in reader.read())
        assert reader.position("w").hash == chain.hash
        assert store.end("w") == 7

    def test_a_range_is_read_from_behind_its_beginning_to_its_end(self, store: LogStore) -> None:
        filled(store, "w", 6)
        assert [record.offset for record in store.read("w", 2, until=4)] == [3, 4]
        assert [record.offset for record in store.read("w", 6)] == []
        assert [record.offset for record in store.read("w", 4, until=99)] == [5, 6]

    def test_without_bodies_the_heads_are_the_same(self, store: LogStore) -> None:
        filled(store, "w", 4)
        with_bodies = [record.head for record in store.read("w", BEFORE_FIRST)]
        assert [record.head for record in store.read("w", BEFORE_FIRST, bodies=False)] == with_bodies

    def test_several_records_are_appended_whole(self, store: LogStore) -> None:
        chain = Chain("w")
        drafts = [chain.draft() for _ in range(5)]
        with store.turn("w"):
            assert store.append("w", drafts, 0) == Appended(5)
        assert store.end("w") == 5

    def test_an_append_that_expected_another_end_appends_nothing(self, store: LogStore) -> None:
        filled(store, "w", 2)
        late = Chain("w").draft()
        for wrong in (BEFORE_FIRST, 0, 1, 3):
            with store.turn("w"):
                assert store.append("w", [late, late], wrong) == Conflict(2)
        assert store.end("w") == 2

    def test_an_append_takes_its_own_turn_where_none_is_held(self, store: LogStore) -> None:
        filled(store, "w", 1)
        chain = Chain("w")
        chain.draft()
        assert store.append("w", [chain.draft()], 1) == Appended(2)

    def test_a_turn_that_raises_appends_nothing(self, store: LogStore) -> None:
        if not (self.durable and self.turns_are_transactions):
            pytest.skip("a turn of this store is a lock: what is appended is appended")
        filled(store, "w", 1)
        chain = Chain("w")
        chain.draft()

        class StopError(Exception):
            pass

        def fail() -> None:
            with store.turn("w"):
                store.append("w", [chain.draft()], 1)
                raise StopError

        with pytest.raises(StopError):
            fail()
        assert store.end("w") == 1

    def test_turns_exclude_each_other(self, store: LogStore) -> None:
        inside, most = [0], [0]

        def work() -> None:
            for _ in range(25):
                with store.turn("w"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    store.end("w")
                    inside[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]

    def test_the_decision_that_holds_a_sequence_is_found(self, store: LogStore) -> None:
        chain = filled(store, "w", 10)
        expected: list[int] = []
        for number in range(10):
            expected.extend([number + 1] * (number % 3 + 1))
        found = [store.find("w", sequence) for sequence in range(1, chain.sequence + 1)]
        assert [record.offset if record else None for record in found] == expected
        assert store.find("w", 0) is None
        assert store.find("w", chain.sequence + 1) is None

    def test_decisions_are_found_in_bulk_as_one_by_one(self, store: LogStore) -> None:
        chain = filled(store, "w", 40)
        filled(store, "other", 5)
        for step in (1, 3, 17):
            wanted = list(range(1, chain.sequence + 3, step))
            found = list(store.find_each("w", wanted))
            assert [each and (each.offset, each.contents) for each in found] == [
                each and (each.offset, each.contents) for each in (store.find("w", one) for one in wanted)
            ]
        assert list(store.find_each("w", [])) == []
        assert list(store.find_each("never opened", [1, 2])) == [None, None]

    def test_shards_are_apart(self, store: LogStore) -> None:
        filled(store, "b", 3)
        filled(store, "a", 5)
        assert store.workspaces() == ["a", "b"]
        assert (store.end("a"), store.end("b")) == (5, 3)
        assert [record.offset for record in store.read("b", 0)] == [1, 2, 3]
        found = store.find("b", 2)
        assert found is not None
        assert found.contents == (b"body 1",)

    def test_a_scan_names_the_workspaces(self, store: LogStore) -> None:
        filled(store, "b", 3)
        filled(store, "a", 5)
        scanned = list(store.scan())
        assert sorted({name for name in scanned if name is not None}) == store.workspaces()
        assert (scanned.count("a"), scanned.count("b")) == (5, 3)
        assert len(scanned) <= store.record_count()

    def test_a_decision_is_found_by_a_store_that_was_told_of_those_before_it(self, store: LogStore) -> None:
        chain = filled(store, "w", 10)
        for entry in ShardReader(store, "w").read():
            if type(entry.record) is DecisionRecord:
                for _ in range(2):
                    store.learn("w", entry.record.first_sequence, entry.offset, entry.events)
        found = [store.find("w", sequence) for sequence in (1, 2, chain.sequence, chain.sequence + 1)]
        assert [None if each is None else each.offset for each in found] == [1, 2, 10, None]

    def test_the_change_mark_tells_of_other_writers(self, store: LogStore, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this store has no other writers")
        filled(store, "w", 1)
        mark = store.change_mark("w")
        assert store.change_mark("w") == mark
        other = self.open_store(tmp_path)
        chain = Chain("w")
        chain.draft()
        with other.turn("w"):
            assert other.append("w", [chain.draft()], 1) == Appended(2)
        other.close()
        assert store.change_mark("w") != mark
        assert store.end("w") == 2

    def test_waiting_ends_with_an_append_or_with_its_time(self, store: LogStore) -> None:
        filled(store, "w", 1)
        assert store.wait("w", 0, 0)
        assert not store.wait("w", 1, 0.01)
        chain = Chain("w")
        chain.draft()
        later = threading.Timer(0.05, lambda: store.append("w", [chain.draft()], 1))
        later.start()
        assert store.wait("w", 1, 30)
        later.join()

    def test_bodies_are_kept_by_locator(self, store: LogStore) -> None:
        locators = [store.put_content(body) for body in (b"one", b"x" * 3_000_000, b"")]
        assert [len(store.get_content(locator)) for locator in locators] == [3, 3_000_000, 0]
        with pytest.raises(ContentMissing):
            store.get_content(b"no such locator")

    def test_the_newest_snapshots_are_kept(self, store: LogStore) -> None:
        filled(store, "w", 1)
        for sequence in (10, 30, 20, 40, 50):
            store.save_snapshot(
                "w", SnapshotBlob(snapshot_id=f"s{sequence}", sequence=SequenceNumber(sequence), data=b"%d" % sequence)
            )
        kept = list(store.snapshots("w"))
        assert kept[0].data == b"50"
        assert [blob.sequence for blob in kept] == sorted((blob.sequence for blob in kept), reverse=True)
        assert 1 < len(kept) < 5
        assert list(store.snapshots("other")) == []

    def test_deliveries_are_kept_in_order(self, store: LogStore) -> None:
        filled(store, "w", 1)
        store.append_deliveries("w", [b"1", b"2"])
        store.append_deliveries("w", [b"3"])
        assert list(store.read_deliveries("w")) == [b"1", b"2", b"3"]
        assert store.deliveries_end("w") in (3, None)

    def test_what_was_appended_is_there_when_opened_again(self, store: LogStore, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this store does not outlive its object")
        chain = filled(store, "w", 5)
        log_id, locator = store.log_id, store.put_content(b"large")
        store.close()
        again = self.open_store(tmp_path)
        reader = ShardReader(again, "w")
        assert sum(1 for _ in reader.read()) == 6
        assert (again.log_id, reader.position("w").hash) == (log_id, chain.hash)
        assert again.get_content(locator) == b"large"
        again.close()

    def test_a_reader_stands_where_a_position_says(self, store: LogStore) -> None:
        chain = filled(store, "w", 4)
        whole = ShardReader(store, "w")
        positions = [whole.position("w") for entry in whole.read() if entry.offset]
        again = ShardReader(store, "w")
        again.seek(Position.parse(str(positions[1])))
        assert [entry.offset for entry in again.read()] == [3, 4]
        assert again.position("w").hash == chain.hash

    def test_closing_twice_is_fine_and_a_closed_store_says_so(self, store: LogStore) -> None:
        filled(store, "w", 1)
        store.close()
        store.close()
        with pytest.raises(Closed), store.turn("w"):
            pass


class ReadOnlyConformance:
    """The suite of a store that only reads. Subclass it, and implement `copy_of`."""

    def copy_of(self, store: LogStore, shard: str, folder: Path) -> LogStore:
        """A read-only store holding what `store` holds of `shard`."""
        raise NotImplementedError

    @pytest.fixture
    def original(self) -> LogStore:
        """A log in memory with ten decisions."""
        store = MemoryLog()
        filled(store, "w", 10)
        return store

    def test_it_reads_what_the_original_reads(self, original: LogStore, tmp_path: Path) -> None:
        copy = self.copy_of(original, "w", tmp_path)
        assert copy.log_id == original.log_id
        assert copy.workspaces() == ["w"]
        assert copy.end("w") == original.end("w")
        assert list(copy.scan()) == list(original.scan()) == [None] + ["w"] * 10
        assert copy.record_count() == 11
        for after, until in ((BEFORE_FIRST, None), (3, None), (2, 5)):
            theirs = [(each.offset, each.head, each.tail) for each in copy.read("w", after, until=until)]
            ours = [
                (each.offset, each.head, each.tail if each.offset else b"")
                for each in original.read("w", after, until=until)
            ]
            assert theirs == ours
        for sequence in range(25):
            ours_found, found = original.find("w", sequence), copy.find("w", sequence)
            assert (found.offset if found else None) == (ours_found.offset if ours_found else None)
        copy.close()

    def test_it_refuses_to_be_written(self, original: LogStore, tmp_path: Path) -> None:
        copy = self.copy_of(original, "w", tmp_path)
        with pytest.raises(LogReadOnly), copy.turn("w"):
            pass
        with pytest.raises(LogReadOnly):
            copy.append("w", [Chain("w").draft()], copy.end("w"))
        with pytest.raises(LogReadOnly):
            copy.put_content(b"body")
        with pytest.raises(LogReadOnly):
            copy.append_deliveries("w", [b"1"])
        with pytest.raises(LogReadOnly):
            copy.save_snapshot("w", SnapshotBlob(snapshot_id="s", sequence=SequenceNumber(1), data=b""))
        assert copy.end("w") == original.end("w")
        copy.close()
