"""Bringing what waits in an outbox to the log.

Guarantees: changes are sent one at a time, in order, each as a command of the outbox's session under the number that is
in the file, and conditional on its base (`compare_and_set`); what became of each is in the file before the next is
sent. A change that had been decided when its process was killed is recognised, by its number while its session lives,
and after that by the session and number of the decisions in the log that made the artifact's versions: it happens once.
What is refused stays in the outbox, with the reason; what meets another's reservation, or a log that cannot be written,
goes on waiting, and so does all behind it. Works with every coordinator. Does not: decide when; `degrading` does.
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
from ccs_stream.client.degraded.outbox_file import Entry, EntryState
from ccs_stream.client.values import content_of
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.protocol.commands import ArtifactChange, Command, Commit, Content, Erase, Join, Leave, Write, WriteMode
from ccs_stream.protocol.errors import CcsError, Refused, RefusedByBroker, UsageError
from ccs_stream.protocol.events import ArtifactDeleted, CommandRefused, RefusalReason, WriteCommitted
from ccs_stream.protocol.ids import CommandNumber, SessionId, Version
from ccs_stream.protocol.records import DecisionRecord

ATTEMPTS_MAX: Final = 4
"""Sessions one change may lose in one go; a workspace that ends them faster is left alone for a while."""
LOOK_BACK_MAX: Final = 10_000
"""Versions of an artifact that are looked at to tell whether a lost session made one; 10 us each, on Kafka 1 ms."""
LEAVE_S: Final = 3.0
"""How long the farewell of a session may take."""
UNVERIFIABLE: Final = "unverifiable"
"""Outcome of a change of which the log no longer says whether it happened."""
_LOST: Final = (RefusalReason.SESSION_ENDED, RefusalReason.UNKNOWN_SESSION, RefusalReason.UNKNOWN_PARTICIPANT)
_AGAIN: Final = (RefusalReason.CONTENT_TOO_OLD, RefusalReason.NUMBER_REUSED)
"""An upload that waited for too long with its command; a number that another copy of the file has used."""
_CONFLICTS: Final = (RefusalReason.VERSION_CONFLICT, RefusalReason.RECLAIMED)
_NEVER: Final = (Refused, RefusedByBroker, UsageError)
"""Errors that say that a change can never be accepted as it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """A change that is in the log."""

    entry: Entry
    """As it waited."""
    version: Version | None
    """The version it made; None where there was nothing to delete."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrainResult:
    """What became of an outbox this time."""

    done: tuple[Done, ...]
    conflicts: tuple[Entry, ...]
    """What was refused, as it is in the outbox now."""
    left: int
    """How many changes wait still."""
    error: Exception | None
    """What the log, or the disk of the outbox, said; None where it was only a reservation, or nothing is left."""


class _Unverifiable(Exception):
    """The log no longer holds what would tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Standing:
    """Where a change stands, in the folded state."""

    decided: bool
    """Its number is in its session's window: asking again gives the answer."""
    in_doubt: bool
    """Nothing in the state tells whether it was decided."""
    lost: bool
    """Its session is over. It may be known no more, and joining would bring it back without what it remembered."""
    stale: bool
    """Its number is older than the window of its session: it would be taken for a copy."""
    highest: int
    joined: bool
    reserved: bool


def require_log(coordinator: Coordinator) -> None:
    """Raise what stands in the way of the log: nobody answers, it is locked, it may not be written.

    Folds what others have appended. Does not find out that a disk is full; only an append does. A turn is tried first,
    because a command would wait for it under the lock that readers take.
    """
    store = coordinator.store
    if store.serialises_writers:
        with store.turn(coordinator.workspace):
            pass
    coordinator.catch_up()


class OutboxDrainer:
    """See the module's docstring. For all threads; one replays at a time."""

    def __init__(self, outbox: Outbox, coordinator: Coordinator) -> None:
        self.outbox = outbox
        self._coordinator = coordinator
        self._lock = threading.Lock()

    def replay(self) -> DrainResult:
        """Bring to the log what can be brought. May wait for as long as the log lets one wait; raises only for bugs."""
        done: list[Done] = []
        refused: list[int] = []
        error: Exception | None = None
        with self._lock:
            try:
                if not self.outbox.is_empty:
                    require_log(self._coordinator)
                while (entry := self.outbox.first()) is not None:
                    outcome = self._bring(entry)
                    if outcome is None:
                        break
                    if isinstance(outcome, Done):
                        done.append(outcome)
                    else:
                        refused.extend(outcome)
                if (done or refused) and self.outbox.is_empty:
                    self._leave()
            except (CcsError, OSError, sqlite3.Error) as trouble:
                error = trouble
            conflicts = self._named(refused)
        return DrainResult(tuple(done), conflicts, self.outbox.counts.waiting, error)

    def _named(self, numbers: list[int]) -> tuple[Entry, ...]:
        found: list[Entry] = []
        with suppress(CcsError):  # a disk that fails now has been told of; the file has them
            found = [entry for number in numbers if (entry := self.outbox.entry(number)) is not None]
        return tuple(found)

    # One change.

    def _bring(self, entry: Entry) -> Done | list[int] | None:
        """What became of it: done, refused (and what follows it), or None for waiting still."""
        looked_back = False
        for _ in range(ATTEMPTS_MAX):
            session = self.outbox.session_id
            standing = self._standing(entry, session)
            if standing.in_doubt and not looked_back:
                try:
                    version = self._made(entry, session)
                except _Unverifiable as why:
                    return self.outbox.mark_refused(entry.number, EntryState.CONFLICT, UNVERIFIABLE, str(why), None)
                if version is not None:
                    return self._done(entry, version)
                looked_back = True
            if standing.lost:
                self.outbox.new_session(session)
                continue
            if standing.stale:
                entry = self.outbox.renumber(entry.number, above=standing.highest)
                continue
            if standing.reserved and not standing.decided:
                return None
            try:
                answer = self._ask(entry, session, joined=standing.joined)
            except _NEVER as error:
                reason = error.reason if isinstance(error, Refused) else type(error).__name__
                return self.outbox.mark_refused(entry.number, EntryState.FAILED, reason, str(error), None)
            refusal = answer.refusal
            if refusal is not None and refusal.reason in _AGAIN:
                entry = self.outbox.renumber(entry.number, above=standing.highest)
                continue
            if refusal is not None and refusal.reason not in _LOST:
                return self._refused(entry, refusal)
            if refusal is None:
                version = _version_in(answer, entry)
                if version is not None or entry.body is None:
                    return self._done(entry, version)
            # The session was lost, or nothing was decided: the state has moved, and tells more now.
            looked_back = False
        return None

    def _standing(self, entry: Entry, session_id: SessionId) -> _Standing:
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
            return _Standing(
                decided=decided,
                in_doubt=lost or stale,
                lost=lost,
                stale=stale,
                highest=0 if session is None else int(session.highest),
                joined=session is not None and entry.agent in session.participants,
                reserved=artifact is not None and artifact.reserved(coordinator.now()),
            )

    def _ask(self, entry: Entry, session: SessionId, *, joined: bool) -> Answer:
        if not joined:
            join = Join(session_id=session, number=CommandNumber(entry.command - 1), agent=entry.agent)
            answer = self._coordinator.execute(join)
            if answer.refusal is not None:
                return answer
        self.outbox.use_session()
        change, work = self._change(entry)
        command: Command = Commit(session_id=session, number=entry.command, agent=entry.agent, changes=(change,))
        return self._coordinator.execute(command, None, work)

    def _change(self, entry: Entry) -> tuple[ArtifactChange, Callable[[], object] | None]:
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
            return write, functools.partial(self._upload, content, entry.body)
        return write, None

    def _upload(self, content: Content, body: bytes) -> None:
        if content.locator is None:
            content.locator = self._coordinator.store.put_content(body)
            content.body = None
            content.uploaded_at = self._coordinator.now()

    # What became of it.

    def _done(self, entry: Entry, version: Version | None) -> Done:
        self.outbox.mark_done(entry.number, version)
        return Done(entry, version)

    def _refused(self, entry: Entry, refusal: CommandRefused) -> list[int] | None:
        if refusal.reason is RefusalReason.RESERVED:
            self.outbox.renumber(entry.number)  # asked under this one, it would be answered so for ever
            return None
        state = EntryState.CONFLICT if refusal.reason in _CONFLICTS else EntryState.FAILED
        return self.outbox.mark_refused(
            entry.number, state, refusal.reason.value, refusal.detail, refusal.current_version
        )

    def _leave(self) -> None:
        """End the session: what it holds would stand against others, and what is taken from it against later changes.

        Only with nothing waiting: no command of it is in doubt.
        """
        old = self.outbox.session_id
        number = self.outbox.new_session(old)
        with self._coordinator.lock:
            alive = self._coordinator.state.sessions.get(old) is not None
        if alive:
            with suppress(CcsError):  # a courtesy: a session that was not ended is one of a process that was killed
                self._coordinator.execute(Leave(session_id=old, number=number), timeout_s=LEAVE_S)

    def _made(self, entry: Entry, session_id: SessionId) -> Version | None:
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
            record = self._decision(sequence)
            event = DEFAULT_CODEC.decode_event(record.events[sequence - record.first_sequence])
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

    def _decision(self, sequence: int) -> DecisionRecord:
        stored = self._coordinator.store.find(self._coordinator.workspace, sequence)
        record = None if stored is None else stored.record or DEFAULT_CODEC.decode_record(stored.head)[0]
        if not isinstance(record, DecisionRecord):
            raise _Unverifiable(
                f"the session of this change was lost, and sequence {sequence} is not in the log any more, which would "
                "tell whether the change happened: read, and write again"
            )
        return record


def _is_of(event: WriteCommitted | ArtifactDeleted, entry: Entry) -> bool:
    """Whether an event is what this change leads to: in another copy of the file its number may be another change."""
    if isinstance(event, ArtifactDeleted):
        return entry.body is None
    return entry.body is not None and event.content_hash == hashlib.sha256(entry.body).digest()


def _version_in(answer: Answer, entry: Entry) -> Version | None:
    for event in reversed(answer.events):  # what had expired ends first
        if isinstance(event, WriteCommitted | ArtifactDeleted) and event.artifact == entry.artifact:
            return event.version
    return None
