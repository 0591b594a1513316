"""Logs of a given length, as a team of agents would have written them.

Guarantees: the real rules decide them, and they are appended through the port. Most writes are by the agent that holds
the artifact already, and some invalidate a reader's copy, so a record has about 1.2 events. Does not: sleep, or use a
clock.
"""

import hashlib
import random
from pathlib import Path
from typing import Final

from ccs_stream.coordinator.batch import plan
from ccs_stream.log.port import Appended, LogStore
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import take_snapshot
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Read, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import (
    NO_SESSION,
    ArtifactId,
    CommandNumber,
    Hash,
    Micros,
    SessionId,
    artifact_id,
)
from ccs_stream.protocol.settings import DEFAULT_SETTINGS

WORKSPACE: Final = "history"
SESSION: Final = SessionId(b"benchmark-agents")
SCOPE: Final = ("team", "shared")
AGENTS: Final = tuple(f"agent-{number}" for number in range(20))
BATCH: Final = 128
BODY_BYTES: Final = 200
_OPENED: Final = 1_750_000_000_000_000


def write_history(path: Path, events: int, *, artifacts: int, snapshot: bool = False) -> int:
    """Make a log of at least `events` events in the SQLite file `path`; returns how many records it has."""
    store = SqliteLog(path, synchronous="normal")
    state, reader = append_history(store, events, artifacts=artifacts)
    if snapshot:
        store.save_snapshot(WORKSPACE, take_snapshot(state, reader.position(WORKSPACE)))
    store.close()
    return reader.offset + 1


def append_history(
    store: LogStore, events: int, *, artifacts: int, batch: int = BATCH
) -> tuple[Directory, ShardReader]:
    """Append at least `events` events to an empty log; returns where the log then stands."""
    state, reader = Directory(), ShardReader(store, WORKSPACE)
    author = _Author(artifacts)
    number = 0
    with store.turn(WORKSPACE):
        for _ in reader.read():  # the record that opens the log
            pass
    while state.sequence < events:
        commands: list[Command] = []
        for _ in range(batch):
            number += 1
            commands.append(author.next(CommandNumber(number)))
        with store.turn(WORKSPACE):
            if reader.offset < 0:
                for _ in reader.read():
                    pass
            planned = plan(state, reader.cursor, WORKSPACE, commands, Micros(_OPENED + number * 1_000))
            drafts = [each.draft for each in planned if each.draft is not None]
            if type(store.append(WORKSPACE, drafts, reader.offset)) is not Appended:
                raise AssertionError("somebody else writes to a benchmark's log")
        for each in planned:
            if each.record is not None and each.digest is not None:
                fold_decision(state, each.decision.events, each.record)
                reader.advance_past(each.record, each.digest, reader.offset + 1)
    return state, reader


class _Author:
    """Makes up the commands."""

    def __init__(self, artifacts: int) -> None:
        self._chance = random.Random(11)
        self._ids: list[ArtifactId] = [artifact_id(WORKSPACE, SCOPE, f"file-{each}") for each in range(artifacts)]
        self._written: list[int] = []

    def next(self, number: CommandNumber) -> Command:
        """The next command: first open, then all join, then nine writes to one read."""
        if number == 1:
            return Open(session_id=NO_SESSION, number=CommandNumber(0), settings=DEFAULT_SETTINGS)
        if number <= len(AGENTS) + 1:
            return Join(session_id=SESSION, number=number, agent=AGENTS[number - 2])
        chance = self._chance
        if self._written and chance.random() < 0.25:
            return Read(
                session_id=SESSION, number=number, agent=chance.choice(AGENTS), artifact=self._ids[self._written[-1]]
            )
        which = chance.randrange(len(self._ids))
        self._written = [which]
        body = number.to_bytes(8, "big") * (BODY_BYTES // 8)
        content = Content(
            content_type="application/json",
            content_encoding="",
            content_hash=Hash(hashlib.sha256(body).digest()),
            size=len(body),
            body=body,
        )
        change = Write(artifact=self._ids[which], scope=SCOPE, key=f"file-{which}", content=content, base_version=None)
        # Each artifact has its usual author, as files have.
        return Commit(session_id=SESSION, number=number, agent=AGENTS[which % len(AGENTS)], changes=(change,))
