"""`CoherentStore` and `CCSStore`: LangGraph stores whose every write, grant and invalidation is on a log.

Guarantees: what LangGraph's own stores do, sync and async, from any thread and several event loops at once, also sync
inside a running loop. Values come back isolated; a batch's writes are one decision. Beyond `BaseStore`: guarded writes,
`compare_and_set`, `put_all`, `get_all`, `acquire`, `history`, `watch`. Does not: authenticate agents.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, Unpack

import orjson
from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    IndexConfig,
    NotProvided,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from ccs_stream.adapters.langgraph.identity import Addressing, GraphContext, Identity
from ccs_stream.adapters.langgraph.items import CoherentItem, item
from ccs_stream.adapters.langgraph.namespaces import Namespace, check_namespace, check_writable, item_key
from ccs_stream.adapters.langgraph.operations import Operations, item_of
from ccs_stream.adapters.langgraph.vectors import VectorIndex
from ccs_stream.adapters.langgraph.writes import ItemWriter
from ccs_stream.client.adapter_port import Outbox, Position, ReadContent, Reservation, Steps
from ccs_stream.client.agent import RESERVATION_LIMIT_S
from ccs_stream.client.connect import connect
from ccs_stream.client.health import WorkspaceHealth
from ccs_stream.client.history import Watch
from ccs_stream.client.options import ClientOptions, check_names
from ccs_stream.client.results import Change
from ccs_stream.client.workspace import FLUSH_TIMEOUT_S, SWEEP_STOP_S, Workspace
from ccs_stream.projections.savings import TokenAccount
from ccs_stream.protocol.errors import UsageError, unknown_name
from ccs_stream.protocol.limits import SECOND_US, check_flag, check_wait_s, seconds_to_us, shown

WriteCondition = Literal["last_writer_wins", "guarded"]
_OWN_OPTIONS: Final = ("url", "workspace", "identity", "writes", "index", "ttl")
_TTL_KEYS: Final = frozenset(TTLConfig.__annotations__)


class CoherentStore(BaseStore):
    """A drop-in for LangGraph's stores: namespaces mean what they mean there, the agent is the running graph node.

    ```python
    from ccs_stream.adapters.langgraph import CoherentStore

    with CoherentStore() as store:  # CoherentStore("sqlite:///team.db") is durable, and shared by processes
        store.put(("team",), "plan", {"step": 1})
        item = store.get(("team",), "plan")
        print(item.value, item.version)  # {'step': 1} 1
    ```

    `CoherentStore()` keeps its log in memory. `CoherentStore("sqlite:///team.db", workspace="release-42")` is durable,
    and shared with every process that opens the same file. Give it to `builder.compile(store=store)`.
    """

    supports_ttl = True
    DEFAULT_IDENTITY: ClassVar[Literal["node", "namespace"]] = "node"

    def __init__(  # one name for each thing that LangGraph users choose
        self,
        url: str | Path | None = None,
        *,
        workspace: str | None = None,
        identity: Identity | None = None,
        writes: WriteCondition = "last_writer_wins",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Open the store.

        Args:
            url: `sqlite:///FILE.db`, `kafka://HOST:PORT`, or None for a log in memory.
            workspace: The workspace of that log; by default the one that the URL names, else `default`.
            identity: Who acts: `"node"` (the running graph node), `"namespace"` (its first part), or a function from a
                namespace to (agent, scope).
            writes: `"guarded"` makes `put` and `delete` conditional on the version that this flow last read.
            index: LangGraph's own: how values are embedded for semantic search.
            ttl: LangGraph's own: when values expire.
            options: Those of `ccs_stream.connect`; see `ccs_stream.client.options.ClientOptions`.

        Raises:
            UsageError: For an option that cannot be used; an unknown one is named with the nearest known one.
            LogError: For a log that cannot be opened, and its kinds.

        """
        check_names(options, of=type(self).__name__, others=_OWN_OPTIONS)
        if writes not in ("last_writer_wins", "guarded"):
            raise UsageError(f"writes is 'last_writer_wins' or 'guarded', got {shown(writes)}")
        self.ttl_config = _checked_ttl(ttl)
        self._refreshes_ttl = bool((ttl or {}).get("refresh_on_read", True))
        vectors = None if index is None else VectorIndex(index)
        self._workspace = connect(url, workspace=workspace, **options)
        self._port = port = self._workspace.adapter_port
        self._context = GraphContext(port.read_sets)
        try:
            who = self.DEFAULT_IDENTITY if identity is None else identity
            addressing = Addressing(who, self._context, port.address)
            self._addressing = addressing
            self._writer = ItemWriter(port, addressing, guarded=writes == "guarded")
            self._operations = Operations(port, addressing, self._writer, vectors)
            interval = (self.ttl_config or {}).get("sweep_interval_minutes")
            if interval is not None:
                self.start_ttl_sweeper(interval)
        except BaseException:
            self._workspace.close()
            raise
        self._addresses = addressing.known
        self._read = port.read

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._workspace!r})"

    def __bool__(self) -> bool:
        """Always true: LangGraph drops a store that is false."""
        return True

    @property
    def workspace(self) -> Workspace:
        """The workspace beneath: positions, `as_of`, `state_hash`, `deliveries`."""
        return self._workspace

    # BaseStore. The async forms are plain functions that return a coroutine, so that the calling flow is known when
    # they are called: `gather` and `wait_for` await them in tasks of their own.

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of LangGraph's operations: reads first, then all writes, each agent's in one decision."""
        return self._port.run(self._operations.batch(ops, self._context.call()))

    def abatch(self, ops: Iterable[Op]) -> Coroutine[Any, Any, list[Result]]:
        """As `batch`."""
        return self._port.run_async(self._operations.batch(ops, self._context.call()))

    def get(self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None) -> CoherentItem | None:
        """As LangGraph's `get`; the item carries its `version`."""
        agent, scope, read_set = self._addressing.resolve(namespace)
        try:
            artifact = self._addresses.get((scope, key))
        except TypeError:  # a list: LangGraph's own check says so
            artifact = None
        if artifact is None:
            return super().get(check_namespace(namespace), item_key(key), refresh_ttl=refresh_ttl)  # type: ignore[return-value]
        found = self._read(
            agent, artifact, read_set, namespace, self._refreshes_ttl if refresh_ttl is None else refresh_ttl
        )
        if found is None:
            return None
        made = item(orjson.loads(found.json_body), key, namespace, found.created_at, found.updated_at, found.version)
        if found.stale:
            made.stale = True
        return made

    def aget(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Coroutine[Any, Any, CoherentItem | None]:
        """As `get`."""
        refreshes = self._refreshes_ttl if refresh_ttl is None else refresh_ttl
        agent, scope, read_set = self._addressing.resolve(namespace)
        try:
            artifact = self._addresses.get((scope, key))
        except TypeError:
            artifact = None
        if artifact is None:
            return _first(self.abatch([GetOp(check_namespace(namespace), item_key(key), refreshes)]))
        found = self._port.read_async(agent, artifact, read_set, namespace, refreshes)
        return self._item_of(found, key, namespace)

    async def _item_of(
        self, reading: Coroutine[Any, Any, ReadContent | None], key: str, namespace: Namespace
    ) -> CoherentItem | None:
        found = await reading
        return None if found is None else item_of(found, key, namespace)

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
        if simple and self._writer.put_known(namespace, key, value, index, self._ttl_minutes(ttl)):
            return
        super().put(check_writable(namespace), item_key(key), value, index, ttl=ttl)

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
        op = PutOp(check_writable(namespace), item_key(key), value, index=index, ttl=self._ttl_minutes(ttl))
        return _first(self.abatch([op]))

    def delete(self, namespace: Namespace, key: str) -> None:
        """As LangGraph's `delete`. With `writes="guarded"` raises `VersionConflict` when what was read has changed."""
        super().delete(check_namespace(namespace), item_key(key))

    def adelete(self, namespace: Namespace, key: str) -> Coroutine[Any, Any, None]:
        """As `delete`."""
        return _first(self.abatch([PutOp(check_namespace(namespace), item_key(key), None)]))

    def search(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002  # LangGraph's name
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """As LangGraph's `search`. Raises `UsageError` for what is no namespace prefix or no filter."""
        refreshes = self._refreshes_ttl if refresh_ttl is None else refresh_ttl
        op = SearchOp(check_namespace(namespace_prefix), filter, limit, offset, query, refreshes)
        found: list[SearchItem] = self.batch([op])[0]  # type: ignore[assignment]
        return found

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
        refreshes = self._refreshes_ttl if refresh_ttl is None else refresh_ttl
        op = SearchOp(check_namespace(namespace_prefix), filter, limit, offset, query, refreshes)
        return _first(self.abatch([op]))

    def _ttl_minutes(self, ttl: float | NotProvided | None) -> float | None:
        if isinstance(ttl, NotProvided):
            return self.ttl_config.get("default_ttl") if self.ttl_config else None
        return ttl

    # Expiry.

    def sweep_ttl(self) -> int:
        """Delete what has expired; returns how many events that took. Reads never see expired items, swept or not."""
        return self._workspace.sweep()

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> "Future[None]":
        """Sweep every so many minutes, in a background task, until `stop_ttl_sweeper` or `close`.

        Returns a future that is done when sweeping has stopped, as LangGraph's stores do.
        """
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        interval = configured if sweep_interval_minutes is None else sweep_interval_minutes
        if interval is None:
            raise UsageError("sweep_interval_minutes must be more than 0, got None")
        interval_us = seconds_to_us(interval, "sweep_interval_minutes", unit="minutes", unit_us=60 * SECOND_US)
        return self._workspace.start_sweeping(interval_us / SECOND_US)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop sweeping, and wait for a sweep that is under way, for at most `timeout` seconds (None: five).

        Returns whether nothing sweeps any more.
        """
        return self._workspace.stop_sweeping(SWEEP_STOP_S if timeout is None else timeout)

    # Conditional writes, several items at once, reservations.

    def compare_and_set(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any] | None,
        *,
        expected: int | None,
        index: Literal[False] | list[str] | None = None,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        reason: str | None = None,
    ) -> int | None:
        """Put (or delete, with None) only over version `expected`, or where nothing exists (None).

        Returns the new version. Raises `VersionConflict` with `current_version` and `current_value`.
        """
        return self._port.run(self._compare_and_set(namespace, key, value, expected, index, ttl, reason))

    def acompare_and_set(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any] | None,
        *,
        expected: int | None,
        index: Literal[False] | list[str] | None = None,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        reason: str | None = None,
    ) -> Coroutine[Any, Any, int | None]:
        """As `compare_and_set`."""
        return self._port.run_async(self._compare_and_set(namespace, key, value, expected, index, ttl, reason))

    def _compare_and_set(
        self, namespace: Namespace, key: str, value: Any, expected: int | None, index: Any, ttl: Any, reason: str | None
    ) -> Steps[int | None]:
        return self._writer.compare_and_set(
            namespace,
            key,
            value,
            expected=expected,
            index=index,
            ttl_minutes=self._ttl_minutes(ttl),
            reason=reason,
            call=self._context.call(),
        )

    def put_all(
        self, items: Iterable[tuple[Namespace, str, Mapping[str, Any] | None]], *, reason: str | None = None
    ) -> list[int | None]:
        """Put (or delete, with None) several items in one decision, all or none; returns their versions.

        All must be of one agent. Guarded where the store is.
        """
        return self._port.run(self._put_all(items, reason))

    def aput_all(
        self, items: Iterable[tuple[Namespace, str, Mapping[str, Any] | None]], *, reason: str | None = None
    ) -> Coroutine[Any, Any, list[int | None]]:
        """As `put_all`."""
        return self._port.run_async(self._put_all(items, reason))

    def _put_all(
        self, items: Iterable[tuple[Namespace, str, Mapping[str, Any] | None]], reason: str | None
    ) -> Steps[list[int | None]]:
        ttl_minutes = self._ttl_minutes(NOT_PROVIDED)
        return self._writer.put_all(list(items), ttl_minutes=ttl_minutes, reason=reason, call=self._context.call())

    def get_all(self, addresses: Sequence[tuple[Namespace, str]]) -> list[CoherentItem | None]:
        """Several items as they stand at one position of the log. Takes no copies, so it appends nothing."""
        return self._port.run(self._operations.get_all(addresses, self._context.call()))

    def aget_all(self, addresses: Sequence[tuple[Namespace, str]]) -> Coroutine[Any, Any, list[CoherentItem | None]]:
        """As `get_all`."""
        return self._port.run_async(self._operations.get_all(addresses, self._context.call()))

    def acquire(
        self, namespace: Namespace, key: str, *, limit_s: float = RESERVATION_LIMIT_S, wait_s: float = 0.0
    ) -> Reservation:
        """The exclusive right to write an item for `limit_s` seconds, entered with `with` or `async with`.

        Entering waits up to `wait_s` seconds and raises `Reserved`; leaving raises `Reclaimed` when the time was over.
        """
        agent, scope = self._addressing.split(check_writable(namespace))
        duration, read_set = seconds_to_us(limit_s, "limit_s"), self._context.call().read_set(agent)
        wait_s = check_wait_s(wait_s, "wait_s")
        return self._port.reserve(agent, scope, item_key(key), duration=duration, wait_s=wait_s, read_set=read_set)

    # Looking back.

    def history(self, namespace: Namespace, key: str, *, limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions there were, newest first: who wrote them, over what, why, and their values."""
        _, scope = self._addressing.split(namespace)
        return self._port.history(scope, item_key(key), limit=limit, values=values)

    def ahistory(
        self, namespace: Namespace, key: str, *, limit: int | None = None, values: bool = True
    ) -> Coroutine[Any, Any, list[Change]]:
        """As `history`."""
        _, scope = self._addressing.split(namespace)
        return self._port.history_async(scope, item_key(key), limit=limit, values=values)

    def watch(
        self, namespace_prefix: Namespace = (), *, after: Position | str | None = None, values: bool = True
    ) -> Watch:
        """Changes under a namespace prefix as they are admitted; iterate with `for` or `async for`."""
        _, scope = self._addressing.prefix(namespace_prefix)
        return self._workspace.watch(scope=scope, after=after, values=values)

    # The workspace beneath.

    @property
    def is_degraded(self) -> bool:
        """True if reads come from what this process knows, and writes are refused or queued (`on_error="degrade"`)."""
        return self._workspace.is_degraded

    @property
    def degradation_count(self) -> int:
        """How often the log failed a call, where `on_error="degrade"`."""
        return self._workspace.degradation_count

    @property
    def outbox(self) -> Outbox | None:
        """The changes that wait for a log that cannot be used, and those that were refused when it came back."""
        return self._workspace.outbox

    def heartbeat(self) -> None:
        """Renew this session on the log, where it has crash recovery. A background task does so, too."""
        self._workspace.heartbeat()

    def recover(self, agent_name: str | None = None) -> None:
        """Have every copy that an agent (None: each of this store) holds fetched again before it is served."""
        self._workspace.recover(agent_name)

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until what was read and written is recorded, counted and pushed; False when that takes longer."""
        return self._workspace.flush(timeout_s)

    def settle(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """The earlier name of `flush`."""
        return self._workspace.flush(timeout_s)

    def health(self) -> WorkspaceHealth:
        """The state of this store now: its threads, what waits in them, and how the log is reached. No I/O."""
        return self._workspace.health()

    def benchmark_summary(self) -> dict[str, Any]:
        """The tokens of the reads so far, under agent-coherence's keys and rules; see `Workspace.benchmark_summary`."""
        return self._workspace.benchmark_summary()

    def savings(self) -> TokenAccount:
        """All tokens that moved so far, next to what re-reading would have moved; see `Workspace.savings`."""
        return self._workspace.savings()

    def print_benchmark_summary(self) -> None:
        """Print `benchmark_summary` and `savings`, for people."""
        self._workspace.print_benchmark_summary()

    def close(self) -> None:
        """Leave the log and let go of it. Closing twice is fine."""
        self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CCSStore(CoherentStore):
    """The same store, with the first part of a namespace as the agent and the rest as the scope."""

    DEFAULT_IDENTITY: ClassVar[Literal["node", "namespace"]] = "namespace"


async def _first(results: Coroutine[Any, Any, list[Any]]) -> Any:
    return (await results)[0]


def _checked_ttl(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    if not isinstance(ttl, Mapping):
        raise UsageError(f"ttl is a mapping, such as {{'default_ttl': 60}}, got {shown(ttl)}")
    for name in ttl:
        if name not in _TTL_KEYS:
            raise unknown_name(name, sorted(_TTL_KEYS), what="unknown ttl option")
    if ttl.get("default_ttl") is not None:
        seconds_to_us(ttl["default_ttl"], "default_ttl", unit="minutes", unit_us=60 * SECOND_US)
    if ttl.get("refresh_on_read") is not None:
        check_flag(ttl["refresh_on_read"], "refresh_on_read")
    return ttl
