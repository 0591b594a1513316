"""Who read what: the comparands of guarded writes, kept for each agent in each execution scope.

Guarantees: a comparand belongs to what read it (an agent in a graph's task; outside a graph in an asyncio task, else
in a thread), never to the agent as a whole: two threads that both read version 3 under one name do not both win. Does
not: inherit; a task that writes reads for itself, because what its parent reads later is nothing it has seen.

Bounded: scopes and their comparands are forgotten, oldest first. A forgotten comparand means "never read", which makes
a guarded write fail where it might have passed, never the reverse.
"""

import asyncio
import threading
import weakref
from collections import OrderedDict
from typing import Final, Protocol

from ccs_stream.protocol.ids import ArtifactId, Fence, Version

NAMED_SCOPES_MAX: Final = 4_096
"""Scopes named by an adapter (a task of a graph run) kept at once."""
COMPARANDS_MAX: Final = 10_000
"""Artifacts one scope remembers having read."""


class Waiting(Protocol):
    """A change in an outbox."""

    @property
    def number(self) -> int:
        """Its number there."""

    def still(self) -> bool:
        """Whether it waits."""

    def made(self) -> Version | None:
        """The version it made; None where it was refused, or made none."""


class ReadSet:
    """What one agent has read in one flow of execution, and the fences it holds there."""

    __slots__ = ("__weakref__", "context", "fences", "versions", "waiting")

    def __init__(self) -> None:
        self.versions: dict[ArtifactId, Version] = {}
        self.fences: dict[ArtifactId, Fence] = {}
        """Fences of the reservations taken in this scope."""
        self.waiting: dict[ArtifactId, Waiting] = {}
        """Changes written or seen here that wait in an outbox, or did when they were."""
        self.context: tuple[str | None, int | None] | None = None
        """Conversation and generation of the model context that is served here, where the caller knows."""

    def base(self, artifact: ArtifactId) -> Version | None:
        """What a write is conditional on: the version last read or written here, an outbox's by now included."""
        waiting = self.waiting.get(artifact)
        if waiting is not None and not waiting.still():
            del self.waiting[artifact]
            made = waiting.made()
            if made is not None:
                self.saw(artifact, max(made, self.versions.get(artifact, made)))
        return self.versions.get(artifact)

    def saw(self, artifact: ArtifactId, version: Version) -> None:
        """Remember the version read; 0 for "it had never existed"."""
        versions = self.versions
        if artifact not in versions and len(versions) >= COMPARANDS_MAX:
            del versions[next(iter(versions))]
        versions[artifact] = version


AgentReadSets = dict[str, ReadSet]


def read_set_of(scopes: AgentReadSets, agent: str) -> ReadSet:
    """One agent's scope among those of a flow of execution."""
    scope = scopes.get(agent)
    if scope is None:
        scope = scopes[agent] = ReadSet()
    return scope


class ReadSets:
    """The execution scopes of one workspace."""

    def __init__(self) -> None:
        self._threads = threading.local()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[object], AgentReadSets]
        self._tasks = weakref.WeakKeyDictionary()
        self._named: OrderedDict[object, ReadSet] = OrderedDict()
        self._lock = threading.Lock()

    def current(self, agent: str) -> ReadSet:
        """The scope of `agent` in the running asyncio task, else in this thread."""
        return read_set_of(self.here(), agent)

    def here(self) -> "AgentReadSets":
        """The scopes of all agents in the running asyncio task, else in this thread.

        Async methods look this up when they are called, not when they are awaited, so that what `gather` or `wait_for`
        wraps in a task of its own counts for whoever called it.
        """
        # asyncio documents this function for those who implement event loops; it costs a tenth of current_task().
        if asyncio._get_running_loop() is not None:  # noqa: SLF001
            task = asyncio.current_task()
            if task is not None:
                agents = self._tasks.get(task)
                if agents is None:
                    agents = self._tasks[task] = {}
                return agents
        try:
            here: AgentReadSets = self._threads.agents
        except AttributeError:
            here = self._threads.agents = {}
        return here

    def named(self, name: object) -> ReadSet:
        """The scope with a name of its own, such as (thread id, task id, agent) of a graph run."""
        scope = self._named.get(name)
        if scope is None:
            with self._lock:
                scope = self._named.setdefault(name, ReadSet())
                while len(self._named) > NAMED_SCOPES_MAX:
                    self._named.popitem(last=False)
        return scope
