"""LangGraph's puts and deletes as batches of changes.

Guarantees: the writes of a batch are one decision for each agent, all or none. The last put of a key wins. A value that
cannot be stored is refused before anything is appended. A lost update is warned of. Does not: read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langgraph.store.base import Op, PutOp

from ccs_stream.adapters.langgraph.identity import Addressing, CallContext
from ccs_stream.adapters.langgraph.namespaces import Namespace, check_writable, item_key
from ccs_stream.client.adapter_port import AdapterPort, Condition, Expected, Steps, WriteBatch
from ccs_stream.client.lost_updates import LostUpdateWarnings
from ccs_stream.client.results import Written
from ccs_stream.client.values import JSON, encode_json
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros, Scope, Version
from ccs_stream.protocol.limits import check_index_paths, check_whole_number, seconds_to_us, shown

_MINUTE_US: Final = 60_000_000
_ITEM_PARTS: Final = 3


class ItemWriter:
    """The writes of one store."""

    def __init__(self, port: AdapterPort, addressing: Addressing, *, guarded: bool) -> None:
        self._port = port
        self._addressing = addressing
        self._known = addressing.known
        self._expected = Condition.LAST_READ if guarded else Condition.NONE
        """The condition of a put that has none of its own."""
        self._warnings = LostUpdateWarnings("writes='guarded' refuses such puts")

    def put_known(self, namespace: Namespace, key: str, value: Any, index: Any, ttl_minutes: float | None) -> bool:
        """Put one item under an address used before, whose labels are checked; else do nothing and return False."""
        agent, scope, read_set = self._addressing.resolve(namespace)
        if (scope, key) not in self._known:
            return False
        tick = self._port.begin_call()
        batch = self._port.batch(agent, read_set)
        self._add(batch, namespace, scope, key, value, expected=self._expected, ttl_minutes=ttl_minutes, index=index)
        written = self._port.commit(batch, f"put by {agent!r}", tick)
        if written[0].overwrote_unseen:
            self._warnings.check(batch, written)
        return True

    def batches_of(self, ops: Sequence[Op], call: CallContext) -> list[WriteBatch]:
        """One batch for each agent, with the last put of each address.

        All values are encoded here, so that a bad one is refused before anything is appended.
        """
        last: dict[tuple[str, Scope, str], PutOp] = {}
        for op in ops:
            if isinstance(op, PutOp):
                agent, scope = self._addressing.split(op.namespace)
                self._addressing.warn_if_wrong(op.namespace)
                last[agent, scope, str(op.key)] = op  # checked with its operation
        batches: dict[str, WriteBatch] = {}
        for (agent, scope, key), op in last.items():
            batch = batches.get(agent)
            if batch is None:
                batch = batches[agent] = self._port.batch(agent, call.read_set(agent))
            self._add(
                batch,
                op.namespace,
                scope,
                key,
                op.value,
                expected=self._expected,
                ttl_minutes=op.ttl,
                index=op.index,
            )
            self._addressing.address(scope, key)
        return list(batches.values())

    def commit(self, batch: WriteBatch, tick: int, *, atomic: bool = True) -> Steps[list[Written]]:
        """Commit the changes of one agent, and warn of lost updates. `tick` is the number of the call."""
        puts = "put" if len(batch.changes) == 1 else f"{len(batch.changes)} puts"
        written = yield from self._port.commit_steps(batch, f"{puts} by {batch.agent!r}", tick, atomic=atomic)
        self._warnings.check(batch, written)
        return written

    def compare_and_set(
        self,
        namespace: Namespace,
        key: str,
        value: Any,
        *,
        expected: int | None,
        index: Any,
        ttl_minutes: float | None,
        reason: str | None,
        call: CallContext,
    ) -> Steps[int | None]:
        """Put, or delete with None, only over version `expected`; returns the new version."""
        agent, scope = self._addressing.split(check_writable(namespace))
        batch = self._port.batch(agent, call.read_set(agent))
        self._add(
            batch,
            namespace,
            scope,
            item_key(key),
            value,
            expected=None if expected is None else Version(check_whole_number(expected, "expected")),
            ttl_minutes=ttl_minutes,
            index=index,
            reason=reason,
        )
        written = yield from self.commit(batch, self._port.begin_call())
        return written[0].version

    def put_all(
        self,
        items: Sequence[tuple[Namespace, str, Mapping[str, Any] | None]],
        *,
        ttl_minutes: float | None,
        reason: str | None,
        call: CallContext,
    ) -> Steps[list[int | None]]:
        """Put or delete items in one decision; returns their versions. Raises `UsageError` for several agents."""
        if not items:
            return []
        given: Sequence[Any] = items
        for each in given:
            if not isinstance(each, tuple | list) or len(each) != _ITEM_PARTS:
                raise UsageError(f"an item of put_all is a namespace, a key and a value, got {shown(each)}")
        split = [self._addressing.split(check_writable(namespace)) for namespace, _, _ in items]
        if len({agent for agent, _ in split}) > 1:
            raise UsageError("put_all is one decision of one agent: these namespaces name several")
        agent = split[0][0]
        batch = self._port.batch(agent, call.read_set(agent))
        for (_, scope), (namespace, key, value) in zip(split, items, strict=True):
            self._add(
                batch,
                namespace,
                scope,
                item_key(key),
                value,
                expected=self._expected,
                ttl_minutes=ttl_minutes,
                reason=reason,
            )
        written = yield from self.commit(batch, self._port.begin_call())
        return [each.version for each in written]

    def _add(  # noqa: PLR0913  # the options of a put
        self,
        batch: WriteBatch,
        namespace: Namespace,
        scope: Scope,
        key: str,
        value: Any,
        *,
        expected: Expected,
        ttl_minutes: float | None = None,
        index: Any = None,
        reason: str | None = None,
    ) -> None:
        """Add a put, or with None a delete. Raises `UsageError`, `TooLarge`."""
        if value is None:
            batch.delete(scope, key, expected=expected, reason=reason, namespace=namespace)
            return
        batch.write(
            scope,
            key,
            JSON,
            encode_json(value),
            expected=expected,
            ttl_us=None if ttl_minutes is None else minutes_to_us(ttl_minutes),
            index_fields=None if index is None else _index_fields(index),
            reason=reason,
            namespace=namespace,
        )


def minutes_to_us(minutes: float) -> Micros:
    """A life in microseconds. Raises `UsageError`."""
    return seconds_to_us(minutes, "ttl", unit="minutes", unit_us=_MINUTE_US)


def _index_fields(index: Any) -> tuple[str, ...]:
    return () if index is False else check_index_paths(index)
