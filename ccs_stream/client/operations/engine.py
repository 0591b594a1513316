"""The engine of a workspace: holds the parts that read, write, find and reserve for all its agents.

`Workspace` makes one and hands it to its agents; adapters use it as an `AdapterPort`.

Guarantees: every sync and async method, and every adapter, runs the same steps. Does not: know frameworks, or what a
namespace means; hold rules, which are the protocol's.
"""

import functools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from ccs_stream.client.cache.content_cache import ContentCache
from ccs_stream.client.cache.copy_tracker import CopyTracker, StrategyRules, parse_rules
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.cache.read_set import ReadSet, ReadSets
from ccs_stream.client.history import history
from ccs_stream.client.operations.changes import WriteBatch
from ccs_stream.client.operations.finder import Finder
from ccs_stream.client.operations.ports import DegradedOperations
from ccs_stream.client.operations.reader import Reader
from ccs_stream.client.operations.reservation import Reservation
from ccs_stream.client.operations.session import CommandSession
from ccs_stream.client.operations.steps import AskIfBehind, RunBlocking, Steps, run, run_async
from ccs_stream.client.operations.writer import Writer
from ccs_stream.client.results import Change
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope
from ccs_stream.protocol.limits import check_whole_number
from ccs_stream.protocol.process_identity import ProcessIdentity

T = TypeVar("T")


def _check_limit(limit: object) -> None:
    if limit is not None:
        check_whole_number(limit, "limit")


class Engine:
    """The operations of one workspace; for all threads and event loops of the process.

    Agents, adapters and watches refer to it, and none of its parts does: once nobody uses it any more, what its
    workspace has open is closed (`lifetime`).
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        contents: ContentCache,
        freshness: Freshness = Freshness.LATEST,
        rules: StrategyRules | None = None,
        identity: ProcessIdentity | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.state = coordinator.state
        self.contents = contents
        coordinator.on_bodies = functools.partial(_keep_contents, coordinator.state, contents)
        self.read_sets = ReadSets()
        """The read sets of all flows."""
        self.copies = CopyTracker(parse_rules(None) if rules is None else rules, coordinator.now)
        """Which copies may be served as they are."""
        self.session = CommandSession(coordinator, identity)
        self.recorder = DeliveryRecorder(coordinator, self.copies, freshness, self.session.current.session_id)
        self.session.on_replaced = self.recorder.use_session
        self.reader = Reader(self.session, contents, self.copies, self.recorder, freshness)
        self.writer = Writer(self.session, contents, self.recorder, self.reader)
        self.finder = Finder(coordinator, contents, self.recorder)
        self.addresses = self.session.addresses
        self.address = self.session.address
        self.refresh_steps = self.session.refresh
        self.begin_call = self.copies.tick
        # Bound once, not wrapped: a hit pays for every call.
        self.read, self.read_async = self.reader.read, self.reader.read_async
        self.read_steps, self.read_all_steps = self.reader.read_steps, self.reader.read_all_steps
        self.commit, self.commit_async = self.writer.commit, self.writer.commit_async
        self.commit_steps = self.writer.commit_steps
        self.degraded: DegradedOperations | None = None

    def degrade_with(self, degraded: DegradedOperations) -> None:
        """Have reads and writes go on with `degraded` while the log cannot be used."""
        self.degraded = self.reader.degraded = self.writer.degraded = degraded

    @property
    def stale(self) -> bool:
        """True if the log cannot be reached now, so that the state may be older than it should be."""
        return self.coordinator.stale or (self.degraded is not None and self.degraded.active)

    def run(self, steps: Steps[T]) -> T:
        """Take the steps in the calling thread."""
        return run(self.coordinator, steps)

    def run_async(self, steps: Steps[T]) -> Coroutine[Any, Any, T]:
        """Take the steps in the running event loop."""
        return run_async(self.coordinator, steps)

    def catch_up_steps(self) -> Steps[None]:
        """Fold as much of the log as the default freshness needs."""
        return self.reader.catch_up(None, None)

    def batch(self, agent: str, read_set: ReadSet) -> WriteBatch:
        """An empty batch of changes, which `agent` commits in one decision, based on what `read_set` has read."""
        return WriteBatch(agent, read_set, self.state.settings, self.session.address)

    def reserve(
        self, agent: str, scope: Scope, key: str, *, duration: Micros, wait_s: float, read_set: ReadSet | None = None
    ) -> Reservation:
        """A reservation for the flow of `read_set`, by default the flow that enters it."""
        return Reservation(
            self.session,
            self.read_sets,
            agent,
            self.session.address(scope, key),
            scope,
            key,
            duration=duration,
            wait_s=wait_s,
            read_set=read_set,
            owner=self,
        )

    def history(self, scope: Scope, key: str, *, limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions of an artifact, newest first. A body that is no longer kept is `missing` in its change."""
        _check_limit(limit)
        return self.run(self._history_steps(self.session.address(scope, key), limit, values=values))

    def history_async(
        self, scope: Scope, key: str, *, limit: int | None = None, values: bool = True
    ) -> Coroutine[Any, Any, list[Change]]:
        """As `history`."""
        _check_limit(limit)
        return self.run_async(self._history_steps(self.session.address(scope, key), limit, values=values))

    def _history_steps(self, artifact: ArtifactId, limit: int | None, *, values: bool) -> Steps[list[Change]]:
        if (yield AskIfBehind()):
            yield RunBlocking()
        work = functools.partial(history, self.coordinator, artifact, limit=limit, values=values)
        return (yield RunBlocking(work, long=True))  # type: ignore[no-any-return]


def _keep_contents(state: Directory, cache: ContentCache, events: Sequence[Event], contents: Sequence[bytes]) -> None:
    """Keep bodies that came with decisions: what an agent reads next need not be fetched."""
    for event in events:
        if type(event) is WriteCommitted and event.content_index is not None:
            artifact = state.artifacts.get(event.artifact)
            if artifact is not None:
                cache.keep(artifact, contents[event.content_index], event.version)
