"""LangGraph's puts and deletes as commits: what a put asks for, and what came of it.

Guarantees: the writes of a batch are one decision for each agent, all or none; the last put of a key wins; a value that
cannot be stored is refused before anything is appended; a lost update is warned of. Does not: read.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

from langgraph.store.base import Op, PutOp

from ccs_stream.adapters.langgraph.identity import Addressing, CallContext, Namespace
from ccs_stream.adapters.langgraph.items import LostUpdateWarning
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.observers.metrics import NO_TIME, Address, OperationMetrics
from ccs_stream.client.operations.commit import PendingContent
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import Steps
from ccs_stream.client.results import Written
from ccs_stream.client.values import JSON, encode_json
from ccs_stream.protocol.commands import ArtifactChange, Erase, Write, WriteMode
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope, Version

_MINUTE_US: Final = 60_000_000
_WARNED_MAX: Final = 100_000
"""Artifacts whose lost updates have been warned of; beyond this the oldest may be warned of again."""


class WriteBatch:
    """What one agent writes in one decision."""

    __slots__ = ("addresses", "agent", "changes", "here", "outgoing")

    def __init__(self, agent: str, here: ReadSet) -> None:
        self.agent = agent
        self.here = here
        self.changes: list[ArtifactChange] = []
        self.outgoing: list[PendingContent] = []
        self.addresses: list[Address] = []
        """Where, one for each change."""

    def add(self, change: ArtifactChange, sent: PendingContent | None, address: Address) -> None:
        """One more."""
        self.changes.append(change)
        self.addresses.append(address)
        if sent is not None:
            self.outgoing.append(sent)


class Writes:
    """The writes of one store."""

    def __init__(
        self,
        engine: Engine,
        addressing: Addressing,
        caller: Callable[[], CallContext],
        *,
        guarded: bool,
        meter: OperationMetrics | None,
    ) -> None:
        """`caller` says who is calling now."""
        self.guarded = guarded
        self._caller = caller
        self._engine = engine
        self._addressing = addressing
        self._meter = meter
        self._warned: dict[ArtifactId, None] = {}

    def puts_of(self, ops: Sequence[Op], caller: CallContext) -> dict[str, WriteBatch]:
        """By agent, the last put of each address; values encoded, so that a bad one is refused before anything."""
        last: dict[tuple[str, Scope, str], PutOp] = {}
        for op in ops:
            if isinstance(op, PutOp):
                agent, scope = self._addressing.split(op.namespace)
                self._addressing.warn_if_wrong(op.namespace)
                last[agent, scope, str(op.key)] = op
        grouped: dict[str, WriteBatch] = {}
        inline_left = self._engine.state.settings.maximum_decision_bytes // 2
        for (agent, scope, key), op in last.items():
            puts = grouped.get(agent)
            if puts is None:
                puts = grouped[agent] = WriteBatch(agent, caller.scope(agent))
            change, sent = self.change_of(
                scope,
                key,
                op.value,
                puts.here,
                ttl_minutes=op.ttl,
                index=op.index,
                inline_left=inline_left,
                conditional=self.guarded,
            )
            puts.add(change, sent, (op.namespace, scope, key))
            if sent is not None:
                inline_left -= 0 if sent.uploaded else sent.content.size
        return grouped

    def change_of(  # noqa: PLR0913  # the options of a put
        self,
        scope: Scope,
        key: str,
        value: Any,
        here: ReadSet,
        *,
        inline_left: int,
        conditional: bool,
        expected: tuple[Version | None] | None = None,
        ttl_minutes: float | None = None,
        index: Any = None,
        reason: str | None = None,
    ) -> tuple[ArtifactChange, PendingContent | None]:
        """The change a put asks for; `value` None deletes. Raises `UsageError`, `TooLarge`."""
        artifact = self._engine.address(scope, key)
        mode = WriteMode.COMPARE_AND_SET if conditional or expected is not None else WriteMode.LAST_WRITER_WINS
        base = here.base(artifact) if expected is None else expected[0]
        fence = here.fences.get(artifact)
        if value is None:
            return Erase(artifact=artifact, mode=mode, base_version=base, fence=fence, reason=reason), None
        if ttl_minutes is not None and not ttl_minutes > 0:
            raise UsageError(f"ttl must be more than 0 minutes, got {ttl_minutes!r}")
        what = f"put of {key!r} in {scope!r}"
        sent = self._engine.prepare(JSON, encode_json(value), inline_left=inline_left, what=what)
        write = Write(
            artifact=artifact,
            scope=scope,
            key=key,
            content=sent.content,
            mode=mode,
            base_version=base,
            fence=fence,
            ttl_us=None if ttl_minutes is None else Micros(round(ttl_minutes * _MINUTE_US)),
            index_fields=_index_fields(index),
            reason=reason,
        )
        return write, sent

    def put_now(self, namespace: Namespace, key: str, value: Any, index: Any, ttl_minutes: float | None) -> bool:
        """One put in the calling thread, without a batch; False when it is not that simple and nothing was done."""
        if value is None or index is not None or ttl_minutes is not None:
            return False
        agent, scope = self._addressing.split(namespace)
        if (scope, key) not in self._engine.addresses:
            return False
        self._addressing.warn_if_wrong(namespace)
        here = self._caller().scope(agent)
        inline_left = self._engine.state.settings.maximum_decision_bytes // 2
        change, sent = self.change_of(scope, key, value, here, inline_left=inline_left, conditional=self.guarded)
        tick = self._engine.copies.tick()
        written = self._commit_now(agent, change, here, sent, (namespace, scope, key), tick)
        if written is None:
            return False
        self._warn_of_loss(agent, change, written)
        return True

    def _commit_now(
        self,
        agent: str,
        change: ArtifactChange,
        here: ReadSet,
        sent: PendingContent | None,
        address: Address,
        tick: int,
    ) -> Written | None:
        """The commit of `put_now`, metered; None where it is not that simple."""
        meter, engine, what = self._meter, self._engine, f"put by {agent!r}"
        if meter is None:
            return engine.commit_now(agent, change, here, sent, what)
        if meter.links and (agent not in engine.session.joined or engine.fallback is not None or _is_uploaded(sent)):
            return None  # as `commit_now` would say, but with nothing begun in vain
        began_at = meter.now()
        begun = meter.begin(agent, (address,), (change,))
        try:
            written = engine.commit_now(agent, change, here, sent, what)
        except BaseException as error:
            meter.failed(begun, error)
            raise
        if written is not None:  # else the session was lost: what was begun is nowhere, and what never ends is not told
            sents = () if sent is None else (sent,)
            meter.wrote(agent, (address,), (change,), sents, written.answer, tick=tick, began_at=began_at, begun=begun)
        return written

    def commit(self, puts: WriteBatch, tick: int, *, atomic: bool = True) -> Steps[list[Written]]:
        """Commit the changes of one agent, and warn of lost updates. `tick` is the number of the call."""
        agent, changes = puts.agent, puts.changes
        what = "put" if len(changes) == 1 else f"{len(changes)} puts"
        meter = self._meter
        began_at = NO_TIME if meter is None else meter.now()
        begun = () if meter is None else meter.begin(agent, puts.addresses, changes)
        try:
            written = yield from self._engine.commit(
                agent, changes, puts.here, f"{what} by {agent!r}", puts.outgoing, atomic=atomic
            )
        except BaseException as error:  # given up by its caller, too: then nobody knows what came of it
            if meter is not None:
                meter.failed(begun, error)
            raise
        if meter is not None:
            answer, queued, addresses = written[0].answer, written[0].queued is not None, puts.addresses
            meter.wrote(
                agent,
                addresses,
                changes,
                puts.outgoing,
                answer,
                tick=tick,
                began_at=began_at,
                queued=queued,
                begun=begun,
            )
        for change, each in zip(changes, written, strict=True):
            self._warn_of_loss(agent, change, each)
        return written

    def _warn_of_loss(self, agent: str, change: ArtifactChange, written: Written) -> None:
        """Warn, once for each artifact, where a version was replaced that the author had not seen."""
        if not written.overwrote_unseen or type(change) is not Write or change.artifact in self._warned:
            return
        if len(self._warned) >= _WARNED_MAX:
            del self._warned[next(iter(self._warned))]
        self._warned[change.artifact] = None
        read = "never read it" if written.base_version is None else f"had read version {written.base_version}"
        replaced = (written.version or 1) - 1
        warnings.warn(
            f"{agent!r} replaced version {replaced} of {change.key!r} in {change.scope!r}, and {read}: what that "
            "version said may be lost. It is on the log; writes='guarded' refuses such puts. "
            "(Said once for each artifact.)",
            LostUpdateWarning,
            stacklevel=2,
        )


def _is_uploaded(sent: PendingContent | None) -> bool:
    return sent is not None and sent.uploaded


def _index_fields(index: Any) -> tuple[str, ...] | None:
    if index is None:
        return None
    if index is False:
        return ()
    if not isinstance(index, list | tuple) or not all(type(path) is str for path in index):
        raise UsageError(f"index is None, False or a list of paths, got {index!r}")
    return tuple(index)
