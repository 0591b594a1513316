"""`CoherentStore` and `CCSStore`: a `BaseStore` whose every write, grant and invalidation is on a log.

Guarantees: what LangGraph's own stores do, sync and async, from any thread and several event loops at once, also sync
inside a running loop; values come back isolated; a batch's writes are one decision. Beyond `BaseStore`: guarded writes,
`compare_and_set`, `put_all`, `get_all`, `acquire`, `history`, `watch`. Does not: authenticate agents.
"""

import difflib
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, Unpack

import orjson
from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from ccs_stream.adapters.langgraph.extensions import StoreExtensions
from ccs_stream.adapters.langgraph.identity import Addressing, CallContext, GraphContext, Identity, Namespace
from ccs_stream.adapters.langgraph.items import CoherentItem, item
from ccs_stream.adapters.langgraph.operations import Operations
from ccs_stream.adapters.langgraph.vectors import VectorIndex
from ccs_stream.adapters.telemetry.exporting import Exporter, Telemetry, TelemetryExporter, exporter_of
from ccs_stream.client.cache.content_cache import DEFAULT_BYTES_MAX, CachedContent
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.connect import connect
from ccs_stream.client.observers.metrics import CountTokens, metrics_of
from ccs_stream.client.operations.steps import run, run_async
from ccs_stream.client.options import ClientOptions, parse_options
from ccs_stream.client.workspace import Workspace
from ccs_stream.projections.metric_events import StoreMetricEvent
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId
from ccs_stream.protocol.settings import WorkspaceSettings

Writes = Literal["last_writer_wins", "guarded"]
TelemetryOption = Literal["opentelemetry", "langsmith"] | TelemetryExporter | Exporter | None
_TTL_KEYS: Final = frozenset(TTLConfig.__annotations__)


class CoherentStore(StoreExtensions, BaseStore):
    """A drop-in for LangGraph's stores: namespaces mean what they mean there, the agent is the running graph node.

    `CoherentStore()` keeps its log in memory; `CoherentStore("sqlite:///team.db", workspace="release-42")` is durable
    and shared with every process that opens the same file.
    """

    supports_ttl = True
    DEFAULT_IDENTITY: ClassVar[Literal["node", "namespace"]] = "node"

    def __init__(  # noqa: PLR0913  # one name for each thing a user may choose
        self,
        url: str | None = None,
        *,
        workspace: str | None = None,
        identity: Identity | None = None,
        writes: Writes = "last_writer_wins",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        freshness: Freshness | str | None = None,
        settings: WorkspaceSettings | None = None,
        body_cache_bytes: int = DEFAULT_BYTES_MAX,
        kafka: Mapping[str, Any] | None = None,
        benchmark: bool = False,
        on_metric: Callable[[StoreMetricEvent], object] | None = None,
        count_tokens: CountTokens | None = None,
        telemetry: TelemetryOption = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Open the store.

        `identity` says who acts: `"node"`, `"namespace"`, or a callable from a namespace to (agent, scope). `writes`
        `"guarded"` makes `put` and `delete` conditional on what this execution scope last read. `index` and `ttl` are
        LangGraph's own. `benchmark` counts the tokens that move (`benchmark_summary`, `savings`), `on_metric` is told
        of every read, write and search result, aside; `count_tokens` counts the tokens of a value, instead of the
        estimate. `telemetry` is `"opentelemetry"`, `"langsmith"` or an exporter. The other options are those of
        `ccs_stream.connect`. Raises `UsageError` for an unknown option, naming the nearest known one.
        """
        parse_options(options, of=type(self).__name__, others=_OWN_OPTIONS)
        if writes not in ("last_writer_wins", "guarded"):
            raise UsageError(f"writes is 'last_writer_wins' or 'guarded', got {writes!r}")
        self.ttl_config = _checked_ttl(ttl)
        exporter = exporter_of(telemetry)
        self._meter = metrics_of(
            benchmark=benchmark,
            on_metric=on_metric,
            count_tokens=count_tokens,
            telemetry=None if exporter is None else Telemetry(exporter),
        )
        self._running = GraphContext()
        addressing = Addressing(self.DEFAULT_IDENTITY if identity is None else identity, self._running)
        vectors = None if index is None else VectorIndex(index)
        self._workspace = connect(
            url,
            workspace=workspace,
            settings=settings,
            freshness=freshness,
            body_cache_bytes=body_cache_bytes,
            kafka=kafka,
            **options,
        )
        engine = self._workspace.engine
        if self._meter is not None:
            self._meter.instance_id = self._workspace.instance_id
            if (pusher := self._workspace.observers.pusher) is not None:
                pusher.told = self._meter.pushed
            if (degradation := self._workspace.degradation) is not None:
                degradation.on_change(self._meter.degraded)
        self._operations = Operations(
            engine, addressing, self._running, guarded=writes == "guarded", vectors=vectors, meter=self._meter
        )
        self._engine = engine
        self._copies = engine.copies
        self._short = addressing.by_node and engine.fallback is None
        """Whether a hit may be looked for the short way."""
        self._addresses = engine.addresses
        self._kept_bodies = engine.bodies
        self._heeded = self._meter is not None or engine.serving.give is not None
        """Whether anybody is told of hits."""
        self._latest = engine.freshness is Freshness.LATEST
        self._sweeper: threading.Thread | None = None
        self._stop_sweeping = threading.Event()
        interval = (self.ttl_config or {}).get("sweep_interval_minutes")
        if interval is not None:
            self.start_ttl_sweeper(interval)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._workspace!r})"

    def __bool__(self) -> bool:
        """Always true: LangGraph drops a store that is false."""
        return True

    @property
    def workspace(self) -> Workspace:
        """The workspace beneath: positions, `as_of`, `state_hash`."""
        return self._workspace

    # BaseStore.

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of LangGraph's operations: reads first, then all writes, each agent's in one decision."""
        return run(self._workspace.coordinator, self._operations.batch(ops, self._operations.caller()))

    def abatch(self, ops: Iterable[Op]) -> Coroutine[Any, Any, list[Result]]:
        """As `batch`. Who calls is looked up now, not when this is awaited: `gather` awaits in tasks of its own."""
        return run_async(self._workspace.coordinator, self._operations.batch(ops, self._operations.caller()))

    def get(self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None) -> CoherentItem | None:
        """As LangGraph's `get`; the item carries its `version`."""
        found = self._hit(namespace, key) if self._short else None
        if found is not None:
            return found
        return super().get(namespace, key, refresh_ttl=refresh_ttl)  # type: ignore[return-value]

    def _hit(self, namespace: Namespace, key: str) -> CoherentItem | None:
        """The item, where the agent holds a current copy whose body is here: no lock, nothing appended."""
        engine = self._engine
        try:
            artifact = self._addresses.get((namespace, key))
        except TypeError:  # a list for a namespace: the long way says so
            return None
        coordinator = engine.coordinator
        if artifact is None or (coordinator.behind() if self._latest else coordinator.stale):
            return None
        caller = self._running.caller(engine.scopes)
        if self._heeded or self._copies.active:
            body = self._heeded_hit(caller, artifact, namespace, key)
            if body is None:
                return None
        else:
            body = engine.held(caller.agent, artifact)
            if body is None or body.ttl:
                return None
            caller.scope(caller.agent).saw(artifact, body.version)
        return item(orjson.loads(body.body), key, namespace, body.created_at, body.updated_at, body.version)

    def _heeded_hit(
        self, caller: CallContext, artifact: ArtifactId, namespace: Namespace, key: str
    ) -> CachedContent | None:
        """The body of a hit that strategies have a say in, or that somebody is told of."""
        engine, copies = self._engine, self._copies
        sequence = engine.state.last_complete_sequence  # before looking: what is looked at is at least as new
        body = engine.hit(caller.agent, artifact, copies.ticks + 1)
        if body is None or body.ttl:
            return None
        scope = caller.scope(caller.agent)
        scope.saw(artifact, body.version)
        tick = copies.tick()
        engine.serving.delivered(caller.agent, artifact, body, sequence, scope)
        if self._meter is not None:
            address = (namespace, namespace, key)
            self._meter.read("get", caller.agent, address, artifact, body, sequence, hit=True, tick=tick)
        return body

    # The async forms are plain functions that return a coroutine, so that who calls is known when they are called:
    # `gather` and `wait_for` await them in tasks of their own.

    def aget(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Coroutine[Any, Any, CoherentItem | None]:
        """As `get`."""
        found = self._hit(namespace, key) if self._short else None
        if found is not None:
            return _ready(found)
        return _first(self.abatch([GetOp(tuple(namespace), str(key), self._refreshes(refresh_ttl))]))

    def aput(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> Coroutine[Any, Any, None]:
        """As `put`."""
        if not namespace or namespace[0] == "langgraph":
            raise InvalidNamespaceError(f"a namespace has a part, and does not begin with 'langgraph': {namespace!r}")
        op = PutOp(tuple(namespace), str(key), value, index=index, ttl=self._ttl_minutes(ttl))
        return _first(self.abatch([op]))

    def adelete(self, namespace: Namespace, key: str) -> Coroutine[Any, Any, None]:
        """As `delete`."""
        return _first(self.abatch([PutOp(tuple(namespace), str(key), None)]))

    def asearch(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> Coroutine[Any, Any, list[SearchItem]]:
        """As `search`."""
        op = SearchOp(tuple(namespace_prefix), filter, limit, offset, query, self._refreshes(refresh_ttl))
        return _first(self.abatch([op]))

    def _refreshes(self, refresh_ttl: bool | None) -> bool:  # noqa: FBT001  # LangGraph's own option, passed on
        if refresh_ttl is not None:
            return refresh_ttl
        return bool(self.ttl_config.get("refresh_on_read", True)) if self.ttl_config else True

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """As LangGraph's `put`. With `writes="guarded"` raises `VersionConflict` when what was read has changed."""
        # An address used before has had its labels checked.
        simple = type(namespace) is tuple and type(key) is str and namespace and namespace[0] != "langgraph"
        if simple and self._operations.writes.put_now(namespace, key, value, index, self._ttl_minutes(ttl)):
            return
        super().put(namespace, key, value, index, ttl=ttl)

    # Expiry.

    def sweep_ttl(self) -> int:
        """Delete what has expired; returns how many events that took. Reads never see expired items, swept or not."""
        return self._workspace.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep every so many minutes, in a thread of its own, until `stop_ttl_sweeper` or `close`."""
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        interval = configured if sweep_interval_minutes is None else sweep_interval_minutes
        if interval is None or not interval > 0:
            raise UsageError(f"sweep_interval_minutes must be more than 0, got {interval!r}")
        if self._sweeper is None or not self._sweeper.is_alive():
            self._stop_sweeping.clear()
            self._sweeper = threading.Thread(
                target=_sweep_until, args=(self._stop_sweeping, interval * 60.0, self.sweep_ttl), daemon=True
            )
            self._sweeper.start()

    def stop_ttl_sweeper(self) -> None:
        """Stop sweeping."""
        self._stop_sweeping.set()
        if self._sweeper is not None:
            self._sweeper.join()
            self._sweeper = None

    # Leaving.

    def close(self) -> None:
        """Leave the log and let go of it."""
        self.stop_ttl_sweeper()
        if self._meter is not None:
            self._meter.close()  # before the workspace: whoever is told may read it
        self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


_OWN_OPTIONS: Final = tuple(name for name in inspect.signature(CoherentStore).parameters if name != "options")


class CCSStore(CoherentStore):
    """The same store, with the first part of a namespace as the agent and the rest as the scope."""

    DEFAULT_IDENTITY: ClassVar[Literal["node", "namespace"]] = "namespace"


async def _ready(value: CoherentItem) -> CoherentItem:
    return value


async def _first(results: Coroutine[Any, Any, list[Any]]) -> Any:
    return (await results)[0]


def _sweep_until(stop: threading.Event, interval_s: float, sweep: Any) -> None:
    while not stop.wait(interval_s):
        sweep()


def _checked_ttl(ttl: TTLConfig | None) -> TTLConfig | None:
    for name in ttl or ():
        if name not in _TTL_KEYS:
            near = difflib.get_close_matches(name, _TTL_KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(_TTL_KEYS))}"
            raise UsageError(f"unknown ttl option {name!r}{hint}")
    return ttl
