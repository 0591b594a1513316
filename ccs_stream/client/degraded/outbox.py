"""The outbox: changes that wait, in a file, for a log that cannot be written now.

`LocalFallback` puts changes there, and `OutboxDrainer` brings them to the log.

Guarantees: `put` returns when the change and its command number are on disk (fsync); a kill at any moment loses or
doubles nothing of that. Changes keep their order. A change follows the newest waiting change of the same artifact by
the same agent: it is conditional on the version which that one makes, and is refused with it. What was refused stays,
body and all, until it is resolved. One process has the file at a time, and a killed one does not stand in the way.
Does not: send anything; keep a fence, because the session of the outbox holds no reservations; start
a TTL before the change is in the log.

Versions of queued changes are predictions. Never use one as the base version of a later write: another process may get
that number. To build on another agent's queued change, pass its number as `seen`.
"""

import contextlib
import dataclasses
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ccs_stream.background import ForkGuard
from ccs_stream.client.degraded.outbox_file import (
    INSERT,
    EntryKind,
    EntryState,
    OutboxEntry,
    OutboxFile,
    new_session_id,
    next_number,
    row_of,
)
from ccs_stream.clock import wall_clock
from ccs_stream.protocol.errors import CcsError, OutcomeUnknown, TooLarge, UsageError
from ccs_stream.protocol.ids import ArtifactId, CommandNumber, Micros, Scope, SessionId, Version, artifact_id
from ccs_stream.protocol.limits import check_text

ENTRIES_MAX: Final = 10_000
"""Changes an outbox holds, refused ones included."""
BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes an outbox holds, refused changes included."""
DONE_KEPT: Final = 1_000
"""Changes in the log that the file still names, without their bodies."""
FOLLOWS_REFUSED: Final = "follows_refused"
"""Outcome of a change whose predecessor was refused."""
_REFUSE: Final = "UPDATE entries SET state = ?, outcome = ?, detail = ?, version = ?, settled_at = ? WHERE number = ?"
_REFUSED: Final = (EntryState.CONFLICT, EntryState.FAILED)


class OutboxFull(TooLarge):
    """The outbox holds all that it may; this change was not taken. Wait for the log, or resolve conflicts."""

    retryable = True


@dataclasses.dataclass(frozen=True, slots=True)
class QueuedChange:
    """A change that is in the file."""

    number: int
    base_version: Version | None
    """The version that the change is conditional on; a forecast where it follows another waiting change."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutboxChange:
    """A change, as its author asks for it."""

    scope: Scope
    key: str
    content_type: str | None
    body: bytes | None
    """None, and no content type: a delete."""
    base_version: Version | None
    """The version that its author had read; 0 or None for nothing."""
    ttl_us: Micros | None = None
    index_fields: tuple[str, ...] | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxCounts:
    waiting: int
    conflicts: int
    """Refused changes that are not resolved, failed ones included."""
    done: int
    """Changes that came to be in the log, ever."""
    bytes: int


class Outbox:
    """One outbox file. For all threads of one process."""

    def __init__(
        self,
        path: Path | str,
        *,
        log_id: bytes,
        workspace: str,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        clock: Callable[[], Micros] = wall_clock,
    ) -> None:
        """Open the file, or make it.

        Raises `UsageError` for a file of something else, of another log or workspace, or in use; `NewerFormat`; and
        the `LogError`s of a disk.
        """
        if entries_max < 1 or bytes_max < 1:
            raise UsageError(f"an outbox holds at least one change: got {entries_max=}, {bytes_max=}")
        self.path = Path(path)
        self.workspace = workspace
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._lock = threading.RLock()
        self._guard = ForkGuard(f"outbox={self.path}")
        self._session_id = SessionId(b"")
        self._session_used = False
        self._file = OutboxFile(self.path, log_id=log_id, workspace=workspace)
        self._load()

    def __repr__(self) -> str:
        return f"Outbox({str(self.path)!r})"

    # Looking. Costs no I/O but where it says so.

    @property
    def is_empty(self) -> bool:
        """True if nothing waits."""
        return not self._waiting

    @property
    def counts(self) -> OutboxCounts:
        """The numbers of changes, and their bytes."""
        with self._own_lock():
            return OutboxCounts(len(self._waiting), len(self._sizes) - len(self._waiting), self._done, self._bytes)

    @property
    def session_id(self) -> SessionId:
        """The session that its changes are commands of."""
        return self._session_id

    @property
    def session_used(self) -> bool:
        """True if a change may have been sent as a command of the session."""
        return self._session_used

    def first(self) -> OutboxEntry | None:
        """The oldest waiting change, from the file."""
        with self._own_lock():
            number = next(iter(self._waiting), None)
            return None if number is None else self.entry(number)

    def latest(self, artifact: ArtifactId) -> OutboxEntry | None:
        """The newest waiting change of an artifact, from the file: what its author reads meanwhile."""
        if artifact not in self._waiting_by_artifact:
            return None
        with self._own_lock():
            numbers = self._waiting_by_artifact.get(artifact)
            return self.entry(numbers[-1]) if numbers else None

    def waiting(self) -> list[OutboxEntry]:
        """The waiting changes, in order, from the file."""
        return self._all(EntryState.WAITING)

    def conflicts(self) -> list[OutboxEntry]:
        """The refused changes that are not resolved, in order, from the file."""
        return self._all(*_REFUSED)

    def entry(self, number: int) -> OutboxEntry | None:
        """A change by its number, from the file; None where it has none (any more)."""
        with self._own_lock():
            return self._file.entry(number)

    # Queueing.

    def put(self, agent: str, change: OutboxChange, *, seen: int | None = None) -> QueuedChange:
        """Keep a change durably. `seen` is the number of another agent's waiting change that the author has read.

        Raises `OutboxFull`, `UsageError`, `LogError`s of the disk: then nothing was kept; `OutcomeUnknown`.
        """
        check_text(agent, "an agent's name")
        check_text(change.key, "a key")
        for part in change.scope:
            check_text(part, "a part of a scope")
        if (change.body is None) is not (change.content_type is None):
            raise UsageError("a write has a content type and a body, a delete has neither")
        artifact = artifact_id(self.workspace, change.scope, change.key)
        with self._own_lock():
            follows, base = self._condition(artifact, agent, change.base_version, seen)
            with self._writing() as connection:
                number = next_number(connection)
                entry = OutboxEntry(
                    number=number,
                    command=CommandNumber(2 * number),
                    follows=follows,
                    agent=agent,
                    scope=change.scope,
                    key=change.key,
                    artifact=artifact,
                    kind=EntryKind.DELETE if change.body is None else EntryKind.WRITE,
                    content_type=change.content_type,
                    body=change.body,
                    base_version=base,
                    ttl_us=change.ttl_us,
                    index_fields=change.index_fields,
                    reason=change.reason,
                    queued_at=self._clock(),
                )
                self._require_room(entry.size)
                connection.execute(INSERT, row_of(entry))
            self._remember(entry)
        return QueuedChange(number, base)

    def _condition(
        self, artifact: ArtifactId, agent: str, base: Version | None, seen: int | None
    ) -> tuple[int | None, Version | None]:
        """The change to follow, and the base. What its author has not seen is not followed, so it is never hidden."""
        for number in reversed(self._waiting_by_artifact.get(artifact, ())):
            if number == seen or self._waiting[number][1] == agent:
                before = self.entry(number)
                return number, base if before is None else before.makes
        known = None if seen is None else self.entry(seen)
        if known is not None and known.state is EntryState.DONE and known.version is not None:
            return None, Version(max(base or 0, known.version))
        return None, base

    def _require_room(self, size: int) -> None:
        if len(self._sizes) >= self._entries_max or self._bytes + size > self._bytes_max:
            held = self.counts
            raise OutboxFull(
                f"outbox={self.path} holds {held.waiting} waiting and {held.conflicts} refused changes of {held.bytes} "
                f"bytes, at most {self._entries_max} changes of {self._bytes_max} bytes are kept, and this one was not "
                "taken: wait until the log can be written, or resolve conflicts",
                reason="outbox_full",
            )

    def resolve(self, number: int) -> None:
        """Forget a refused change, because the user has dealt with it. Raises `UsageError` where that is none."""
        with self._own_lock():
            entry = self.entry(number)
            if entry is None or entry.state not in _REFUSED:
                raise UsageError(f"change {number} of outbox={self.path} is not one that was refused")
            with self._writing() as connection:
                connection.execute("DELETE FROM entries WHERE number = ?", (number,))
            self._bytes -= self._sizes.pop(number)

    # Results of changes: for the drainer.

    def mark_done(self, number: int, version: Version | None) -> None:
        """Mark a change as being in the log, where it made `version` (None: there was nothing to delete).

        Changes that follow it get that base.

        Its body is forgotten.
        """
        with self._own_lock():
            entry = self._require_waiting(number)
            base = entry.base_version if version is None else version
            with self._writing() as connection:
                connection.execute(
                    "UPDATE entries SET state = ?, version = ?, settled_at = ?, body = NULL WHERE number = ?",
                    (EntryState.DONE.value, version, self._clock(), number),
                )
                connection.execute("UPDATE entries SET base_version = ? WHERE follows = ?", (base, number))
                connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'done'")
                connection.execute(
                    "DELETE FROM entries WHERE state = ? AND number <= ?", (EntryState.DONE.value, number - DONE_KEPT)
                )
            self._done += 1
            self._forget_waiting(number)
            self._bytes -= self._sizes.pop(number)

    def mark_refused(
        self, number: int, state: EntryState, outcome: str, detail: str, current_version: Version | None
    ) -> list[int]:
        """Mark a change as refused, and with it the changes that follow it; returns the numbers of all."""
        with self._own_lock():
            refused = [self._require_waiting(number).number]
            for later in self._waiting_by_artifact[self._waiting[number][0]]:
                entry = self.entry(later)
                if entry is not None and entry.follows in refused:
                    refused.append(later)
            with self._writing() as connection:
                rows = [
                    (state.value, outcome, detail, current_version, self._clock(), number),
                    *(self._follower_row(each, number, current_version) for each in refused[1:]),
                ]
                connection.executemany(_REFUSE, rows)
            for each in refused:
                self._forget_waiting(each)
        return refused

    def _follower_row(self, number: int, refused: int, current_version: Version | None) -> tuple[Any, ...]:
        detail = f"it follows change {refused} of the same artifact, which was refused"
        return (EntryState.CONFLICT.value, FOLLOWS_REFUSED, detail, current_version, self._clock(), number)

    def renumber(self, number: int, *, above: int = 0) -> OutboxEntry:
        """Give a waiting change a new command number, above `above`: the answer under the old one is final.

        The caller knows that the change was not made under the old number, and cannot be any more.
        """
        with self._own_lock():
            entry = self._require_waiting(number)
            with self._writing() as connection:
                command = CommandNumber(2 * next_number(connection, above=above // 2 + 1))
                connection.execute("UPDATE entries SET command = ? WHERE number = ?", (command, number))
        return dataclasses.replace(entry, command=command)

    def use_session(self) -> None:
        """Note that a change is about to be sent as a command of the session."""
        with self._own_lock():
            if not self._session_used:
                with self._writing() as connection:
                    connection.execute("UPDATE meta SET value = 1 WHERE name = 'session_used'")
                self._session_used = True

    def new_session(self, old: SessionId) -> CommandNumber:
        """Take a new session, unless `old` is not the present one any more; returns a number to end the old one with.

        The caller knows of every waiting change that the old session did not make it, and cannot make it any more.
        """
        with self._own_lock():
            session = new_session_id()
            with self._writing() as connection:
                number = next_number(connection)
                if self._session_id == old:
                    connection.execute("UPDATE meta SET value = ? WHERE name = 'session_id'", (session,))
                    connection.execute("UPDATE meta SET value = 0 WHERE name = 'session_used'")
            if self._session_id == old:
                self._session_id, self._session_used = session, False
        return CommandNumber(2 * number)

    def close(self) -> None:
        """Let go of the file. What waits, waits. Closing twice is fine, and so is closing in a forked child."""
        if not self._guard.forked:
            with self._lock:
                self._file.close()

    # Within.

    def _own_lock(self) -> threading.RLock:  # type: ignore[valid-type,unused-ignore]  # a function, says typeshed
        """The lock; a forked child must not wait for it. Raises `ForkedProcess`."""
        self._guard.check()
        return self._lock

    def _load(self) -> None:
        meta = self._file.meta()
        self._session_id, self._session_used = SessionId(meta["session_id"]), bool(meta["session_used"])
        self._done = int(meta["done"])
        self._bytes = 0
        self._sizes: dict[int, int] = {}
        self._waiting: dict[int, tuple[ArtifactId, str]] = {}  # artifact and agent, in order
        self._waiting_by_artifact: dict[ArtifactId, list[int]] = {}  # what waits, by artifact
        for entry in self._file.entries(EntryState.WAITING, *_REFUSED):
            self._remember(entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._file.writing() as connection:
                yield connection
        except OutcomeUnknown:
            try:
                self._load()
            except CcsError:
                self._file.close()  # better closed than out of step with the disk
            raise

    def _remember(self, entry: OutboxEntry) -> None:
        self._sizes[entry.number] = entry.size
        self._bytes += entry.size
        if entry.state is EntryState.WAITING:
            self._waiting[entry.number] = (entry.artifact, entry.agent)
            self._waiting_by_artifact.setdefault(entry.artifact, []).append(entry.number)

    def _forget_waiting(self, number: int) -> None:
        artifact, _ = self._waiting.pop(number)
        theirs = self._waiting_by_artifact[artifact]
        theirs.remove(number)
        if not theirs:
            del self._waiting_by_artifact[artifact]

    def _require_waiting(self, number: int) -> OutboxEntry:
        entry = self.entry(number) if number in self._waiting else None
        if entry is None:
            raise UsageError(f"change {number} of outbox={self.path} does not wait")
        return entry

    def _all(self, *states: EntryState) -> list[OutboxEntry]:
        with self._own_lock():
            return self._file.entries(*states)
