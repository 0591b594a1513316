"""Read sets: which version of each artifact a flow has read. They are the comparands of guarded writes.

A flow is what reads and writes as one line of thought: a task of a graph, an asyncio task, or a thread. Each agent has
one `ReadSet` in each flow, and a write of that agent in that flow is based on it.

Guarantees: a comparand belongs to the flow that read it, never to the agent as a whole. Two threads that both read
version 3 under one name cannot both win. Does not: hand a read set on to another flow. A task that writes reads for
itself first.

Bounded: read sets and their comparands are forgotten, oldest first. A forgotten comparand means "never read". A guarded
write then fails where it might have passed, never the reverse.
"""

import asyncio
import threading
import weakref
from collections import OrderedDict
from typing import Final, Protocol

from ccs_stream.protocol.ids import ArtifactId, Fence, Version

NAMED_READ_SETS_MAX: Final = 4_096
"""Read sets with a name of their own (a task of a graph run) kept at once."""
COMPARANDS_MAX: Final = 10_000
"""Artifacts whose version one read set remembers."""

ModelContext = tuple[str | None, int | None]
"""Conversation and generation of the model context that receives what is read."""


class QueuedWrite(Protocol):
    """A change that was put into an outbox."""

    @property
    def number(self) -> int:
        """The number of the change in the outbox."""

    def pending(self) -> bool:
        """True if it still waits there."""

    def version(self) -> Version | None:
        """The version it made; None where it was refused, or made none."""


class ReadSet:
    """The versions that one agent has read in one flow, and the fences of the reservations it holds there."""

    __slots__ = ("__weakref__", "context", "fences", "queued", "unsettled", "versions")

    def __init__(self) -> None:
        self.versions: dict[ArtifactId, Version] = {}
        """The version last read or written, by artifact; 0 for an artifact that had never existed."""
        self.fences: dict[ArtifactId, Fence] = {}
        """Fences of the reservations taken in this flow."""
        self.queued: dict[ArtifactId, QueuedWrite] = {}
        """Changes written or read in this flow while they waited in an outbox."""
        self.unsettled: list[ArtifactId] = []
        """Artifacts with a write on its way whose coroutine was cancelled, once for each write. The next write of this
        flow waits for them, and is based on what came of them."""
        self.context: ModelContext | None = None
        """The model context that is served in this flow, where the caller says so."""

    def base(self, artifact: ArtifactId) -> Version | None:
        """The version that a write is based on: the one last read or written here. None for never.

        A change that waited in an outbox counts as written once it is in the log.
        """
        queued = self.queued.get(artifact)
        if queued is not None and not queued.pending():
            version = queued.version()
            if version is not None:
                self.record(artifact, max(version, self.versions.get(artifact, version)))
            self.queued.pop(artifact, None)
        return self.versions.get(artifact)

    def record(self, artifact: ArtifactId, version: Version) -> None:
        """Remember that this flow has read or written `version`; 0 for an artifact that had never existed."""
        versions = self.versions
        if artifact not in versions and len(versions) >= COMPARANDS_MAX:
            del versions[next(iter(versions))]
        versions[artifact] = version


AgentReadSets = dict[str, ReadSet]
"""The read sets of one flow, by agent."""


class ReadSets:
    """The read sets of one workspace, for all agents and flows of this process."""

    def __init__(self) -> None:
        self._threads = threading.local()
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[object], AgentReadSets]
        self._tasks = weakref.WeakKeyDictionary()
        self._named: OrderedDict[object, ReadSet] = OrderedDict()
        self._lock = threading.Lock()

    def current(self, agent: str) -> ReadSet:
        """The read set of `agent` in the flow that runs now."""
        agents = self.flow()
        read_set = agents.get(agent)
        if read_set is None:
            read_set = agents[agent] = ReadSet()
        return read_set

    def flow(self) -> AgentReadSets:
        """The read sets of the flow that runs now: the asyncio task, else the thread.

        Async methods call this when they are called, not when they are awaited. What `gather` or `wait_for` wraps in a
        task of its own counts for the flow that called it.
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
            of_thread: AgentReadSets = self._threads.agents
        except AttributeError:
            of_thread = self._threads.agents = {}
        return of_thread

    def named(self, name: object) -> ReadSet:
        """The read set with a name of its own, such as (thread id, task id, agent) of a graph run."""
        read_set = self._named.get(name)
        if read_set is None:
            with self._lock:
                read_set = self._named.setdefault(name, ReadSet())
                while len(self._named) > NAMED_READ_SETS_MAX:
                    self._named.popitem(last=False)
        return read_set
