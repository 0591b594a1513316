"""The exclusive right to write an artifact for a limited time, as a context manager.

Guarantees: inside the block, writes of this agent in this execution scope carry the fence; when the time is over
before the block ends, they are refused (`Reclaimed`), whoever else wrote or not. Works with `with` and `async with`.
Does not: extend itself; take a longer limit, or acquire again.
"""

import time
from typing import Self

from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.commit import UNNUMBERED
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import Steps, WaitUntil, run, run_async
from ccs_stream.protocol.commands import Acquire, Release
from ccs_stream.protocol.errors import Reclaimed, Reserved, UsageError
from ccs_stream.protocol.events import ReservationAcquired
from ccs_stream.protocol.ids import Fence, Micros, Scope


class Reservation:
    """Made by `Agent.acquire`; entered, it waits for its turn."""

    def __init__(
        self,
        engine: Engine,
        agent: str,
        scope: Scope,
        key: str,
        *,
        duration: Micros,
        wait_s: float,
        holder: ReadSet | None = None,
    ) -> None:
        self._engine = engine
        self._agent = agent
        self._scope = scope
        self._key = key
        self._duration = duration
        self._wait_s = wait_s
        self._holder = holder
        self.fence: Fence | None = None
        """The number that writes under this reservation carry."""

    def __repr__(self) -> str:
        return f"Reservation({self._agent!r}, {self._scope!r}, {self._key!r}, fence={self.fence})"

    def __enter__(self) -> Self:
        self.fence = run(self._engine.coordinator, self._acquire())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            run(self._engine.coordinator, self._release())
        except Reclaimed:
            if kind is None:
                raise

    async def __aenter__(self) -> Self:
        self.fence = await run_async(self._engine.coordinator, self._acquire())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await run_async(self._engine.coordinator, self._release())
        except Reclaimed:
            if kind is None:
                raise

    def _acquire(self) -> Steps[Fence]:
        if self.fence is not None:
            raise UsageError("a reservation is entered once: call acquire again for another one")
        if self._holder is None:
            self._holder = self._engine.scopes.current(self._agent)
        return acquire(
            self._engine,
            self._agent,
            self._scope,
            self._key,
            duration=self._duration,
            wait_s=self._wait_s,
            holder=self._holder,
        )

    def _release(self) -> Steps[None]:
        if self.fence is None or self._holder is None:
            raise UsageError("the reservation was never entered")
        return release(self._engine, self._agent, self._scope, self._key, self.fence, self._holder)


def acquire(
    engine: Engine, agent: str, scope: Scope, key: str, *, duration: Micros, wait_s: float, holder: ReadSet
) -> Steps[Fence]:
    """A reservation, waiting for another's release for at most `wait_s`. Raises `Reserved`."""
    artifact = engine.address(scope, key)
    deadline = time.monotonic() + wait_s

    def released() -> bool:
        return not engine.state.artifacts[artifact].reserved(engine.coordinator.now())

    while True:
        answer = yield from engine.ask(
            agent,
            lambda session: Acquire(
                session_id=session,
                number=UNNUMBERED,
                agent=agent,
                artifact=artifact,
                scope=scope,
                key=key,
                duration_us=duration,
            ),
        )
        refusal = answer.refusal
        if refusal is None:
            fence = next(event.fence for event in answer.events if type(event) is ReservationAcquired)
            holder.fences[artifact] = fence
            return fence
        error = engine.error_of(refusal, f"acquire of {key!r}")
        left = deadline - time.monotonic()
        if not isinstance(error, Reserved) or left <= 0:
            raise error
        yield WaitUntil(released, left)


def release(engine: Engine, agent: str, scope: Scope, key: str, fence: Fence, holder: ReadSet) -> Steps[None]:
    """End one's reservation. Raises `Reclaimed` when it was lost before."""
    artifact = engine.address(scope, key)
    holder.fences.pop(artifact, None)
    answer = yield from engine.ask(
        agent,
        lambda session: Release(session_id=session, number=UNNUMBERED, agent=agent, artifact=artifact, fence=fence),
    )
    if answer.refusal is not None:
        raise engine.error_of(answer.refusal, f"release of {key!r}")
