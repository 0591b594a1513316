"""Draining an outbox: brings the changes that wait there to the log, in order, each at most once.

`DegradedMode` drains when the log is back.

Guarantees: each change is a command of the outbox's session, with the number that is in the file and conditional on its
base. Its result is in the file before the next change is sent. A repeat is recognised as long as its session remembers.
Where the session was lost, the drainer looks for the session and number of the change in the decisions that made the
artifact's versions: it happens once. A refused change stays in the outbox, with the reason. A change that meets the
reservation of another, or a log that cannot be written, goes on waiting, and so do all changes behind it. Works with
every coordinator. Does not: decide when to drain.
"""

import dataclasses
import functools
import hashlib
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.degraded.outbox_file import EntryState, OutboxEntry
from ccs_stream.client.operations.changes import PendingContent
from ccs_stream.client.operations.session import LOST
from ccs_stream.client.values import content_of
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.history import LoggedDecision, find_decision
from ccs_stream.protocol.commands import ArtifactChange, Command, Commit, Erase, Join, Leave, Write, WriteMode
from ccs_stream.protocol.errors import CcsError, Refused, RefusedByBroker, UsageError
from ccs_stream.protocol.events import ArtifactDeleted, CommandRefused, RefusalReason, WriteCommitted
from ccs_stream.protocol.ids import CommandNumber, SessionId, Version

ATTEMPTS_MAX: Final = 4
"""Sessions one change may lose in one go; a workspace that ends them faster is left alone for a while."""
LOOK_BACK_MAX: Final = 10_000
"""Versions of an artifact that are looked at to tell whether a lost session made one; 10 us each, on Kafka 1 ms."""
LEAVE_S: Final = 3.0
"""How long the farewell of a session may take."""
UNVERIFIABLE: Final = "unverifiable"
"""Outcome of a change of which the log no longer says whether it happened."""
_RENUMBERED: Final = (RefusalReason.CONTENT_TOO_OLD, RefusalReason.NUMBER_REUSED)
"""An upload that waited for too long with its command; a number that another copy of the file has used."""
_CONFLICTS: Final = (RefusalReason.VERSION_CONFLICT, RefusalReason.RECLAIMED)
_NEVER_ACCEPTED: Final = (Refused, RefusedByBroker, UsageError)
"""Errors that say that a change can never be accepted as it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrainedChange:
    """A change that is in the log now."""

    entry: OutboxEntry
    """The change as it waited."""
    version: Version | None
    """The version it made; None where there was nothing to delete."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrainResult:
    """The result of draining an outbox once."""

    done: tuple[DrainedChange, ...]
    conflicts: tuple[OutboxEntry, ...]
    """The changes that were refused, as they are in the outbox now."""
    left: int
    """How many changes still wait."""
    error: Exception | None
    """The error of the log or of the outbox's disk; None where a reservation stands in the way, or nothing is left."""


class _Unverifiable(Exception):
    """The log no longer holds the decision that would tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class _EntryStatus:
    """The status of a change, by the folded state."""

    decided: bool
    """Its number is in its session's window: submitting it again gives the answer."""
    in_doubt: bool
    """The state does not tell whether it was decided."""
    lost: bool
    """Its session has ended. Joining could bring the session back without what it remembered."""
    stale: bool
    """Its number is older than the window of its session: it would be taken for a stale copy."""
    highest: int
    joined: bool
    reserved: bool


def require_log(coordinator: Coordinator) -> None:
    """Raise the error that stands in the way of the log: no answer, a lock, a missing right.

    Folds what others have appended. Does not find out that a disk is full; only an append does. A turn is tried first,
    because a command would wait for it under the lock that readers take.
    """
    store = coordinator.store
    if store.serialises_writers:
        with store.turn(coordinator.workspace):
            pass
    coordinator.catch_up()


class OutboxDrainer:
    """Drains the outbox of one workspace. For all threads; one drains at a time."""

    def __init__(self, outbox: Outbox, coordinator: Coordinator) -> None:
        self.outbox = outbox
        self._coordinator = coordinator
        self._lock = threading.Lock()

    def drain(self) -> DrainResult:
        """Bring to the log what can be brought. May wait as long as the log lets it wait; raises only for bugs."""
        done: list[DrainedChange] = []
        refused: list[int] = []
        error: Exception | None = None
        with self._lock:
            try:
                if not self.outbox.is_empty:
                    require_log(self._coordinator)
                while (entry := self.outbox.first()) is not None:
                    outcome = self._send(entry)
                    if outcome is None:
                        break
                    if isinstance(outcome, DrainedChange):
                        done.append(outcome)
                    else:
                        refused.extend(outcome)
                if (done or refused) and self.outbox.is_empty:
                    self._leave()
            except (CcsError, OSError, sqlite3.Error) as trouble:
                error = trouble
            conflicts = self._named(refused)
        return DrainResult(tuple(done), conflicts, self.outbox.counts.waiting, error)

    def _named(self, numbers: list[int]) -> tuple[OutboxEntry, ...]:
        found: list[OutboxEntry] = []
        with suppress(CcsError):  # the failing disk was reported already; the file has the entries
            found = [entry for number in numbers if (entry := self.outbox.entry(number)) is not None]
        return tuple(found)

    # One change.

    def _send(self, entry: OutboxEntry) -> DrainedChange | list[int] | None:
        """Send one change; None where it still waits, else its result.

        The result is a list of numbers where it was refused, and with it the changes that follow it.
        """
        looked_back = False
        for _ in range(ATTEMPTS_MAX):
            session = self.outbox.session_id
            status = self._status(entry, session)
            if status.in_doubt and not looked_back:
                try:
                    version = self._find_version(entry, session)
                except _Unverifiable as why:
                    return self.outbox.mark_refused(entry.number, EntryState.CONFLICT, UNVERIFIABLE, str(why), None)
                if version is not None:
                    return self._done(entry, version)
                looked_back = True
            if status.lost:
                self.outbox.new_session(session)
                continue
            if status.stale:
                entry = self.outbox.renumber(entry.number, above=status.highest)
                continue
            if status.reserved and not status.decided:
                return None
            try:
                answer = self._submit(entry, session, joined=status.joined)
            except _NEVER_ACCEPTED as error:
                reason = error.reason if isinstance(error, Refused) else type(error).__name__
                return self.outbox.mark_refused(entry.number, EntryState.FAILED, reason, str(error), None)
            refusal = answer.refusal
            if refusal is not None and refusal.reason in _RENUMBERED:
                entry = self.outbox.renumber(entry.number, above=status.highest)
                continue
            if refusal is not None and refusal.reason not in LOST:
                return self._refused(entry, refusal)
            if refusal is None:
                version = _version_in(answer, entry)
                if version is not None or entry.body is None:
                    return self._done(entry, version)
            # The session was lost, or nothing was decided: the state has moved, and tells more now.
            looked_back = False
        return None

    def _status(self, entry: OutboxEntry, session_id: SessionId) -> _EntryStatus:
        coordinator = self._coordinator
        with coordinator.lock:
            state = coordinator.state
            session, artifact = state.sessions.get(session_id), state.artifacts.get(entry.artifact)
            decided = session is not None and entry.command in session.window
            stale = (
                session is not None and not decided and entry.command <= session.highest - state.settings.dedupe_window
            )
            # A session that ended long ago is forgotten, and looks like one that nobody has used yet.
            lost = session is None and (state.has_ended(session_id) or self.outbox.session_used)
            return _EntryStatus(
                decided=decided,
                in_doubt=lost or stale,
                lost=lost,
                stale=stale,
                highest=0 if session is None else int(session.highest),
                joined=session is not None and entry.agent in session.participants,
                reserved=artifact is not None and artifact.reserved(coordinator.now()),
            )

    def _submit(self, entry: OutboxEntry, session: SessionId, *, joined: bool) -> Answer:
        if not joined:
            join = Join(session_id=session, number=CommandNumber(entry.command - 1), agent=entry.agent)
            answer = self._coordinator.execute(join)
            if answer.refusal is not None:
                return answer
        self.outbox.use_session()
        change, work = self._change(entry)
        command: Command = Commit(session_id=session, number=entry.command, agent=entry.agent, changes=(change,))
        return self._coordinator.execute(command, None, work)

    def _change(self, entry: OutboxEntry) -> tuple[ArtifactChange, Callable[[], object] | None]:
        """The change, and the upload it needs."""
        mode = WriteMode.COMPARE_AND_SET
        if entry.body is None or entry.content_type is None:
            erase = Erase(artifact=entry.artifact, mode=mode, base_version=entry.base_version, reason=entry.reason)
            return erase, None
        content = content_of(entry.content_type, entry.body)
        write = Write(
            artifact=entry.artifact,
            scope=entry.scope,
            key=entry.key,
            content=content,
            mode=mode,
            base_version=entry.base_version,
            ttl_us=entry.ttl_us,
            index_fields=entry.index_fields,
            reason=entry.reason,
        )
        settings = self._coordinator.state.settings
        # What is larger than the workspace allows is refused for its size, and needs no upload before that.
        if settings.inline_content_bytes < content.size <= settings.maximum_content_bytes:
            pending = PendingContent(content, entry.body, uploaded=True)
            return write, functools.partial(pending.upload, self._coordinator)
        return write, None

    # The outcome of one change.

    def _done(self, entry: OutboxEntry, version: Version | None) -> DrainedChange:
        self.outbox.mark_done(entry.number, version)
        return DrainedChange(entry, version)

    def _refused(self, entry: OutboxEntry, refusal: CommandRefused) -> list[int] | None:
        if refusal.reason is RefusalReason.RESERVED:
            self.outbox.renumber(entry.number)  # under its old number it would be refused for ever
            return None
        state = EntryState.CONFLICT if refusal.reason in _CONFLICTS else EntryState.FAILED
        return self.outbox.mark_refused(
            entry.number, state, refusal.reason.value, refusal.detail, refusal.current_version
        )

    def _leave(self) -> None:
        """End the session.

        Its grants would stand in the way of others, and a reclaim of them in the way of later changes.

        Called only when nothing waits, so that no command of the session is in doubt.
        """
        old = self.outbox.session_id
        number = self.outbox.new_session(old)
        with self._coordinator.lock:
            alive = self._coordinator.state.sessions.get(old) is not None
        if alive:
            with suppress(CcsError):  # a courtesy: otherwise the session ends like that of a killed process
                self._coordinator.execute(Leave(session_id=old, number=number), timeout_s=LEAVE_S)

    def _find_version(self, entry: OutboxEntry, session_id: SessionId) -> Version | None:
        """The version that this change made, if it did. Raises `_Unverifiable`, and what the log raises.

        Each version names the event of the one before it: from the current one back to the base, the decisions tell
        whose they were.
        """
        with self._coordinator.lock:
            artifact = self._coordinator.state.artifacts.get(entry.artifact)
            sequence = 0 if artifact is None else int(artifact.sequence)
        for _ in range(LOOK_BACK_MAX):
            if not sequence:
                return None
            decision = self._decision(sequence)
            record, event = decision.record, decision.event(sequence)
            if not isinstance(event, WriteCommitted | ArtifactDeleted):
                raise _Unverifiable(f"sequence {sequence} of the log is no change of this artifact")
            if record.session_id == session_id and record.number == entry.command and _is_of(event, entry):
                return event.version
            if event.version <= (entry.base_version or 0):
                return None
            sequence = int(event.previous_sequence)
        raise _Unverifiable(
            f"the session of this change was lost, and more than {LOOK_BACK_MAX} versions were written since: read, "
            "and write again"
        )

    def _decision(self, sequence: int) -> LoggedDecision:
        decision = find_decision(self._coordinator.store, self._coordinator.workspace, sequence)
        if decision is None:
            raise _Unverifiable(
                f"the session of this change was lost, and sequence {sequence} is not in the log any more, which would "
                "tell whether the change happened: read, and write again"
            )
        return decision


def _is_of(event: WriteCommitted | ArtifactDeleted, entry: OutboxEntry) -> bool:
    """True if the event is one that this change makes: in another copy of the file the number may be another change."""
    if isinstance(event, ArtifactDeleted):
        return entry.body is None
    return entry.body is not None and event.content_hash == hashlib.sha256(entry.body).digest()


def _version_in(answer: Answer, entry: OutboxEntry) -> Version | None:
    for event in reversed(answer.events):  # what had expired ends first
        if isinstance(event, WriteCommitted | ArtifactDeleted) and event.artifact == entry.artifact:
            return event.version
    return None
