"""A workspace with an outbox, somebody else on the same log, and what came of it: for tests of replaying."""

import contextlib
import uuid
from pathlib import Path
from typing import Any

from ccs_stream import Workspace, WorkspaceSettings
from ccs_stream.client.degraded.outbox import Outbox, OutboxChange, QueuedChange
from ccs_stream.client.degraded.outbox_drainer import DrainResult, OutboxDrainer
from ccs_stream.client.degraded.outbox_file import EntryState
from ccs_stream.log.bodies import fetch_body
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import Appended, Conflict, LogStore, Unknown
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.commands import Evict
from ccs_stream.protocol.errors import LogUnavailable
from ccs_stream.protocol.events import ArtifactDeleted, WriteCommitted
from ccs_stream.protocol.ids import CommandNumber, SequenceNumber, SessionId, Version
from ccs_stream.protocol.records import DecisionRecord


class Killed(BaseException):
    """The process is gone at this moment."""


class FragileLog(MemoryLog):
    """A log in memory that can be taken away."""

    away = False

    def append(self, shard: str, drafts: Any, expected: int) -> Appended | Conflict | Unknown:
        if self.away:
            raise LogUnavailable("the log was taken away")
        return super().append(shard, drafts, expected)


class KilledOutbox(Outbox):
    """One whose process is killed between the decision on a change and the mark of it."""

    marks_left = 1_000_000

    def mark_done(self, number: int, version: Version | None) -> None:
        self._survive()
        super().mark_done(number, version)

    def mark_refused(
        self, number: int, state: EntryState, outcome: str, detail: str, current_version: Version | None
    ) -> list[int]:
        self._survive()
        return super().mark_refused(number, state, outcome, detail, current_version)

    def _survive(self) -> None:
        if not self.marks_left:
            raise Killed
        self.marks_left -= 1


class Made:
    """A change, as the log has it."""

    def __init__(self, record: DecisionRecord, event: WriteCommitted | ArtifactDeleted, body: bytes | None) -> None:
        self.session_id = record.session_id
        self.event = event
        self.artifact = event.artifact
        self.version = event.version
        self.base = event.base_version
        self.body = body
        self.mark = event.note.encode() if isinstance(event, ArtifactDeleted) and event.note else body
        """What tells it from all others, in these tests."""


def history(store: LogStore) -> list[Made]:
    """Every write and delete in the log."""
    made: list[Made] = []
    for entry in ShardReader(store, "w").read():
        record = entry.record
        if not isinstance(record, DecisionRecord):
            continue
        for number, event in enumerate(entry.events):
            body = None
            if isinstance(event, WriteCommitted):
                body = fetch_body(store, "w", SequenceNumber(record.first_sequence + number), event, "a change")
            if isinstance(event, WriteCommitted | ArtifactDeleted):
                made.append(Made(record, event, body))
    return made


def events(store: LogStore, kind: type[Any]) -> list[Any]:
    """Every event of a kind."""
    return [event for entry in ShardReader(store, "w").read() for event in entry.events if isinstance(event, kind)]


class Rig:
    """A workspace with an outbox, and somebody else on the same log."""

    def __init__(self, store: LogStore, folder: Path, options: WorkspaceSettings | None = None) -> None:
        self.store = store
        self.folder = folder
        self.ours = Workspace(store, "w", settings=options, owns_store=False)
        self.theirs = Workspace(store, "w", owns_store=False)
        self.other = self.theirs.agent("other")
        self.outbox = self._outbox()
        self.drainer = OutboxDrainer(self.outbox, self.ours.coordinator)

    def _outbox(self) -> KilledOutbox:
        return KilledOutbox(self.folder / "outbox.db", log_id=self.store.log_id, workspace="w")

    def put(
        self,
        key: str,
        body: bytes | None,
        base: int | None = None,
        *,
        agent: str = "ann",
        seen: int | None = None,
        **more: Any,
    ) -> QueuedChange:
        """Queue a change."""
        wanted = OutboxChange(
            scope=("s",),
            key=key,
            content_type=None if body is None else "application/json",
            body=body,
            base_version=None if base is None else Version(base),
            **more,
        )
        return self.outbox.put(agent, wanted, seen=seen)

    def drain(self) -> DrainResult:
        """Bring to the log what can be brought."""
        return self.drainer.drain()

    def die_after_marks(self, marks: int) -> None:
        """Replay, and be killed with one more change decided and not marked; come back."""
        self.outbox.marks_left = marks
        with contextlib.suppress(Killed):
            self.drain()
        self.restart()

    def restart(self) -> None:
        """A new process: nothing but log and file are left."""
        self.outbox.close()
        self.ours.close()
        self.ours = Workspace(self.store, "w", owns_store=False)
        self.outbox = self._outbox()
        self.drainer = OutboxDrainer(self.outbox, self.ours.coordinator)

    def evict(self, session_id: SessionId | None = None) -> None:
        """End the outbox's session."""
        target = session_id or self.outbox.session_id
        command = Evict(session_id=SessionId(uuid.uuid4().bytes), number=CommandNumber(1), target=target)
        assert self.theirs.coordinator.execute(command).refusal is None

    def forget_ended(self) -> None:
        """As after very many sessions."""
        for workspace in (self.ours, self.theirs):
            workspace.coordinator.catch_up()
            workspace.engine.state.ended_sessions.clear()

    def made(self) -> list[tuple[int, bytes | None]]:
        """What is in the log: versions and bodies."""
        return [(each.version, each.body) for each in history(self.store)]

    def version(self, key: str) -> int:
        """The version that somebody reads."""
        found = self.other.read(key, scope=("s",))
        return 0 if found is None else found.version

    def close(self) -> None:
        """Let go of everything."""
        self.outbox.close()
        self.ours.close()
        self.theirs.close()
        self.store.close()


def assert_conditional(made: list[Made], ours: set[bytes]) -> None:
    """What came through an outbox replaced what it was based on, and nothing else."""
    there: dict[bytes, bool] = {}
    versions: dict[bytes, int] = {}
    for each in made:
        assert each.version == versions.get(each.artifact, 0) + 1
        if each.mark in ours:
            if each.base is None:
                assert not there.get(each.artifact)
            else:
                assert each.base == each.version - 1
        there[each.artifact] = isinstance(each.event, WriteCommitted)
        versions[each.artifact] = each.version
