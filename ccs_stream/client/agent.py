"""An agent: a name under which artifacts are read and written, in this session.

`Workspace.agent(name)` returns one.

Guarantees: every method has a sync and an async form (prefix `a`), both of one implementation. A write carries the
version that this flow last read as its base. Does not: authenticate. A name is a claim; what it is worth is decided by
who may write to the log.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.freshness import Freshness, delivery_freshness
from ccs_stream.client.cache.read_set import ModelContext, ReadSet
from ccs_stream.client.history import reading_of
from ccs_stream.client.operations.changes import Condition, Expected, WriteBatch
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.reservation import Reservation
from ccs_stream.client.operations.steps import Steps, run, run_async
from ccs_stream.client.recovery import recover
from ccs_stream.client.results import Change, Reading, Written
from ccs_stream.client.values import encode
from ccs_stream.log.port import Position
from ccs_stream.protocol.ids import Scope, Version
from ccs_stream.protocol.limits import as_scope, check_wait_s, check_whole_number, seconds_to_us

RESERVATION_LIMIT_S: Final = 30.0
"""Default time limit of a reservation: longer than a read-modify-write around one model call usually takes."""


class AnyVersion:
    """The type of `ANY_VERSION`."""

    def __repr__(self) -> str:
        return "ANY_VERSION"


ANY_VERSION: Final = AnyVersion()
"""Write or delete over whatever version there is."""


def expected_version(expected: int | AnyVersion | None) -> Expected:
    """The condition of a change: a version, None for nothing, or `ANY_VERSION`. Raises `UsageError`."""
    if isinstance(expected, AnyVersion):
        return Condition.NONE
    return None if expected is None else Version(check_whole_number(expected, "expected"))


class Agent:
    """One agent of a workspace; usable from every thread and event loop of the process."""

    def __init__(self, engine: Engine, name: str, context: ModelContext | None = None) -> None:
        self._engine = engine
        self._context = context
        self.name = name

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"

    # Reading.

    def read(
        self,
        key: str,
        *,
        scope: Scope = (),
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> Reading | None:
        """The current version of an artifact; None when there is nothing.

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            reviewer = workspace.agent("reviewer")
            written = reviewer.write("plan", {"step": 1}, scope=("team",))
            reading = reviewer.read("plan", scope=("team",), at_least=written.position)
            print(reading.value, reading.version)  # {'step': 1} 1
        ```

        Args:
            key: The key of the artifact.
            scope: Its scope, a tuple of texts.
            freshness: What must be folded before the answer: `local`, `own_writes` or `latest`; by default what
                `connect` was told.
            at_least: A position that must be folded before the answer, such as that of a write in another process.

        Raises:
            LogDiverged: When the log ends before `at_least`.
            ContentMissing: For a redacted value.
            LogError: When the log cannot be read, and its kinds.

        """
        return run(self._engine.coordinator, self._read(key, scope, freshness, at_least, self._read_set()))

    def aread(
        self,
        key: str,
        *,
        scope: Scope = (),
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> Coroutine[Any, Any, Reading | None]:
        """As `read`."""
        return run_async(self._engine.coordinator, self._read(key, scope, freshness, at_least, self._read_set()))

    def _read(
        self,
        key: str,
        scope: Scope,
        freshness: Freshness | str | None,
        at_least: Position | str | None,
        read_set: ReadSet,
    ) -> Steps[Reading | None]:
        engine = self._engine
        tick = engine.begin_call()
        artifact = engine.session.address(as_scope(scope), key)
        yield from engine.reader.catch_up(None if freshness is None else Freshness.parse(freshness), at_least)
        call = ReadCall(self.name, read_set, freshness=delivery_freshness(freshness, at_least), tick=tick)
        found = yield from engine.reader.read_steps(call, artifact)
        if found is None:
            return None
        return reading_of(found.state, found.content, found.position, stale=found.stale)

    # Writing.

    def write(
        self, key: str, value: object, *, scope: Scope = (), ttl_s: float | None = None, reason: str | None = None
    ) -> Written:
        """Write over whatever version there is: the last writer wins.

        What this flow had read is recorded as the base, so that a lost update shows.

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            written = workspace.agent("planner").write("plan", {"step": 1}, reason="first draft")
            print(written.version, written.overwrote_unseen)  # 1 False
        ```

        Args:
            key: The key of the artifact.
            value: Bytes, or anything that JSON can hold.
            scope: The scope of the artifact, a tuple of texts.
            ttl_s: Seconds after which the artifact expires; None for never.
            reason: Why, in the author's words; it goes on record.

        Raises:
            UsageError: For a value that is neither JSON nor bytes, with the path to the offending part.
            Reserved: While another agent holds a reservation of the artifact.
            Reclaimed: When a grant or reservation of this agent was taken back; read again first.
            TooLarge: For a value larger than the workspace allows.
            OutcomeUnknown: When the log did not answer in time; the write may still happen.

        """
        return self._commit(*self._write_batch(self._read_set(), key, value, scope, Condition.NONE, ttl_s, reason))

    def awrite(
        self, key: str, value: object, *, scope: Scope = (), ttl_s: float | None = None, reason: str | None = None
    ) -> Coroutine[Any, Any, Written]:
        """As `write`."""
        read_set = self._read_set()
        return self._acommit(lambda: self._write_batch(read_set, key, value, scope, Condition.NONE, ttl_s, reason))

    def compare_and_set(
        self,
        key: str,
        value: object,
        *,
        expected: int | None,
        scope: Scope = (),
        ttl_s: float | None = None,
        reason: str | None = None,
    ) -> Written:
        """Write only if the current version is `expected` (None: only if nothing exists).

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            planner, reviewer = workspace.agent("planner"), workspace.agent("reviewer")
            seen = planner.write("plan", ["draft"]).version
            reviewer.write("plan", ["draft", "reviewed"])
            try:
                planner.compare_and_set("plan", ["draft", "more"], expected=seen)
            except ccs_stream.VersionConflict as conflict:
                merged = [*conflict.current_value, "more"]
                planner.compare_and_set("plan", merged, expected=conflict.current_version)
        ```

        Raises:
            VersionConflict: With `current_version` and `current_value`, when another version is current.
            CcsError: Whatever `write` raises.

        """
        condition = expected_version(expected)
        return self._commit(*self._write_batch(self._read_set(), key, value, scope, condition, ttl_s, reason))

    def acompare_and_set(
        self,
        key: str,
        value: object,
        *,
        expected: int | None,
        scope: Scope = (),
        ttl_s: float | None = None,
        reason: str | None = None,
    ) -> Coroutine[Any, Any, Written]:
        """As `compare_and_set`."""
        read_set, condition = self._read_set(), expected_version(expected)
        return self._acommit(lambda: self._write_batch(read_set, key, value, scope, condition, ttl_s, reason))

    def delete(
        self,
        key: str,
        *,
        scope: Scope = (),
        expected: int | AnyVersion | None = ANY_VERSION,
        reason: str | None = None,
    ) -> Written:
        """Delete; with `expected`, only that version. Deleting what does not exist changes nothing."""
        return self._commit(*self._delete_batch(self._read_set(), key, scope, expected, reason))

    def adelete(
        self,
        key: str,
        *,
        scope: Scope = (),
        expected: int | AnyVersion | None = ANY_VERSION,
        reason: str | None = None,
    ) -> Coroutine[Any, Any, Written]:
        """As `delete`."""
        read_set = self._read_set()
        return self._acommit(lambda: self._delete_batch(read_set, key, scope, expected, reason))

    def _write_batch(
        self,
        read_set: ReadSet,
        key: str,
        value: object,
        scope: Scope,
        expected: Expected,
        ttl_s: float | None,
        reason: str | None,
    ) -> tuple[WriteBatch, str, int]:
        tick = self._engine.begin_call()
        ttl_us = None if ttl_s is None else seconds_to_us(ttl_s, "ttl_s")
        content_type, body = encode(value)
        batch = self._engine.batch(self.name, read_set)
        batch.write(as_scope(scope), key, content_type, body, expected=expected, ttl_us=ttl_us, reason=reason)
        return batch, f"write of {key!r}", tick

    def _delete_batch(
        self, read_set: ReadSet, key: str, scope: Scope, expected: int | AnyVersion | None, reason: str | None
    ) -> tuple[WriteBatch, str, int]:
        tick = self._engine.begin_call()
        batch = self._engine.batch(self.name, read_set)
        batch.delete(as_scope(scope), key, expected=expected_version(expected), reason=reason)
        return batch, f"delete of {key!r}", tick

    def _commit(self, batch: WriteBatch, what: str, tick: int) -> Written:
        return self._engine.writer.commit(batch, what, tick)[0]

    async def _acommit(self, prepare: Callable[[], tuple[WriteBatch, str, int]]) -> Written:
        return (await self._engine.writer.commit_async(*prepare()))[0]

    # Reserving and looking back.

    def recover(self) -> None:
        """Have every copy that this agent holds fetched again before it is served. Raises `UsageError`."""
        recover(self._engine, self.name)

    def acquire(
        self, key: str, *, scope: Scope = (), limit_s: float = RESERVATION_LIMIT_S, wait_s: float = 0.0
    ) -> Reservation:
        """The exclusive right to write an artifact for `limit_s` seconds, entered with `with` or `async with`.

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            planner = workspace.agent("planner")
            with planner.acquire("plan", limit_s=60, wait_s=5):
                reading = planner.read("plan")
                planner.write("plan", {"step": 1 if reading is None else reading.value["step"] + 1})
        ```

        Entering waits up to `wait_s` seconds and raises `Reserved` when another agent holds it for longer. Leaving
        raises `Reclaimed` when the limit passed inside the block; writes after the limit were refused.
        """
        wait_s = check_wait_s(wait_s, "wait_s")
        duration = seconds_to_us(limit_s, "limit_s")
        return self._engine.reserve(self.name, as_scope(scope), key, duration=duration, wait_s=wait_s)

    def history(self, key: str, *, scope: Scope = (), limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions there were, newest first, with writers, bases and values."""
        return self._engine.history(as_scope(scope), key, limit=limit, values=values)

    def ahistory(
        self, key: str, *, scope: Scope = (), limit: int | None = None, values: bool = True
    ) -> Coroutine[Any, Any, list[Change]]:
        """As `history`."""
        return self._engine.history_async(as_scope(scope), key, limit=limit, values=values)

    def _read_set(self) -> ReadSet:
        read_set = self._engine.read_sets.current(self.name)
        read_set.context = self._context
        return read_set
