"""The pusher: where a strategy says so, agents get what others wrote without asking for it.

A workspace has one where the strategy of some artifacts pushes (`eager`, `broadcast`).

Guarantees: after a write, each agent of this session that held a copy (with `broadcast`: each that has joined) gets a
copy of the newest version. The writer does not wait for that. A version that was replaced before its turn is not
pushed. Does not: push to agents of other processes; each process pushes to its own.

How: a `DecisionFollower` in its thread `ccs-pusher` finds what to push, and reads for the agents; it may block on the
log.
"""

import logging
from collections.abc import Callable, Sequence

from ccs_stream.background import WorkerHealth
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

OnPush = Callable[[str, Scope, str, CachedContent], object]
"""Called with the agent, scope, key and content of each push."""


class Pusher:
    """The pusher of one workspace."""

    def __init__(self, engine: Engine) -> None:
        self.pushed = 0
        """Contents pushed."""
        self.on_push: OnPush | None = None
        """Called after each push, in the pusher's thread."""
        # Not the engine itself: whatever a thread refers to is never dropped.
        self._coordinator, self._session, self._reader = engine.coordinator, engine.session, engine.reader
        self._copies = engine.copies
        self._due: dict[tuple[str, ArtifactId], None] = {}
        with engine.coordinator.lock:
            self._follower = DecisionFollower(
                engine.coordinator, self._find_due, on_caught_up=self._push, name="pusher"
            )

    @property
    def failed(self) -> int:
        """Errors met. A push that failed is not tried again; its agent fetches when it reads."""
        return self._follower.failed

    def health(self) -> WorkerHealth:
        """The health of the thread."""
        return self._follower.health()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what this process knows to have been written is pushed; False when that takes longer."""
        return self._follower.forked or self._follower.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """End after the push that is under way."""
        return self._follower.forked or self._follower.close(timeout_s)

    def _find_due(self, decision: DecisionRecord, events: Sequence[Event]) -> None:
        del decision
        written: set[ArtifactId] = set()
        for event in events:
            if type(event) is WriteCommitted:
                written.add(event.artifact)
                self._add_all_agents(event)
            elif type(event) is GrantsInvalidated and event.artifact in written:
                self._add_holders(event)

    def _add_all_agents(self, event: WriteCommitted) -> None:
        if not self._strategy(event.artifact).pushes_to_everybody:
            return
        for agent, participant in list(self._session.current.joined.items()):
            if participant != event.participant:
                self._due[agent, event.artifact] = None

    def _add_holders(self, event: GrantsInvalidated) -> None:
        if not self._strategy(event.artifact).broadcasts_content_on_commit:
            return
        lost = {event.owner, *event.sharers}
        for agent, participant in list(self._session.current.joined.items()):
            if participant in lost:
                self._due[agent, event.artifact] = None

    def _strategy(self, artifact: ArtifactId) -> Strategy:
        state = self._coordinator.state.artifacts[artifact]
        return self._copies.strategy(artifact, state.scope, state.key)

    def _push(self) -> None:
        while self._due and not self._follower.closing:
            agent, artifact = next(iter(self._due))
            del self._due[agent, artifact]
            try:
                content = run(self._coordinator, self._reader.push_steps(agent, artifact))
            except CcsError as error:
                LOG.info("a push to %r failed; it fetches when it reads: %s", agent, error)
                continue
            if content is not None:
                self.pushed += 1
                state = self._coordinator.state.artifacts[artifact]
                if self.on_push is not None:
                    self.on_push(agent, state.scope, state.key, content)
