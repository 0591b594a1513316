"""What the store can do that LangGraph's interface has no word for.

Guarantees: guarded writes, several items in one decision or at one position, reservations, histories, watching, and
what moved; each in a sync and an async form of one implementation. Does not: open or close anything; the store does.
"""

import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal

from langgraph.store.base import NOT_PROVIDED, NotProvided, TTLConfig

from ccs_stream.adapters.langgraph.identity import CallContext, Namespace
from ccs_stream.adapters.langgraph.items import CoherentItem
from ccs_stream.adapters.langgraph.operations import Operations
from ccs_stream.adapters.langgraph.writes import WriteBatch
from ccs_stream.client.agent import RESERVATION_LIMIT_S, seconds_to_us
from ccs_stream.client.degraded.outbox import Outbox
from ccs_stream.client.history import Watch, history
from ccs_stream.client.observers.metrics import OperationMetrics, print_summary
from ccs_stream.client.operations.reservation import Reservation
from ccs_stream.client.operations.steps import Steps, in_background, run, run_async
from ccs_stream.client.results import Change, Written
from ccs_stream.client.workspace import SETTLE_S, Workspace
from ccs_stream.log.port import Position
from ccs_stream.projections.savings import TokenAccount
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Version


class StoreExtensions:
    """See the module's docstring. Part of `CoherentStore`."""

    ttl_config: TTLConfig | None
    _workspace: Workspace
    _operations: Operations
    _meter: OperationMetrics | None

    @property
    def is_degraded(self) -> bool:
        """Whether reads come from what is known here, and writes are refused or queued; see `on_error="degrade"`."""
        return self._workspace.is_degraded

    @property
    def degradation_count(self) -> int:
        """How often the log failed somebody here, where `on_error="degrade"`."""
        return self._workspace.degradation_count

    @property
    def outbox(self) -> Outbox | None:
        """What waits for a log that cannot be used, and what was refused when it came back."""
        return self._workspace.outbox

    def heartbeat(self) -> None:
        """Tell the log that this process is alive, where it has crash recovery. It is told by itself, too."""
        self._workspace.heartbeat()

    def recover(self, agent_name: str | None = None) -> None:
        """Have every copy that an agent (None: each of this store) holds fetched again before it is served."""
        self._workspace.recover(agent_name)

    def settle(self, timeout_s: float = SETTLE_S) -> bool:
        """Wait until what was read and written is counted, told, recorded and pushed; False when that takes longer."""
        deadline = time.monotonic() + timeout_s
        if not self._workspace.settle(timeout_s):
            return False
        return self._meter is None or self._meter.settle(deadline - time.monotonic())

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
        caller = self._operations.caller()
        steps = self._compare_and_set(namespace, key, value, expected, index, ttl, reason, caller)
        return run(self._workspace.coordinator, steps)

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
        caller = self._operations.caller()
        steps = self._compare_and_set(namespace, key, value, expected, index, ttl, reason, caller)
        return run_async(self._workspace.coordinator, steps)

    def _compare_and_set(  # the options of a put
        self,
        namespace: Namespace,
        key: str,
        value: Any,
        expected: int | None,
        index: Any,
        ttl: Any,
        reason: str | None,
        caller: CallContext,
    ) -> Steps[int | None]:
        operations = self._operations
        agent, scope = operations.addressing.split(tuple(namespace))
        here = caller.scope(agent)
        change, sent = operations.writes.change_of(
            scope,
            str(key),
            value,
            here,
            inline_left=self._workspace.engine.state.settings.maximum_decision_bytes // 2,
            conditional=True,
            expected=(None if expected is None else Version(expected),),
            ttl_minutes=self._ttl_minutes(ttl),
            index=index,
            reason=reason,
        )
        puts = WriteBatch(agent, here)
        puts.add(change, sent, (tuple(namespace), scope, str(key)))
        written = yield from operations.writes.commit(puts, operations.engine.copies.tick())
        return written[0].version

    def put_all(
        self, items: Iterable[tuple[Namespace, str, Mapping[str, Any] | None]], *, reason: str | None = None
    ) -> list[int | None]:
        """Put (or delete, with None) several items in one decision, all or none; returns their versions.

        All must be of one agent. Guarded where the store is.
        """
        return run(self._workspace.coordinator, self._put_all(list(items), reason, self._operations.caller()))

    def aput_all(
        self, items: Iterable[tuple[Namespace, str, Mapping[str, Any] | None]], *, reason: str | None = None
    ) -> Coroutine[Any, Any, list[int | None]]:
        """As `put_all`."""
        return run_async(self._workspace.coordinator, self._put_all(list(items), reason, self._operations.caller()))

    def _put_all(
        self, items: Sequence[tuple[Namespace, str, Mapping[str, Any] | None]], reason: str | None, caller: CallContext
    ) -> Steps[list[int | None]]:
        operations = self._operations
        if not items:
            return []
        split = [operations.addressing.split(tuple(namespace)) for namespace, _, _ in items]
        if len({agent for agent, _ in split}) > 1:
            raise UsageError("put_all is one decision of one agent: these namespaces name several")
        agent = split[0][0]
        puts = WriteBatch(agent, caller.scope(agent))
        inline_left = self._workspace.engine.state.settings.maximum_decision_bytes // 2
        for (_, scope), (namespace, key, value) in zip(split, items, strict=True):
            change, sent = operations.writes.change_of(
                scope,
                str(key),
                value,
                puts.here,
                inline_left=inline_left,
                conditional=operations.writes.guarded,
                ttl_minutes=self._ttl_minutes(NOT_PROVIDED),
                reason=reason,
            )
            puts.add(change, sent, (tuple(namespace), scope, str(key)))
            if sent is not None:
                inline_left -= 0 if sent.uploaded else sent.content.size
        written: list[Written] = yield from operations.writes.commit(puts, operations.engine.copies.tick())
        return [each.version for each in written]

    def get_all(self, addresses: Sequence[tuple[Namespace, str]]) -> list[CoherentItem | None]:
        """Several items as they stand at one position of the log. Takes no copies, so it appends nothing."""
        return run(self._workspace.coordinator, self._operations.get_all(addresses, self._operations.caller()))

    def aget_all(self, addresses: Sequence[tuple[Namespace, str]]) -> Coroutine[Any, Any, list[CoherentItem | None]]:
        """As `get_all`."""
        return run_async(self._workspace.coordinator, self._operations.get_all(addresses, self._operations.caller()))

    def acquire(
        self, namespace: Namespace, key: str, *, limit_s: float = RESERVATION_LIMIT_S, wait_s: float = 0.0
    ) -> Reservation:
        """The exclusive right to write an item for `limit_s`, entered with `with` or `async with`.

        Entering waits up to `wait_s` and raises `Reserved`; leaving raises `Reclaimed` when the time was over.
        """
        agent, scope = self._operations.addressing.split(tuple(namespace))
        return Reservation(
            self._workspace.engine,
            agent,
            scope,
            str(key),
            duration=seconds_to_us(limit_s, "limit_s"),
            wait_s=wait_s,
            holder=self._operations.caller().scope(agent),
        )

    def history(self, namespace: Namespace, key: str, *, limit: int | None = None, values: bool = True) -> list[Change]:
        """The versions there were, newest first: who wrote them, over what, why, and their values."""
        self._workspace.coordinator.catch_up()
        return self._history(namespace, key, limit, values=values)

    async def ahistory(
        self, namespace: Namespace, key: str, *, limit: int | None = None, values: bool = True
    ) -> list[Change]:
        """As `history`."""
        return await in_background(
            self._workspace.coordinator, lambda: self._history(namespace, key, limit, values=values)
        )

    def _history(self, namespace: Namespace, key: str, limit: int | None, *, values: bool) -> list[Change]:
        _, scope = self._operations.addressing.split(tuple(namespace))
        artifact = self._workspace.engine.address(scope, str(key))
        return history(self._workspace.coordinator, artifact, limit=limit, values=values)

    def watch(
        self, namespace_prefix: Namespace = (), *, after: Position | str | None = None, values: bool = True
    ) -> Watch:
        """Changes under a namespace prefix as they are admitted; iterate with `for` or `async for`."""
        _, scope = self._operations.addressing.prefix(tuple(namespace_prefix))
        return self._workspace.watch(scope=scope, after=after, values=values)

    # What moved.

    def benchmark_summary(self) -> dict[str, Any]:
        """Tokens of the reads so far, under agent-coherence's keys and rules.

        `baseline_tokens`, `ccs_tokens`, `tokens_saved`, `token_reduction_pct`, `cache_hit_rate`, `n_operations`.
        Writes, searches and signals are free by these rules; `savings` counts them. Raises `UsageError` unless opened
        with `benchmark=True`.
        """
        return self._metering().summary()

    def savings(self) -> TokenAccount:
        """All tokens that moved so far, by cause, agent and artifact, next to what re-reading would have moved.

        Raises `UsageError` unless opened with `benchmark=True`.
        """
        return self._metering().account()

    def print_benchmark_summary(self) -> None:
        """Print `benchmark_summary` and `savings`."""
        print_summary(self.benchmark_summary(), self.savings())

    def _metering(self) -> OperationMetrics:
        if self._meter is None:
            raise UsageError("nothing was counted: open the store with benchmark=True")
        return self._meter

    def _ttl_minutes(self, ttl: float | NotProvided | None) -> float | None:
        if ttl is NOT_PROVIDED or isinstance(ttl, NotProvided):
            return self.ttl_config.get("default_ttl") if self.ttl_config else None
        return ttl
