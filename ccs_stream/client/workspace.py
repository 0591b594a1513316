"""A workspace, as an application holds it: its agents, several artifacts at once, its past, and its health.

`ccs_stream.connect` returns one.

Guarantees: one order of everything that happens in it. `write_all` is all or none; `read_all` reads several artifacts
at one position. Closes cleanly, and refuses use after a fork. Does not: own more than its connection; everything that
it knows is in the log.
"""

import contextlib
import dataclasses
import functools
import uuid
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self

from ccs_stream.client.adapter_port import AdapterPort
from ccs_stream.client.agent import ANY_VERSION, Agent, AnyVersion, expected_version
from ccs_stream.client.cache.content_cache import ContentCache
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.freshness import Freshness, delivery_freshness
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.degraded.fallback import LocalFallback
from ccs_stream.client.degraded.mode import DegradedMode
from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.degraded.outbox_drainer import OutboxDrainer, require_log
from ccs_stream.client.health import WorkspaceHealth
from ccs_stream.client.history import PastWorkspace, Watch, reading_of
from ccs_stream.client.lifetime import ClosingChain
from ccs_stream.client.observers.metrics import OperationMetrics, print_summary
from ccs_stream.client.observers.observers import WorkspaceObservers
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.session import UNNUMBERED, CommandSession
from ccs_stream.client.operations.steps import Steps, run, run_async
from ccs_stream.client.operations.sweeper import STOP_TIMEOUT_S, Sweeper
from ccs_stream.client.options import ClientConfig, parse_options
from ccs_stream.client.recovery import heartbeat_steps, recover, settings_with, start_heartbeat
from ccs_stream.client.results import Reading, Written
from ccs_stream.client.values import encode
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.factory import open_coordinator
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.log.port import LogStore, Position
from ccs_stream.projections.savings import TokenAccount
from ccs_stream.protocol.commands import Leave
from ccs_stream.protocol.deliveries import DeliveryRecorded
from ccs_stream.protocol.errors import CcsError, Closed, UsageError
from ccs_stream.protocol.ids import Scope
from ccs_stream.protocol.limits import (
    CONVERSATION_BYTES_MAX,
    SECOND_US,
    as_scope,
    check_scope,
    check_text,
    check_wait_s,
    check_whole_number,
    seconds_to_us,
    shown,
)
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash

DEFAULT_WORKSPACE: Final = "default"
SWEEP_STOP_S: Final = STOP_TIMEOUT_S
"""How long `stop_sweeping` waits for a sweep that is under way."""
FLUSH_TIMEOUT_S: Final = 5.0
"""How long `flush` and `deliveries` wait for what is still to be recorded, unless told otherwise."""
DEGRADED_CLOSE_S: Final = 3.0
"""How long closing waits for the thread that probes a log that cannot be used."""
LEAVE_TIMEOUT_S: Final = 3.0
"""How long closing waits for a leader to record that the session has ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Put:
    """One write of `write_all`. With `expected`, only over that version (None: only if nothing exists)."""

    key: str
    value: object
    scope: Scope = ()
    expected: int | AnyVersion | None = ANY_VERSION
    ttl_s: float | None = None
    reason: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Delete:
    """One delete of `write_all`."""

    key: str
    scope: Scope = ()
    expected: int | AnyVersion | None = ANY_VERSION
    reason: str | None = None


Address = str | tuple[Scope, str]
"""A key, or (scope, key)."""


def _address(address: Any) -> tuple[Scope, str]:
    """Scope and key of an address as users give it. Raises `UsageError`."""
    if isinstance(address, str):
        return (), address
    if not isinstance(address, tuple | list) or len(address) != 2:  # scope and key
        raise UsageError(f"an address is a key, or a pair of a scope and a key, got {shown(address)}")
    return as_scope(address[0]), address[1]


def _place(at: Position | str | int) -> Position | int:
    """A position, or the number of an event. Raises `UsageError`."""
    if isinstance(at, int):
        return check_whole_number(at, "the sequence", least=1)
    return Position.parse(at)


class Workspace:
    """One workspace of a log; usable from every thread and event loop of the process."""

    def __init__(
        self,
        store: LogStore,
        name: str,
        *,
        settings: WorkspaceSettings | None = None,
        owns_store: bool = True,
        closes_dropped_store: bool = False,
        config: ClientConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Open the workspace `name` of a log that is open. Applications call `ccs_stream.connect` instead.

        Without `config` every option has its default; `settings`, where given, take the place of those in `config`. The
        log is closed with the workspace, unless `owns_store` is False; where the workspace is dropped, only with
        `closes_dropped_store`. Tests hand in a `clock` that they move by hand.
        """
        self.name = check_text(name, "a workspace's name", least=1)
        self.instance_id = str(uuid.uuid4())
        """The id of this connection in metric events, state log and content audit."""
        self._store = store
        self._closed = False
        self._what = f"the workspace {name!r} of {store.display_url}"
        if config is None:
            config = parse_options({}, of="Workspace")
        limits = config.settings if settings is None else settings
        self._chain = chain = ClosingChain(self._what)
        try:
            self.coordinator = coordinator = open_coordinator(
                store, name, settings_with(config.crash_recovery, limits), clock=clock
            )
            chain.add(lambda _: coordinator.close())
            self.engine = self._make_engine(config)
            config.check_leases(self.engine.state.settings)
            self.outbox = self._open_outbox(config.outbox)
            self.degraded_mode = self._degrade(clock) if config.degrades else None
            chain.add(functools.partial(_leave, coordinator, self.engine.session, self.degraded_mode))
            self._close_degraded_mode_with(chain)
            self.observers = self._observe(config)
            chain.add(self.observers.close)
            self._heartbeat = start_heartbeat(self.engine, clock)
            if self._heartbeat is not None:
                chain.add(self._heartbeat.close)
            self._sweeper = Sweeper(coordinator)
            chain.add(self._sweeper.stop)
        except BaseException:
            chain.close()
            raise
        if owns_store:
            chain.close_last(lambda _: store.close(), when_dropped=closes_dropped_store)
        chain.close_when_dropped(self.engine)

    def _make_engine(self, config: ClientConfig) -> Engine:
        store = self._store
        return Engine(
            self.coordinator,
            contents=ContentCache(store, self.name, bytes_max=config.body_cache_bytes),
            freshness=Freshness.parse(store.default_freshness) if config.freshness is None else config.freshness,
            rules=config.rules,
            identity=config.identity,
        )

    def _open_outbox(self, path: Path | None) -> Outbox | None:
        if path is None:
            return None
        if self._store.instantaneous:
            raise UsageError("outbox= keeps writes for a log that is away, and a log in memory cannot be")
        return Outbox(path, log_id=self._store.log_id, workspace=self.name)

    def _degrade(self, clock: Clock) -> DegradedMode:
        drainer = None if self.outbox is None else OutboxDrainer(self.outbox, self.coordinator)
        mode = DegradedMode(self._what, functools.partial(require_log, self.coordinator), drainer, clock=clock)
        engine = self.engine
        engine.degrade_with(LocalFallback(self.coordinator, engine.contents, engine.recorder, mode, self.outbox))
        mode.watch()
        return mode

    def _close_degraded_mode_with(self, chain: ClosingChain) -> None:
        outbox, mode = self.outbox, self.degraded_mode
        if outbox is not None:
            chain.add(lambda _: outbox.close())
        if mode is not None:
            chain.add(lambda timeout_s: mode.close(min(timeout_s, DEGRADED_CLOSE_S)))

    def _observe(self, config: ClientConfig) -> WorkspaceObservers:
        observers = WorkspaceObservers(
            self.engine,
            instance_id=self.instance_id,
            deliveries=config.deliveries,
            content_audit_log=config.content_audit_log,
            state_log=config.state_log,
            metrics=config.metrics,
        )
        if self.degraded_mode is not None and observers.metrics is not None:
            self.degraded_mode.on_change(observers.metrics.on_degraded)
        return observers

    def __repr__(self) -> str:
        return f"Workspace({self.name!r}, {self._store.display_url!r})"

    @property
    def adapter_port(self) -> AdapterPort:
        """The interface of this workspace for adapters to agent frameworks."""
        return self.engine

    def agent(self, name: str, *, conversation: str | None = None, generation: int | None = None) -> Agent:
        """An agent of this session. Agents join the log when they first act. Raises `UsageError` for an empty name.

        `conversation` names the model context that receives what the agent reads. `generation` rises when that context
        is summarised, trimmed or begun anew. Deliveries record both.
        """
        check_text(name, "an agent's name", least=1)
        if conversation is not None:
            check_text(conversation, "conversation", CONVERSATION_BYTES_MAX)
        if generation is not None:
            check_whole_number(generation, "generation")
        self._check_open()
        known = conversation is not None or generation is not None
        return Agent(self.engine, name, (conversation, generation) if known else None)

    # Several artifacts at once.

    def write_all(self, changes: Iterable[Put | Delete], *, agent: str) -> list[Written]:
        """Commit all changes or none, in one decision; one result a change.

        Raises what `Agent.compare_and_set` raises, for the first change that is refused.
        """
        return run(self.coordinator, self._write_all(list(changes), agent, self.engine.read_sets.current(agent)))

    def awrite_all(self, changes: Iterable[Put | Delete], *, agent: str) -> Coroutine[Any, Any, list[Written]]:
        """As `write_all`."""
        return run_async(self.coordinator, self._write_all(list(changes), agent, self.engine.read_sets.current(agent)))

    def _write_all(self, changes: list[Put | Delete], agent: str, read_set: ReadSet) -> Steps[list[Written]]:
        self._check_open()
        if not changes:
            return []
        check_text(agent, "an agent's name", least=1)
        for each in changes:
            if not isinstance(each, Put | Delete):
                raise UsageError(f"a change is a Put or a Delete, got {shown(each)}")
        encoded = [encode(each.value) if isinstance(each, Put) else None for each in changes]
        batch = self.engine.batch(agent, read_set)
        for each, content in zip(changes, encoded, strict=True):
            scope, expected = as_scope(each.scope), expected_version(each.expected)
            if isinstance(each, Delete) or content is None:
                batch.delete(scope, each.key, expected=expected, reason=each.reason)
            else:
                ttl_us = None if each.ttl_s is None else seconds_to_us(each.ttl_s, "ttl_s")
                batch.write(scope, each.key, *content, expected=expected, ttl_us=ttl_us, reason=each.reason)
        tick = self.engine.begin_call()
        return (yield from self.engine.writer.commit_steps(batch, f"write_all of {len(changes)} changes", tick))

    def read_all(
        self,
        addresses: Sequence[Address],
        *,
        agent: str | None = None,
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> list[Reading | None]:
        """Several artifacts as they stand at one position; takes no copies, so it appends nothing.

        With `agent`, that agent has read them in this flow, as far as guarded writes are concerned.
        """
        return run(self.coordinator, self._read_all(addresses, freshness, at_least, agent))

    def aread_all(
        self,
        addresses: Sequence[Address],
        *,
        agent: str | None = None,
        freshness: Freshness | str | None = None,
        at_least: Position | str | None = None,
    ) -> Coroutine[Any, Any, list[Reading | None]]:
        """As `read_all`."""
        return run_async(self.coordinator, self._read_all(addresses, freshness, at_least, agent))

    def _read_all(
        self,
        addresses: Sequence[Address],
        freshness: Freshness | str | None,
        at_least: Position | str | None,
        agent: str | None,
    ) -> Steps[list[Reading | None]]:
        self._check_open()
        if agent is not None:
            check_text(agent, "an agent's name", least=1)
        engine = self.engine
        tick = engine.begin_call()
        read_set = ReadSet() if agent is None else engine.read_sets.current(agent)
        yield from engine.reader.catch_up(None if freshness is None else Freshness.parse(freshness), at_least)
        address = engine.session.address
        ids = [address(*_address(each)) for each in addresses]
        requested = delivery_freshness(freshness, at_least)
        reads = [(ReadCall(agent, read_set, freshness=requested, tick=tick), artifact) for artifact in ids]
        found = yield from engine.reader.read_all_steps(reads)
        return [
            None if each is None else reading_of(each.state, each.content, each.position, stale=each.stale)
            for each in found
        ]

    # Looking around.

    def artifacts(self, *, scope: Scope = ()) -> list[tuple[Scope, str]]:
        """Addresses of what exists, under a scope prefix, sorted."""
        self._check_open()
        scope = check_scope(as_scope(scope))
        run(self.coordinator, self.engine.reader.catch_up(None, None))
        now, width = self.coordinator.now(), len(scope)
        with self.coordinator.lock:
            found = list(self.engine.state.artifacts.values())
        return sorted((each.scope, each.key) for each in found if each.readable(now) and each.scope[:width] == scope)

    def watch(self, *, scope: Scope = (), after: Position | str | None = None, values: bool = True) -> Watch:
        """Changes under a scope prefix as they are committed, from now or behind a position.

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            with workspace.watch(scope=("team",)) as changes:
                workspace.agent("planner").write("plan", {"step": 1}, scope=("team",))
                for change in changes:  # waits for the next change; `poll()` does not
                    print(change.key, change.version, change.value)  # plan 1 {'step': 1}
                    break
        ```

        Args:
            scope: The beginning of the scopes to watch; () for all.
            after: The position of the last change seen, to resume behind it; None for from now on.
            values: Whether changes carry the value written.

        Raises:
            LogDiverged: When `after` is of another log, or beyond its end.
            LogError: When the log cannot be read, and its kinds.

        """
        self._check_open()
        scope = check_scope(as_scope(scope))
        position = None if after is None else Position.parse(after)
        return Watch(self.coordinator, scope=scope, after=position, values=values, owner=self.engine)

    def as_of(self, at: Position | str | int) -> PastWorkspace:
        """The workspace as it was at a position (or sequence): read-only."""
        self._check_open()
        return PastWorkspace(self._store, self.name, _place(at), owner=self.engine)

    async def aas_of(self, at: Position | str | int) -> PastWorkspace:
        """As `as_of`."""
        return await self.coordinator.off_loop(lambda: self.as_of(at), long=True)

    @property
    def stale(self) -> bool:
        """True if the log cannot be reached now, so that the state may be older than it should be."""
        return self.engine.stale

    @property
    def is_degraded(self) -> bool:
        """True if reads come from what this process knows, and writes are refused or queued (`on_error="degrade"`)."""
        return self.degraded_mode is not None and self.degraded_mode.is_degraded

    @property
    def degradation_count(self) -> int:
        """How often the log failed a call, where `on_error="degrade"`."""
        return 0 if self.degraded_mode is None else self.degraded_mode.count

    def heartbeat(self) -> None:
        """Renew this session on the log, where the workspace has crash recovery. A background task does so, too.

        Raises the `LogError`s of the log.
        """
        self._check_open()
        run(self.coordinator, heartbeat_steps(self.engine))

    def recover(self, agent: str | None = None) -> None:
        """Have every copy that an agent (None: each of this session) holds fetched again before it is served.

        Raises `UsageError` for an agent that has not joined in this session.
        """
        self._check_open()
        recover(self.engine, agent)

    @property
    def position(self) -> Position:
        """The position up to which the log is folded here."""
        return self.coordinator.position

    def state_hash(self) -> str:
        """Hash of the whole folded state: equal wherever the same log was folded."""
        self._check_open()
        self.coordinator.catch_up()
        with self.coordinator.lock:
            return state_hash(self.engine.state)

    def sweep(self) -> int:
        """End now what has run out, instead of when a command meets it; returns how many events that took."""
        self._check_open()
        return self._sweeper.sweep()

    def start_sweeping(self, interval_s: float) -> "Future[None]":
        """Sweep every so many seconds, in a background task, until `stop_sweeping` or `close`.

        The future that is returned is done when sweeping has stopped.
        """
        self._check_open()
        interval_us = seconds_to_us(interval_s, "the interval of sweeps")
        return self._sweeper.start(interval_us / SECOND_US)

    def stop_sweeping(self, timeout_s: float = SWEEP_STOP_S) -> bool:
        """Stop what `start_sweeping` began; wait for a sweep that is under way. True if nothing sweeps any more."""
        return self._sweeper.stop(timeout_s)

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until what was read and written is recorded, counted and pushed; False when that takes longer."""
        return self.observers.flush(check_wait_s(timeout_s, "timeout_s"))

    def settle(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """The earlier name of `flush`."""
        return self.flush(timeout_s)

    def health(self) -> WorkspaceHealth:
        """The state of this workspace now: its threads, what waits in them, and how the log is reached. No I/O.

        ```python
        import ccs_stream

        with ccs_stream.connect() as workspace:
            workspace.agent("planner").write("plan", {"step": 1})
            health = workspace.health()
            print(health.sequence, health.stale, health.degraded)  # 4 False False
            print([worker.name for worker in health.workers if worker.failures])  # []
        ```
        """
        coordinator, mode = self.coordinator.health(), self.degraded_mode
        outbox = None if self.outbox is None or self._closed else self.outbox.counts
        tasks = [each.health() for each in (self._heartbeat, self._sweeper.task) if each is not None]
        return WorkspaceHealth(
            workspace=self.name,
            closed=self._closed,
            sequence=int(self.engine.state.sequence),
            stale=self.stale,
            degraded=self.is_degraded,
            degradation_count=self.degradation_count,
            last_error=None if mode is None or mode.last_error is None else str(mode.last_error),
            outbox_waiting=0 if outbox is None else outbox.waiting,
            outbox_conflicts=0 if outbox is None else outbox.conflicts,
            agents=tuple(self.engine.session.current.joined),
            coordinator=coordinator,
            workers=(
                *coordinator.workers,
                *self.observers.workers(),
                *([] if mode is None else mode.workers()),
                *tasks,
            ),
        )

    # What moved.

    def benchmark_summary(self) -> dict[str, Any]:
        """The tokens of the reads so far, under agent-coherence's keys and rules.

        `baseline_tokens`, `ccs_tokens`, `tokens_saved`, `token_reduction_pct`, `cache_hit_rate`, `n_operations`.
        Writes, searches and signals are free by these rules; `savings` counts them. Raises `UsageError` unless opened
        with `benchmark=True`.
        """
        return self._metrics().summary()

    def savings(self) -> TokenAccount:
        """All tokens that moved so far, by cause, agent and artifact, next to what re-reading would have moved.

        Raises `UsageError` unless opened with `benchmark=True`.
        """
        return self._metrics().account()

    def print_benchmark_summary(self) -> None:
        """Print `benchmark_summary` and `savings`, for people."""
        print_summary(self.benchmark_summary(), self.savings())

    def _metrics(self) -> OperationMetrics:
        metrics = self.observers.metrics
        if metrics is None:
            raise UsageError("nothing was counted: open it with benchmark=True")
        return metrics

    def deliveries(self) -> Iterator[DeliveryRecorded]:
        """Which agent was given what: the records of every process, in the order in which they were written.

        Waits a few seconds for the records of this process. Raises `CorruptRecord`, `UnknownSchema`.
        """
        self._check_open()
        self.observers.flush(FLUSH_TIMEOUT_S)
        return self._read_deliveries()

    def _read_deliveries(self) -> Iterator[DeliveryRecorded]:
        yield from map(decode_delivery, self._store.read_deliveries(self.name))

    # Leaving.

    def close(self) -> None:
        """Leave the log and let go of it: everything that is open is closed, also where a part raises.

        Closing twice is fine. A workspace that is dropped instead is closed in the background, with a
        `ResourceWarning`. At a normal end of the program open workspaces are closed, in ten seconds at most.
        """
        self._closed = True
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed.of_workspace(self.name)


def _leave(coordinator: Coordinator, session: CommandSession, mode: DegradedMode | None, timeout_s: float) -> None:
    """End the session. A courtesy: without it the session holds its grants until there are too many sessions."""
    current = session.current
    if not current.joined or coordinator.stale or (mode is not None and mode.is_degraded) or timeout_s <= 0:
        return
    leave = Leave(session_id=current.session_id, number=UNNUMBERED)
    with contextlib.suppress(CcsError):
        coordinator.execute(leave, current.numbers, timeout_s=min(timeout_s, LEAVE_TIMEOUT_S))
