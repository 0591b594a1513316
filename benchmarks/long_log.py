"""A long log: rebuilding the state from it, opening it at a snapshot, verifying it.

Guarantees: what is compared runs over the same file, in turns. "Bare" is the least that any reader does: select the
rows in order, decode the envelope, hash it, decode the events, fold them; no admission, no chain, no positions.
Does not: drop the file from the page cache in between.
"""

import gc
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

import ccs_stream
from benchmarks.history import WORKSPACE, write_history
from benchmarks.report import Row, at_least, at_most, duration, rate, size
from benchmarks.run import Run
from benchmarks.timing import once
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.log.fold import fold_log
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.statehash import state_hash

ARTIFACTS: Final = 1_000


def rows(run: Run) -> Iterator[Row]:
    """Rebuild, open, verify."""
    events = run.count(1_000_000, 5_000)
    run.now(f"writing a log of {events:,} events")
    path = run.folder / "long.db"
    records = write_history(path, events, artifacts=ARTIFACTS)
    yield from _rebuild(run, path, events, records)
    yield from _verify(run, path, events)
    yield from _open(run, events)


def _rebuild(run: Run, path: Path, events: int, records: int) -> Iterator[Row]:
    run.now(f"rebuilding from {events:,} events")
    peer = _Peer(run.folder / "eventsourcing.db", run.count(10_000, 200))
    taken: dict[str, list[float]] = {"ours": [], "bare": [], "eventsourcing": []}
    if _rebuilt(path) != _bare(path):
        raise AssertionError("two folds of one log differ")
    for _ in range(run.count(3, 1)):
        taken["ours"].append(_timed(lambda: _rebuilt(path)) / events)
        taken["bare"].append(_timed(lambda: _bare(path)) / events)
        taken["eventsourcing"].append(_timed(peer.replay) / peer.events)
    peer.close()
    ours, bare, theirs = (statistics.median(each) for each in taken.values())
    what = f"rebuild of {events:,} events ({records:,} records) from SQLite"
    yield Row(
        what,
        rate(1 / ours, "events"),
        "eventsourcing, aggregates of 10,000 events from SQLite",
        rate(1 / theirs, "events"),
        _ratio(taken["eventsourcing"], taken["ours"]),
        "x its rate",
        at_least(2),
    )
    yield Row(
        what,
        rate(1 / ours, "events"),
        "bare decode + hash + fold",
        rate(1 / bare, "events"),
        _ratio(taken["bare"], taken["ours"]),
        "of its rate",
        at_least(0.6),
    )


def _rebuilt(path: Path) -> str:
    """The hash of the state, rebuilt as every reader rebuilds it."""
    store, state = SqliteLog(path, read_only=True), Directory()
    for _ in fold_log(ShardReader(store, WORKSPACE), state):
        pass
    store.close()
    return state_hash(state)


def _bare(path: Path) -> str:
    """The hash of the state, rebuilt with the least work possible."""
    state, digest = Directory(), b""
    connection = sqlite3.connect(path)
    for (head,) in connection.execute("SELECT head FROM records ORDER BY key"):
        record = DEFAULT_CODEC.decode_record(head)[0]
        digest = chain_hash(head)
        if type(record) is DecisionRecord:
            fold(
                state,
                [DEFAULT_CODEC.decode_event(each) for each in record.events],
                recorded_at=record.recorded_at,
                session_id=record.session_id,
                number=record.number,
                kind=record.command_kind,
            )
    connection.close()
    if len(digest) != 32:
        raise AssertionError("there was nothing to hash")
    return state_hash(state)


def _verify(run: Run, path: Path, events: int) -> Iterator[Row]:
    run.now(f"verifying {events:,} events")
    bare, verified, grown = [], [], 0
    for _ in range(run.count(3, 1)):
        bare.append(_timed(lambda: _bare(path)))
        seconds, grown = _ccs_replay_verify(path)
        verified.append(seconds)
    one, other = statistics.median(verified), statistics.median(bare)
    yield Row(
        "ccs-replay verify of the same, bodies and all, as a process",
        rate(events / one, "events"),
        "bare decode + hash + fold",
        rate(events / other, "events"),
        _ratio(bare, verified),
        "of its rate",
        at_least(0.5),
    )
    run.now("verifying a quarter as many")
    quarter = run.folder / "quarter.db"
    write_history(quarter, events // 4, artifacts=ARTIFACTS)
    _, less = _ccs_replay_verify(quarter)
    yield Row(
        "memory of ccs-replay verify, the same",
        size(grown),
        "a log a quarter as long, of as many artifacts",
        size(less),
        grown / less,
        "x the memory",
        at_most(1.2),
    )


def _open(run: Run, events: int) -> Iterator[Row]:
    run.now("opening at a snapshot")
    path = run.folder / "snapshot.db"
    write_history(path, events, artifacts=ARTIFACTS, snapshot=True)
    url = f"sqlite:///{path}"
    opened = statistics.median(
        _timed(lambda: ccs_stream.connect(url, workspace=WORKSPACE).close()) for _ in range(run.count(5, 1))
    )
    what = f"opening the log of {events:,} events at a snapshot"
    yield Row(what, duration(opened), "a second", duration(1), opened, "x the time", at_most(1))


_LAUNCHER: Final = (
    "import os, sys; _, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0); "
    "print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)"
)
"""A small process in between, because Linux counts the memory of the process that starts another as that other's own.
"""


def _ccs_replay_verify(path: Path) -> tuple[float, int]:
    """Seconds, and bytes of memory at most. Raises `AssertionError` when it fails."""
    replay = str(Path(sys.executable).with_name("ccs-replay"))
    command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, replay, f"sqlite:///{path}", "verify", "--json"]
    errors = ""

    def verify() -> None:
        nonlocal errors
        errors = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
        ).stderr

    seconds = _timed(verify)
    code, kilobytes = errors.splitlines()[-1].split()
    # These agents overwrite what they never read, which verify reports as lost updates.
    if code not in ("0", "3"):
        raise AssertionError(f"ccs-replay ended with {code}: {errors}")
    return seconds, int(kilobytes) * 1024


def _timed(call: Callable[[], object]) -> float:
    gc.collect()
    return once(call)


def _ratio(many: list[float], over: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(many, over, strict=True))


class Artifact(Aggregate):
    """The nearest thing in eventsourcing: an aggregate whose events carry what a write carries here."""

    def __init__(self) -> None:
        self.writer = 0
        self.base = 0
        self.content_type = ""
        self.content_encoding = ""
        self.content_hash = ""
        self.content_size = 0

    @event("Written")
    def write(  # the fields of a write
        self,
        *,
        writer: int,
        base: int,
        content_type: str,
        content_encoding: str,
        content_hash: str,
        content_size: int,
    ) -> None:
        """Write."""
        self.writer = writer
        self.base = base
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.content_hash = content_hash
        self.content_size = content_size


class _Peer:
    """eventsourcing's application on its SQLite recorder."""

    def __init__(self, path: Path, events: int) -> None:
        self.events = events
        self._application: Application[UUID] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(path),
            }
        )
        artifact = Artifact()
        for number in range(events - 1):
            artifact.write(
                writer=number % 20,
                base=number,
                content_type="application/json",
                content_encoding="",
                content_hash=f"{number:064x}",
                content_size=200,
            )
            if number % 500 == 0:
                self._application.save(artifact)
        self._application.save(artifact)
        self._id = artifact.id

    def replay(self) -> object:
        """The aggregate, rebuilt from its events."""
        return self._application.repository.get(self._id)

    def close(self) -> None:
        """Let go of the file."""
        self._application.close()
