"""Reservations: the exclusive right to write an artifact for a limited time, as a context manager.

`Agent.acquire` and the `acquire` of an adapter return a `Reservation`.

Guarantees: inside the block, writes of this agent in this flow carry the fence. When the time is over before the block
ends, they are refused (`Reclaimed`), whether somebody else wrote or not. Works with `with` and `async with`. Does not:
extend itself; take a longer limit, or acquire again.
"""

import contextlib
import functools
from typing import Final, Self

from ccs_stream.client.cache.read_set import ReadSet, ReadSets
from ccs_stream.client.operations.session import UNNUMBERED, CommandSession
from ccs_stream.client.operations.steps import Steps, WaitUntil, run, run_async
from ccs_stream.protocol.commands import Acquire, Release
from ccs_stream.protocol.errors import CcsError, Reclaimed, Reserved, UsageError
from ccs_stream.protocol.events import ReservationAcquired
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Fence, Micros, Scope
from ccs_stream.protocol.settings import SECOND_US

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
"""Between two attempts that were refused. The first one after a release comes at once; then the pauses double."""


class Reservation:
    """One reservation; entered, it waits for its turn.

    `fence` is None until it is entered, then the number that the writes inside the block carry.
    """

    def __init__(  # noqa: PLR0913  # made by the engine
        self,
        session: CommandSession,
        read_sets: ReadSets,
        agent: str,
        artifact: ArtifactId,
        scope: Scope,
        key: str,
        *,
        duration: Micros,
        wait_s: float,
        read_set: ReadSet | None = None,
        owner: object = None,
    ) -> None:
        self.fence: Fence | None = None
        self._owner = owner  # keeps the workspace open
        self._session = session
        self._coordinator = session.coordinator
        self._read_sets = read_sets
        self._agent = agent
        self._artifact = artifact
        self._scope = scope
        self._key = key
        self._duration = duration
        self._wait_s = wait_s
        self._read_set = read_set

    def __repr__(self) -> str:
        return f"Reservation({self._agent!r}, {self._scope!r}, {self._key!r}, fence={self.fence})"

    def __enter__(self) -> Self:
        flow = self._flow()
        self.fence = flow.fences[self._artifact] = run(self._coordinator, self._acquire())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            run(self._coordinator, self._release())
        except Reclaimed:
            if kind is None:
                raise

    async def __aenter__(self) -> Self:
        flow = self._flow()
        fence = await run_async(self._coordinator, self._acquire(), undo=self._give_back)
        self.fence = flow.fences[self._artifact] = fence
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await run_async(self._coordinator, self._release())
        except Reclaimed:
            if kind is None:
                raise

    def _give_back(self, fence: Fence) -> None:
        """Release it in the background: it was acquired for a coroutine that was cancelled meanwhile."""
        self.fence = fence

        def release() -> None:
            with contextlib.suppress(CcsError):  # it ends with its session or its limit
                run(self._coordinator, self._release())

        self._coordinator.do_later(release)

    def _flow(self) -> ReadSet:
        if self.fence is not None:
            raise UsageError("a reservation is entered once: call acquire again for another one")
        if self._read_set is None:
            self._read_set = self._read_sets.current(self._agent)
        return self._read_set

    def _acquire(self) -> Steps[Fence]:
        """Acquire it, waiting for another's release for at most `wait_s`. Raises `Reserved`."""
        clock, attempt = self._coordinator.clock, 0
        deadline = clock.monotonic() + self._wait_s
        while True:
            answer = yield from self._session.submit(
                self._agent,
                lambda session: Acquire(
                    session_id=session,
                    number=UNNUMBERED,
                    agent=self._agent,
                    artifact=self._artifact,
                    scope=self._scope,
                    key=self._key,
                    duration_us=self._duration,
                ),
            )
            refusal = answer.refusal
            if refusal is None:
                return next(event.fence for event in answer.events if type(event) is ReservationAcquired)
            error = self._session.error_of(refusal, f"acquire of {self._key!r}")
            answered_at = clock.monotonic()
            left = deadline - answered_at
            if not isinstance(error, Reserved) or left <= 0:
                raise error
            # Each attempt that fails is on the log: after a release the first one comes at once, and then fewer.
            pause_s = min(FIRST_PAUSE_S * (2.0**attempt - 1), LONGEST_PAUSE_S)
            attempt += 1
            ends_at = answered_at + max(pause_s, self._remaining_s(answer.recorded_at))
            yield WaitUntil(functools.partial(self._may_be_free, answered_at + pause_s, ends_at), left)

    def _remaining_s(self, at: Micros) -> float:
        """How long the reservation that is in the way lasts from `at` on, by the time of the log."""
        return (self._coordinator.state.artifacts[self._artifact].reserved_until - at) / SECOND_US

    def _may_be_free(self, not_before: float, ends_at: float) -> bool:
        """True if the reservation in the way was released, or its time has passed by a clock that nobody sets."""
        now = self._coordinator.clock.monotonic()
        released = self._coordinator.state.artifacts[self._artifact].reserved_by == NOBODY
        return now >= ends_at or (released and now >= not_before)

    def _release(self) -> Steps[None]:
        """End it. Raises `Reclaimed` when it was lost before."""
        fence, read_set = self.fence, self._read_set
        if fence is None or read_set is None:
            raise UsageError("the reservation was never entered")
        read_set.fences.pop(self._artifact, None)
        answer = yield from self._session.submit(
            self._agent,
            lambda session: Release(
                session_id=session, number=UNNUMBERED, agent=self._agent, artifact=self._artifact, fence=fence
            ),
        )
        if answer.refusal is not None:
            raise self._session.error_of(answer.refusal, f"release of {self._key!r}")
