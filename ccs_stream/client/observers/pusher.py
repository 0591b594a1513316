"""Pushing: where a strategy says so, agents are given what others wrote without asking for it.

Guarantees: after a write, each agent of this session that held a copy (with `broadcast`: each that has joined) gets a
copy of the newest version, in a thread aside; whoever writes does not wait for that. A version that was replaced before
its turn is not pushed. Does not: push to agents of other processes; each process does that for its own.
"""

import logging
from collections.abc import Callable, Sequence

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.observers.decision_follower import DecisionFollower
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import run
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.events import Event, GrantsInvalidated, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Scope
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.protocol.strategies import Strategy

LOG = logging.getLogger(__name__)

Told = Callable[[str, Scope, str, CachedContent], object]
"""Agent, scope, key and body of each push."""


class Pusher:
    """One for a workspace some of whose artifacts have a strategy that pushes."""

    def __init__(self, engine: Engine) -> None:
        self.pushed = 0
        """Bodies pushed."""
        self.told: Told | None = None
        """Told of each push."""
        self._engine = engine
        self._due: dict[tuple[str, ArtifactId], None] = {}
        with engine.coordinator.lock:
            self._follower = DecisionFollower(engine.coordinator, self._look, after=self._push, name="pushing")

    @property
    def failed(self) -> int:
        """Errors met; a push that failed is not tried again: its agent fetches when it reads."""
        return self._follower.failed

    def settle(self, timeout_s: float) -> bool:
        """Wait until what is known to have been written is pushed; False when that takes longer."""
        return self._follower.forked or self._follower.settle(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """End, after what is under way."""
        return self._follower.forked or self._follower.close(timeout_s)

    def _look(self, decision: DecisionRecord, events: Sequence[Event]) -> None:
        del decision
        written: set[ArtifactId] = set()
        for event in events:
            if type(event) is WriteCommitted:
                written.add(event.artifact)
                self._to_everybody(event)
            elif type(event) is GrantsInvalidated and event.artifact in written:
                self._to_holders(event)

    def _to_everybody(self, event: WriteCommitted) -> None:
        if not self._strategy(event.artifact).pushes_to_everybody:
            return
        for agent, participant in list(self._engine.session.joined.items()):
            if participant != event.participant:
                self._due[agent, event.artifact] = None

    def _to_holders(self, event: GrantsInvalidated) -> None:
        if not self._strategy(event.artifact).broadcasts_content_on_commit:
            return
        lost = {event.owner, *event.sharers}
        for agent, participant in list(self._engine.session.joined.items()):
            if participant in lost:
                self._due[agent, event.artifact] = None

    def _strategy(self, artifact: ArtifactId) -> Strategy:
        state = self._engine.state.artifacts[artifact]
        return self._engine.copies.strategy(artifact, state.scope, state.key)

    def _push(self) -> None:
        engine = self._engine
        while self._due and not self._follower.closing:
            agent, artifact = next(iter(self._due))
            del self._due[agent, artifact]
            try:
                body = run(engine.coordinator, engine.push(agent, artifact))
            except CcsError as error:
                LOG.info("a push to %r failed; it fetches when it reads: %s", agent, error)
                continue
            if body is not None:
                self.pushed += 1
                state = engine.state.artifacts[artifact]
                if self.told is not None:
                    self.told(agent, state.scope, state.key, body)
