"""The past of a workspace: the history of an artifact, changes as they happen, the state at a position.

`Agent.history`, `Workspace.watch` and `Workspace.as_of` return what is here.

Guarantees: read from the log alone, so that it is the same on every host and at any later time. Half a commit of
several changes is never seen. Does not: take copies; reading history makes no agent a holder.
"""

import collections
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

from ccs_stream.client.cache.content_cache import CachedContent, cached_content
from ccs_stream.client.results import Change, Reading, instant
from ccs_stream.client.values import decode
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.bodies import fetch_body, fetch_current_body
from ccs_stream.log.fold import fold_log
from ccs_stream.log.history import version_at
from ccs_stream.log.port import LogStore, Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.errors import CcsError, Closed, ContentMissing, LogDiverged, UsageError
from ccs_stream.protocol.events import ArtifactDeleted, DeleteReason, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope, SequenceNumber, artifact_id
from ccs_stream.protocol.limits import as_scope, check_scope, check_text
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.statehash import state_hash

POLL_S: Final = 0.5
"""Longest single wait for the next change, so that a closed watch ends."""
_PAGE_RECORDS: Final = 1_000
"""Records that a watch reads at once."""
_READY_MAX: Final = 64
_READY_BYTES: Final = 1_000_000
"""Changes that are made ready at once, with their values: so many, and no more after so many bytes."""


@dataclasses.dataclass(slots=True)
class _VersionMade:
    """The event that made a version, and its place in the log."""

    event: WriteCommitted | ArtifactDeleted
    sequence: SequenceNumber
    recorded_at: Micros
    position: Position


def _change(made: _VersionMade, state: Directory, value: Any, missing: str | None) -> Change:
    event = made.event
    artifact = state.artifacts[event.artifact]
    if type(event) is WriteCommitted:
        kind, content_hash = "written", event.content_hash.hex()
        reason = None if event.options is None else event.options.reason
    else:
        expired = event.reason is DeleteReason.EXPIRED  # type: ignore[union-attr]
        kind, content_hash, reason = ("expired" if expired else "deleted"), "", event.note  # type: ignore[union-attr]
    return Change(
        kind=kind,
        scope=artifact.scope,
        key=artifact.key,
        version=event.version,
        base_version=event.base_version,
        agent=state.agents.get(event.participant, ""),
        at=instant(made.recorded_at),
        reason=reason,
        content_hash=content_hash,
        position=made.position,
        value=value,
        missing=missing,
    )


def _value(store: LogStore, shard: str, made: _VersionMade) -> tuple[Any, str | None]:
    """The value that an event wrote, and why there is none although one was written."""
    event = made.event
    if type(event) is not WriteCommitted:
        return None, None
    try:
        body = fetch_body(store, shard, made.sequence, event, f"version {event.version}")
        return decode(event.content_type, body), None
    except ContentMissing as error:
        return None, str(error)
    except ValueError as error:
        return None, f"the body of version {event.version} is not {event.content_type}: {error}"


def history(
    coordinator: Coordinator, artifact: ArtifactId, *, limit: int | None = None, values: bool = True
) -> list[Change]:
    """The versions of an artifact, newest first, following each event's link to the one it replaced.

    A body that is no longer kept leaves its change without a value, and `missing` says why.
    """
    store, shard, state = coordinator.store, coordinator.workspace, coordinator.state
    current = state.artifacts.get(artifact)
    # One attribute of a version that is in the log: no lock is needed, and so commits go on while this looks back.
    sequence = SequenceNumber(0) if current is None else current.sequence
    found: list[Change] = []
    while sequence and (limit is None or len(found) < limit):
        version = version_at(store, shard, sequence)
        decision = version.decision
        made = _VersionMade(version.event, sequence, decision.record.recorded_at, decision.position(store, shard))
        value, missing = _value(store, shard, made) if values else (None, None)
        found.append(_change(made, state, value, missing))
        sequence = made.event.previous_sequence
    return found


class Watch:
    """Changes as they are admitted: iterate with `for` or `async for`; resume with the `position` of the last one.

    Iteration waits for the next change; `poll()` returns what there is. Close it, or leave its `with` block. An error
    (a log that does not answer) passes nothing over: the next call goes on with the change that could not be told. An
    iteration ends when the watch or its workspace is closed.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        scope: Scope,
        after: Position | None,
        values: bool = True,
        owner: object = None,
    ) -> None:
        self._owner = owner  # keeps the workspace open
        self._coordinator = coordinator
        self._scope = scope
        self._values = values
        self._found: collections.deque[_VersionMade] = collections.deque()
        """Changes of the pages that were read, without their values."""
        self._ready: collections.deque[Change] = collections.deque()
        """The next changes, before those of `_found`."""
        self._ready_to = SequenceNumber(0)
        """Sequence of the last change that has become ready."""
        self._closed = False
        self._lock = threading.Lock()
        """Held while the log is read, so that several threads may take changes."""
        self._reader = coordinator.reader_here()
        if after is not None:
            self._reader = ShardReader(coordinator.store, coordinator.workspace)
            self._reader.seek(after)

    @property
    def position(self) -> Position:
        """Everything up to here has been returned. A new watch from here misses nothing and repeats nothing."""
        if self._ready or self._found:
            raise UsageError("changes are waiting: take them first, or resume from the last one's position")
        return self._reader.position(self._coordinator.workspace)

    def poll(self, limit: int | None = None) -> list[Change]:
        """The changes that there are, at most `limit`, without waiting.

        Raises `Closed`, and the `LogError`s of the log where not even the first of them can be told.
        """
        if self._coordinator.closed:
            raise Closed.of_workspace(self._coordinator.workspace)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise UsageError(f"limit is a whole number, 1 or more, or None, got {limit!r}")
        told: list[Change] = []
        with self._lock:
            end: int | None = None
            while limit is None or len(told) < limit:
                try:
                    end = self._make_ready(end)
                except CcsError:
                    if not told:
                        raise
                    break  # the next call goes on here, or meets the error again
                if not self._ready:
                    break
                while (limit is None or len(told) < limit) and (change := self._next_here()) is not None:
                    told.append(change)
        return told

    def close(self) -> None:
        """Stop. An iteration that waits ends."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        while not self._ended():
            try:
                found = self._next_here() or self._next()
                if found is not None:
                    return found
                self._coordinator.wait(self._anything_new, POLL_S)
            except Closed:  # meanwhile, or just now
                break
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._ended():
            try:
                found = self._next_here() or await self._coordinator.off_loop(self._next, long=True)
                if found is not None:
                    return found
                await self._coordinator.wait_async(self._anything_new, POLL_S)
            except Closed:  # meanwhile, or just now
                break
        raise StopAsyncIteration

    def _ended(self) -> bool:
        return self._closed or self._coordinator.closed

    def _anything_new(self) -> bool:
        return self._ended() or self._coordinator.folded_offset > self._reader.offset

    def _next_here(self) -> Change | None:
        """The next change, if it waits here already."""
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def _next(self) -> Change | None:
        """The next change; None where there is none yet."""
        with self._lock:
            if not self._ready:
                self._make_ready(None)
            return self._next_here()

    def _make_ready(self, end: int | None) -> int:
        """Make the next changes ready; read no further than to `end`, or to where the log ends now. Returns that.

        A change leaves `_found` after it has become ready, so that whatever raises here passes nothing over.
        """
        coordinator, found, ready = self._coordinator, self._found, self._ready
        if end is None:
            if coordinator.behind():
                coordinator.catch_up()
            # Only to where the state is folded: it knows the address of every artifact up to there.
            end = coordinator.folded_offset
        size = 0
        while len(ready) < _READY_MAX and size < _READY_BYTES:
            while found and found[0].sequence <= self._ready_to:
                found.popleft()
            if not found:
                if self._reader.offset >= end:
                    break
                self._read_page(end)
                continue
            made = found[0]
            try:
                change = self._change(made)
            except CcsError:
                if ready:
                    break  # what is ready is told first
                raise
            ready.append(change)
            self._ready_to = made.sequence
            size += made.event.content_size if type(made.event) is WriteCommitted else 0
        return end

    def _change(self, made: _VersionMade) -> Change:
        coordinator = self._coordinator
        value, missing = _value(coordinator.store, self._reader.shard, made) if self._values else (None, None)
        return _change(made, coordinator.state, value, missing)

    def _read_page(self, end: int) -> None:
        """Read on in the log, one page or to `end`; the changes in it are added to `_found`.

        The reader moves when the page is kept. An interrupt costs that the page is read again.
        """
        reader = self._reader.fork()
        found: list[_VersionMade] = []
        try:
            self._collect(reader, min(end, reader.offset + _PAGE_RECORDS), found)
            if reader.offset == self._reader.offset:  # offsets of the page that hold no record
                self._collect(reader, end, found)
                reader.offset = max(reader.offset, end)
        except CcsError:
            self._found.extend(found)
            self._reader = reader
            raise
        self._found.extend(found)
        self._reader = reader

    def _collect(self, reader: ShardReader, until: int, found: list[_VersionMade]) -> None:
        artifacts, log_id, width = self._coordinator.state.artifacts, self._coordinator.store.log_id, len(self._scope)
        for entry in reader.read(until=until, bodies=False):
            record = entry.record
            if type(record) is not DecisionRecord:
                continue
            last = SequenceNumber(record.first_sequence + len(record.events) - 1)
            for number, event in enumerate(entry.events):
                if type(event) is not WriteCommitted and type(event) is not ArtifactDeleted:
                    continue
                if artifacts[event.artifact].scope[:width] != self._scope:
                    continue
                position = Position(log_id, reader.shard, entry.offset, last, entry.hash)
                sequence = SequenceNumber(record.first_sequence + number)
                found.append(_VersionMade(event, sequence, record.recorded_at, position))


class PastWorkspace:
    """A workspace as it was at a position: read-only, folded from the log."""

    def __init__(self, store: LogStore, workspace: str, at: Position | int, *, owner: object = None) -> None:
        self._owner = owner  # keeps the workspace open
        self._store = store
        self._workspace = workspace
        self.state = Directory()
        reader = ShardReader(store, workspace)
        until = self._offset_of(at)
        collections.deque(fold_log(reader, self.state, until=until), maxlen=0)
        self.position = reader.position(workspace)
        """The end of the decision that holds the position: half a commit of several changes is never seen."""
        if isinstance(at, Position) and self.position.hash != at.hash:
            raise LogDiverged(
                f"{store.display_url} does not hold the position at sequence {at.sequence}: it is of another log, or "
                "this is an altered copy"
            )

    def _offset_of(self, at: Position | int) -> int:
        sequence = at.sequence if isinstance(at, Position) else at
        stored = self._store.find(self._workspace, sequence)
        if stored is None:
            raise UsageError(f"{self._store.display_url} holds no sequence {sequence} of workspace {self._workspace!r}")
        return stored.offset

    def read(self, key: str, *, scope: Scope = ()) -> Reading | None:
        """The version that was current then; None when there was nothing. Raises `ContentMissing`."""
        artifact = self.state.artifacts.get(
            artifact_id(self._workspace, check_scope(as_scope(scope)), check_text(key, "a key"))
        )
        if artifact is None or not artifact.readable(self.state.recorded_at):
            return None
        body = fetch_current_body(self._store, self._workspace, artifact)
        return reading_of(artifact, cached_content(artifact, body, artifact.version), self.position)

    def artifacts(self, *, scope: Scope = ()) -> list[tuple[Scope, str]]:
        """Addresses of what existed then, under a scope prefix, sorted."""
        scope = check_scope(as_scope(scope))
        at, width = self.state.recorded_at, len(scope)
        found = self.state.artifacts.values()
        return sorted((each.scope, each.key) for each in found if each.readable(at) and each.scope[:width] == scope)

    def state_hash(self) -> str:
        """Hash of the whole state then."""
        return state_hash(self.state)


def reading_of(artifact: ArtifactState, content: CachedContent, position: Position, *, stale: bool = False) -> Reading:
    """A reading of the artifact's current version, which is that of the content."""
    return Reading(
        scope=artifact.scope,
        key=artifact.key,
        value=decode(artifact.content_type, content.body),
        version=artifact.version,
        agent=artifact.writer_agent,
        content_type=artifact.content_type,
        content_hash=artifact.content_hash.hex(),
        created_at=content.created_at,
        updated_at=content.updated_at,
        expires_at=None if artifact.expires_at is None else instant(artifact.expires_at),
        position=position,
        stale=stale,
    )
