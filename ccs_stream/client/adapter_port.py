"""The port for adapters: all that an adapter for an agent framework may use of a workspace's operations.

`Workspace.adapter_port` returns it. An adapter knows its framework's namespaces, identities and items; everything else
is here: read sets, hits, batches of writes, searches, deliveries, metrics, degraded mode.

Guarantees: an adapter that uses this port and the public face (`connect`, `Workspace`, results, errors) has everything
that the bundled adapters have; a test holds the bundled ones to it. Does not: promise more than the version it is part
of; adapters of other projects should pin one.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.read_result import ReadContent, ReadResult
from ccs_stream.client.cache.read_set import ModelContext, ReadSet, ReadSets
from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.operations.changes import Condition, Expected, WriteBatch
from ccs_stream.client.operations.finder import Finder, FoundArtifacts
from ccs_stream.client.operations.reservation import Reservation
from ccs_stream.client.operations.steps import RunBlocking, Steps, SyncOrAsync
from ccs_stream.client.results import Change, Written
from ccs_stream.log.port import Position
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope

__all__ = [
    "AdapterPort",
    "ArtifactState",
    "CachedContent",
    "Condition",
    "Expected",
    "Finder",
    "FoundArtifacts",
    "ModelContext",
    "Outbox",
    "Position",
    "ReadCall",
    "ReadContent",
    "ReadResult",
    "ReadSet",
    "ReadSets",
    "Reservation",
    "RunBlocking",
    "Steps",
    "SyncOrAsync",
    "WriteBatch",
]

T = TypeVar("T")


class AdapterPort(Protocol):
    """The operations of a workspace, for an adapter.

    Methods that end in `_steps` return generators, which an adapter combines with `yield from` and runs with `run` or
    `run_async`; the others do the whole operation, by the shortest way there is.
    """

    @property
    def read_sets(self) -> ReadSets:
        """The read sets of all flows. Take the one of an agent when a method is called, not when it is awaited."""

    @property
    def addresses(self) -> Mapping[tuple[Scope, str], ArtifactId]:
        """The ids of addresses used before; their texts have been checked."""

    @property
    def finder(self) -> Finder:
        """Finds artifacts under a scope, for searches and listings."""

    def address(self, scope: Scope, key: str) -> ArtifactId:
        """The id of an address. Raises `UsageError` for a text that the log cannot hold."""

    def run(self, steps: Steps[T]) -> T:
        """Take the steps in the calling thread."""

    def run_async(self, steps: Steps[T]) -> Coroutine[Any, Any, T]:
        """Take the steps in the running event loop."""

    def begin_call(self) -> int:
        """Count a call; returns its number, the tick of leases and metric events."""

    # Reading.

    def read(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None = None,
        refresh_ttl: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost a hit more than all its checks
    ) -> ReadContent | None:
        """The current version for `agent`; None when there is nothing.

        `namespace` is the framework's own name of the scope, for metric events. `refresh_ttl` extends a life to its
        full TTL. Raises `ContentMissing`, and the `LogError`s of the log.
        """

    def read_async(
        self,
        agent: str,
        artifact: ArtifactId,
        read_set: ReadSet,
        namespace: tuple[str, ...] | None = None,
        refresh_ttl: bool = False,  # noqa: FBT001, FBT002  # a keyword would cost a hit more than all its checks
    ) -> Coroutine[Any, Any, ReadContent | None]:
        """As `read`, in the running event loop."""

    def catch_up_steps(self) -> Steps[None]:
        """Fold what the workspace's default freshness needs: once, before the reads of a call."""

    def read_steps(
        self, call: ReadCall, artifact: ArtifactId, *, refresh_ttl: bool = False
    ) -> Steps[ReadResult | None]:
        """One artifact for the agent of the call, which gets a copy."""

    def read_all_steps(self, reads: Sequence[tuple[ReadCall, ArtifactId]]) -> Steps[list[ReadResult | None]]:
        """Artifacts as they stand at one position; takes no copies."""

    def refresh_steps(self, agent: str, artifact: ArtifactId) -> Steps[None]:
        """Extend the life of an artifact to its full TTL, where a tenth of the TTL has passed."""

    # Writing.

    def batch(self, agent: str, read_set: ReadSet) -> WriteBatch:
        """An empty batch of changes, which `agent` commits in one decision, based on what `read_set` has read."""

    def commit(self, batch: WriteBatch, what: str, tick: int) -> list[Written]:
        """Commit a batch; one result a change. `what` names it in errors. Raises `Refused` and its kinds."""

    def commit_async(self, batch: WriteBatch, what: str, tick: int) -> Coroutine[Any, Any, list[Written]]:
        """As `commit`, in the running event loop."""

    def commit_steps(self, batch: WriteBatch, what: str, tick: int, *, atomic: bool = True) -> Steps[list[Written]]:
        """As `commit`, as steps. Unless `atomic`, an outbox may keep the changes one by one."""

    def reserve(
        self, agent: str, scope: Scope, key: str, *, duration: Micros, wait_s: float, read_set: ReadSet | None = None
    ) -> Reservation:
        """A reservation for the flow of `read_set`, by default the flow that enters it."""

    # Looking back.

    def history(self, scope: Scope, key: str, *, limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions of an artifact, newest first."""

    def history_async(
        self, scope: Scope, key: str, *, limit: int | None = None, values: bool = True
    ) -> Coroutine[Any, Any, list[Change]]:
        """As `history`."""
