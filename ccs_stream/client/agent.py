"""An agent: a name under which artifacts are read and written, in this session.

Guarantees: every method exists in a sync and an async form (prefix `a`), both of one implementation; a write carries
the version this execution scope last read as its base. Does not: authenticate. A name is a claim; what it is worth is
decided by who may write to the log.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ccs_stream.client.cache.freshness import Freshness, delivery_freshness
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.history import history, reading_of
from ccs_stream.client.observers.delivery_log import Context
from ccs_stream.client.operations.commit import PendingContent
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.reservation import Reservation
from ccs_stream.client.operations.steps import Steps, in_background, run, run_async
from ccs_stream.client.recovery import recover
from ccs_stream.client.results import Change, Reading, Written
from ccs_stream.client.values import encode
from ccs_stream.log.port import Position
from ccs_stream.protocol.commands import Erase, Write, WriteMode
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros, Scope, Version

RESERVATION_LIMIT_S: Final = 30.0
"""Default time limit of a reservation: longer than a read-modify-write around one model call usually takes."""


class AnyVersion:
    """The type of `ANY_VERSION`."""

    def __repr__(self) -> str:
        return "ANY_VERSION"


ANY_VERSION: Final = AnyVersion()
"""Delete whatever version there is."""


def seconds_to_us(seconds: float, what: str) -> Micros:
    """A duration in microseconds. Raises `UsageError` unless it is positive."""
    if not seconds > 0:
        raise UsageError(f"{what} must be more than 0 seconds, got {seconds!r}")
    return Micros(round(seconds * 1_000_000))


class Agent:
    """Made by `Workspace.agent(name)`; usable from every thread and event loop of the process."""

    def __init__(self, engine: Engine, name: str, context: Context | None = None) -> None:
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
        """The current version; None when there is nothing.

        `freshness` is `local`, `own_writes` or `latest`; `at_least` a position that must have been folded. Raises
        `LogDiverged` when the log ends before that position, `ContentMissing` for a redacted body.
        """
        return run(self._engine.coordinator, self._read(key, scope, freshness, at_least, self._here()))

    def aread(
        self,
        key: str,
        *,
        scope: Scope = (),
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> Coroutine[Any, Any, Reading | None]:
        """As `read`."""
        return run_async(self._engine.coordinator, self._read(key, scope, freshness, at_least, self._here()))

    def _read(
        self,
        key: str,
        scope: Scope,
        freshness: Freshness | str | None,
        at_least: Position | str | None,
        here: ReadSet,
    ) -> Steps[Reading | None]:
        engine = self._engine
        engine.copies.tick()
        artifact = engine.address(tuple(scope), key)
        yield from engine.fresh(None if freshness is None else Freshness.parse(freshness), at_least)
        asked = delivery_freshness(freshness, at_least)
        found = yield from engine.read(self.name, artifact, here, freshness=asked)
        if found is None:
            return None
        return reading_of(found.state, found.body.body, found.position, stale=found.stale)

    # Writing.

    def write(
        self, key: str, value: object, *, scope: Scope = (), ttl_s: float | None = None, reason: str | None = None
    ) -> Written:
        """Write whatever version there is (last writer wins); the base is recorded, so a lost update shows.

        Raises `UsageError` for a value that is not JSON or bytes, `Reserved`, `Reclaimed`, `Fenced`, `TooLarge`.
        """
        here = self._here()
        return self._commit(here, functools.partial(self._change, key, value, scope, here, None, ttl_s, reason))

    def awrite(
        self, key: str, value: object, *, scope: Scope = (), ttl_s: float | None = None, reason: str | None = None
    ) -> Coroutine[Any, Any, Written]:
        """As `write`."""
        here = self._here()
        return self._acommit(here, functools.partial(self._change, key, value, scope, here, None, ttl_s, reason))

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

        Raises `VersionConflict`, with `current_version` and `current_value`, and what `write` raises.
        """
        condition = (None if expected is None else Version(expected),)
        here = self._here()
        return self._commit(here, functools.partial(self._change, key, value, scope, here, condition, ttl_s, reason))

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
        condition = (None if expected is None else Version(expected),)
        here = self._here()
        return self._acommit(here, functools.partial(self._change, key, value, scope, here, condition, ttl_s, reason))

    def _commit(self, here: ReadSet, prepare: Callable[[], tuple[Write, PendingContent]]) -> Written:
        self._engine.copies.tick()
        change, outgoing = prepare()
        what = f"write of {change.key!r}"
        written = self._engine.commit_now(self.name, change, here, outgoing, what)
        if written is None:
            steps = self._engine.commit(self.name, (change,), here, what, (outgoing,))
            written = run(self._engine.coordinator, steps)[0]
        return written

    async def _acommit(self, here: ReadSet, prepare: Callable[[], tuple[Write, PendingContent]]) -> Written:
        self._engine.copies.tick()
        change, outgoing = prepare()
        what = f"write of {change.key!r}"
        written = await self._engine.commit_soon(self.name, change, here, outgoing, what)
        if written is None:
            steps = self._engine.commit(self.name, (change,), here, what, (outgoing,))
            written = (await run_async(self._engine.coordinator, steps))[0]
        return written

    def _change(
        self,
        key: str,
        value: object,
        scope: Scope,
        here: ReadSet,
        expected: tuple[Version | None] | None,
        ttl_s: float | None,
        reason: str | None,
    ) -> tuple[Write, PendingContent]:
        engine = self._engine
        artifact = engine.address(tuple(scope), key)
        ttl_us = None if ttl_s is None else seconds_to_us(ttl_s, "ttl_s")
        content_type, body = encode(value)
        inline_left = engine.state.settings.maximum_decision_bytes // 2
        outgoing = engine.prepare(content_type, body, inline_left=inline_left, what=f"write of {key!r}")
        change = Write(
            artifact=artifact,
            scope=tuple(scope),
            key=key,
            content=outgoing.content,
            mode=WriteMode.LAST_WRITER_WINS if expected is None else WriteMode.COMPARE_AND_SET,
            base_version=here.base(artifact) if expected is None else expected[0],
            fence=here.fences.get(artifact),
            ttl_us=ttl_us,
            reason=reason,
        )
        return change, outgoing

    def delete(
        self,
        key: str,
        *,
        scope: Scope = (),
        expected: int | AnyVersion | None = ANY_VERSION,
        reason: str | None = None,
    ) -> Written:
        """Delete; with `expected`, only that version. Deleting what does not exist changes nothing."""
        return run(self._engine.coordinator, self._delete(key, scope, self._here(), expected, reason))

    def adelete(
        self,
        key: str,
        *,
        scope: Scope = (),
        expected: int | AnyVersion | None = ANY_VERSION,
        reason: str | None = None,
    ) -> Coroutine[Any, Any, Written]:
        """As `delete`."""
        return run_async(self._engine.coordinator, self._delete(key, scope, self._here(), expected, reason))

    def _delete(
        self, key: str, scope: Scope, here: ReadSet, expected: int | AnyVersion | None, reason: str | None
    ) -> Steps[Written]:
        artifact = self._engine.address(tuple(scope), key)
        conditional = not isinstance(expected, AnyVersion)
        base = here.base(artifact)
        if not isinstance(expected, AnyVersion):
            base = None if expected is None else Version(expected)
        change = Erase(
            artifact=artifact,
            mode=WriteMode.COMPARE_AND_SET if conditional else WriteMode.LAST_WRITER_WINS,
            base_version=base,
            fence=here.fences.get(artifact),
            reason=reason,
        )
        written = yield from self._engine.commit(self.name, (change,), here, f"delete of {key!r}")
        return written[0]

    # Reserving and looking back.

    def recover(self) -> None:
        """Have every copy that this agent holds fetched again before it is served. Raises `UsageError`."""
        recover(self._engine, self.name)

    def acquire(
        self, key: str, *, scope: Scope = (), limit_s: float = RESERVATION_LIMIT_S, wait_s: float = 0.0
    ) -> Reservation:
        """A reservation for `limit_s`, to be entered with `with` or `async with`; entering waits up to `wait_s`.

        Entering raises `Reserved` when somebody else holds it for longer; leaving raises `Reclaimed` when the limit
        passed inside the block.
        """
        if wait_s < 0:
            raise UsageError(f"wait_s must not be negative, got {wait_s!r}")
        duration = seconds_to_us(limit_s, "limit_s")
        return Reservation(self._engine, self.name, tuple(scope), key, duration=duration, wait_s=wait_s)

    def history(self, key: str, *, scope: Scope = (), limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions there were, newest first, with writers, bases and values."""
        self._engine.coordinator.catch_up()
        return self._history(key, scope, limit, values=values)

    async def ahistory(
        self, key: str, *, scope: Scope = (), limit: int | None = None, values: bool = True
    ) -> list[Change]:
        """As `history`."""
        return await in_background(self._engine.coordinator, lambda: self._history(key, scope, limit, values=values))

    def _history(self, key: str, scope: Scope, limit: int | None, *, values: bool) -> list[Change]:
        artifact = self._engine.address(tuple(scope), key)
        return history(self._engine.coordinator, artifact, limit=limit, values=values)

    def _here(self) -> ReadSet:
        here = self._engine.scopes.current(self.name)
        here.context = self._context
        return here
