"""What a store tells of its reads and writes: metric events, and the two accounts of savings.

Guarantees: a read or write never waits for any of it and never hears of its errors; events are numbered in the order in
which the store saw them, and told in that order. Does not: keep anything across restarts; the log does that.
"""

import collections
import dataclasses
import functools
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, assert_never

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.observers.background_call import BackgroundCall
from ccs_stream.client.observers.telemetry import LookUp, Telemetry
from ccs_stream.client.observers.token_counter import CountTokens as CountTokens  # noqa: PLC0414  # what a store takes
from ccs_stream.client.observers.token_counter import Tokens, check_counter
from ccs_stream.client.operations.commit import PendingContent
from ccs_stream.clock import wall_clock
from ccs_stream.coordinator.answer import Answer
from ccs_stream.projections.metric_events import SCHEMA_VERSION, ObservedOperation, StoreMetricEvent
from ccs_stream.projections.savings import MovementCause, Savings, TokenAccount, TokenMovement, signals
from ccs_stream.protocol.commands import ArtifactChange, Write
from ccs_stream.protocol.errors import CcsError, UsageError
from ccs_stream.protocol.events import ArtifactDeleted, Event, GrantsInvalidated, WriteCommitted
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Micros, ParticipantNumber, Scope, SequenceNumber, Version

SETTLE_S: Final = 30.0
"""How long a summary waits for what is still being counted."""
FAREWELL_S: Final = 2.0
"""How long closing waits for each listener."""

NO_TIME: Final = Micros(0)
Address = tuple[tuple[str, ...], Scope, str]
"""Namespace, as it was asked for; scope and key."""


@dataclasses.dataclass(slots=True)
class _Read:
    """A value that was handed out, before its tokens are counted."""

    operation: str
    agent: str
    address: Address
    artifact: ArtifactId
    body: CachedContent
    sequence: SequenceNumber
    hit: bool
    tick: int
    began_at: Micros
    number: int
    traced: "_Traced | None"


@dataclasses.dataclass(slots=True)
class _Traced:
    """What telemetry wants besides."""

    captured: object
    ended_at: Micros


@dataclasses.dataclass(slots=True)
class _Wrote:
    """Writes and deletes of one decision."""

    operation: str
    agent: str
    addresses: Sequence[Address]
    changes: Sequence[ArtifactChange]
    outgoing: Sequence[PendingContent]
    answer: Answer
    tick: int
    began_at: Micros
    number: int
    """Of the first write; the others follow."""
    traced: _Traced | None
    begun: Sequence[object | None]
    """What telemetry has begun: nothing, or one thing for each write."""


@dataclasses.dataclass(slots=True)
class _Pushed:
    """A value that was handed out unasked."""

    agent: str
    scope: Scope
    key: str
    body: CachedContent


class OperationMetrics:
    """See the module's docstring. One for a store."""

    def __init__(
        self,
        *,
        benchmark: bool,
        on_metric: Callable[[StoreMetricEvent], object] | None,
        count_tokens: CountTokens | None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.instance_id = str(uuid.uuid4())
        """Of the store; it may be given another, that of its workspace."""
        self._benchmark = benchmark
        self._savings = Savings()
        self._told = None if on_metric is None else BackgroundCall("on_metric", on_metric)
        self._telemetry = telemetry
        self.links = telemetry is not None and telemetry.links
        """Whether telemetry links reads to writes."""
        self.look_up: LookUp | None = None
        """How it finds writes of others; given by the store."""
        self._counting: BackgroundCall[_Read | _Wrote | _Pushed] = BackgroundCall("counting of tokens", self._count)
        self._tokens = Tokens(count_tokens)
        self._next = 1
        """Number of the next event."""
        self._lock = threading.Lock()

    @property
    def uncounted(self) -> int:
        """Values whose tokens `count_tokens` could not tell."""
        return self._tokens.uncounted

    def now(self) -> Micros:
        """Microseconds since 1970, where somebody wants to know how long things take; else 0."""
        return wall_clock() if self._telemetry is not None else Micros(0)

    def read(  # noqa: PLR0913  # what is known of it
        self,
        operation: str,
        agent: str,
        address: Address,
        artifact: ArtifactId,
        body: CachedContent,
        sequence: SequenceNumber,
        *,
        hit: bool,
        tick: int,
        began_at: Micros = NO_TIME,
    ) -> None:
        """Somebody was handed a value, which was current at `sequence`; `hit` where a current copy was held."""
        traced = self._trace()
        with self._lock:  # what is numbered first is told first
            number = self._next
            self._next = number + 1
            seen = _Read(operation, agent, address, artifact, body, sequence, hit, tick, began_at, number, traced)
            self._counting.give(seen)

    def wrote(  # noqa: PLR0913  # as above
        self,
        agent: str,
        addresses: Sequence[Address],
        changes: Sequence[ArtifactChange],
        outgoing: Sequence[PendingContent],
        answer: Answer,
        *,
        tick: int,
        began_at: Micros = NO_TIME,
        queued: bool = False,
        begun: Sequence[object | None] = (),
    ) -> None:
        """Somebody wrote or deleted, in one decision; or (`queued`) will have, once the log is back.

        `begun` is what `begin` returned.
        """
        traced = self._trace() if any(type(change) is Write for change in changes) else None
        with self._lock:
            operation = "degraded" if queued else "put"
            number = self._next
            seen = _Wrote(operation, agent, addresses, changes, outgoing, answer, tick, began_at, number, traced, begun)
            self._next += sum(type(change) is Write for change in changes)
            self._counting.give(seen)

    def begin(
        self, agent: str, addresses: Sequence[Address], changes: Sequence[ArtifactChange]
    ) -> Sequence[object | None]:
        """Somebody is about to commit: have each write carry the trace of what telemetry begins for it."""
        telemetry = self._telemetry
        if telemetry is None or not self.links:
            return ()
        begun: list[object | None] = []
        for change, (namespace, _, key) in zip(changes, addresses, strict=True):
            if type(change) is Write:
                one = telemetry.begin_write(agent, namespace, key, change.artifact)
                change.trace_parent = None if one is None else telemetry.trace_parent_of(one)
                begun.append(one)
        return begun

    def failed(self, begun: Sequence[object | None], error: BaseException) -> None:
        """The commit that was about to be raised."""
        for each in begun:
            if each is not None and self._telemetry is not None:
                self._telemetry.failed_write(each, error)

    def pushed(self, agent: str, scope: Scope, key: str, body: CachedContent) -> None:
        """Somebody was handed a value without having asked, because another wrote it."""
        self._counting.give(_Pushed(agent, scope, key, body))

    def _trace(self) -> _Traced | None:
        if self._telemetry is None:
            return None
        return _Traced(self._telemetry.capture(), wall_clock())

    def summary(self) -> dict[str, Any]:
        """See `CoherentStore.benchmark_summary`."""
        self._require_benchmark()
        return self._savings.benchmark()

    def account(self) -> TokenAccount:
        """See `CoherentStore.savings`."""
        self._require_benchmark()
        return self._savings.account()

    def settle(self, timeout_s: float) -> bool:
        """Wait until all is counted and told; False when that takes longer."""
        telling = (self._counting, self._told, self._telemetry)
        deadline = time.monotonic() + timeout_s
        return all(each.settle(max(0.0, deadline - time.monotonic())) for each in telling if each is not None)

    def degraded(self, degraded: bool) -> None:  # noqa: FBT001  # a listener
        """The store began, or ceased, to answer without its log."""
        if self._telemetry is not None:
            self._telemetry.degraded(degraded=degraded)

    def close(self) -> None:
        """Tell what is left."""
        self._counting.close(FAREWELL_S)
        if self._told is not None:
            self._told.close(FAREWELL_S)
        if self._telemetry is not None:
            self._telemetry.close(FAREWELL_S)

    def _require_benchmark(self) -> None:
        if not self._benchmark:
            raise UsageError("nothing was counted: open the store with benchmark=True")
        if not self._counting.settle(SETTLE_S):
            raise CcsError(f"counting tokens is more than {SETTLE_S:g} s behind: is count_tokens slow?")
        if self._counting.dropped:
            said = f"{self._counting.dropped} reads and writes came faster than they were counted, and are missing"
            warnings.warn(f"{said}: is count_tokens slow?", UserWarning, stacklevel=3)

    def _count(self, seen: _Read | _Wrote | _Pushed) -> None:
        match seen:
            case _Read():
                cause = (
                    MovementCause.SEARCH
                    if seen.operation == "search.hit"
                    else MovementCause.HIT
                    if seen.hit
                    else MovementCause.MISS
                )
                event = self._count_value(seen, cause, seen.address, seen.body.body, seen.number)
                self._observe(event, seen.artifact, seen.body.version, seen.sequence, seen, self._written_by(seen))
            case _Wrote():
                self._count_writes(seen)
            case _Pushed():
                if self._benchmark:
                    tokens = self._tokens.of(seen.body.body)
                    moved = TokenMovement(
                        cause=MovementCause.PUSH, agent=seen.agent, scope=seen.scope, key=seen.key, full=tokens
                    )
                    self._savings.add(moved)
            case _:
                assert_never(seen)

    def _count_writes(self, seen: _Wrote) -> None:
        bodies = {id(each.content): each.body for each in seen.outgoing}
        events = seen.answer.events
        told = _told(events)
        versions = {event.artifact: event.version for event in events if type(event) is WriteCommitted}
        begun = iter(seen.begun)
        number = seen.number
        for change, address in zip(seen.changes, seen.addresses, strict=True):
            if type(change) is Write:
                body = bodies[id(change.content)]
                event = self._count_value(seen, MovementCause.WRITE, address, body, number)
                version = versions.get(change.artifact)
                self._observe(event, change.artifact, version, seen.answer.last_sequence, seen, begun=next(begun, None))
                number += 1
            if self._benchmark and told[change.artifact]:
                _, scope, key = address
                self._savings.add(signals(seen.agent, scope, key, told[change.artifact]))

    def _count_value(
        self, seen: _Read | _Wrote, cause: MovementCause, address: Address, body: bytes, number: int
    ) -> StoreMetricEvent | None:
        """Count a value, and tell of it; the event, where anybody wants one."""
        namespace, scope, key = address
        moved = TokenMovement(cause=cause, agent=seen.agent, scope=scope, key=key, full=self._tokens.of(body))
        if self._benchmark:
            self._savings.add(moved)
        if self._told is None and self._telemetry is None:
            return None
        hit = cause is MovementCause.HIT
        event = StoreMetricEvent(
            operation=seen.operation,
            namespace=namespace,
            key=key,
            agent_name=seen.agent,
            tokens_consumed=moved.tokens,
            cache_hit=hit,
            tick=seen.tick,
            tokens_saved_estimate=max(0, moved.full - moved.tokens) if hit else 0,
            sequence_number=number,
            instance_id=self.instance_id,
            schema_version=SCHEMA_VERSION,
        )
        if self._told is not None:
            self._told.give(event)
        return event

    def _observe(
        self,
        event: StoreMetricEvent | None,
        artifact: ArtifactId,
        version: Version | None,
        sequence: SequenceNumber,
        seen: _Read | _Wrote,
        written_by: Callable[[], str | None] | None = None,
        begun: object | None = None,
    ) -> None:
        """Tell whoever exports telemetry."""
        if self._telemetry is None or event is None or seen.traced is None:
            return
        ended = seen.traced.ended_at
        observed = ObservedOperation(
            event=event,
            artifact=artifact,
            version=version,
            sequence=sequence,
            began_at=seen.began_at or ended,
            ended_at=ended,
            written_by=written_by,
        )
        self._telemetry.give(observed, seen.traced.captured if begun is None else begun)

    def _written_by(self, seen: _Read) -> Callable[[], str | None] | None:
        """Finds the write whose version was read; None where nobody asks, or the log cannot be asked."""
        if not self.links or self.look_up is None or seen.operation == "degraded":
            return None
        return functools.partial(self.look_up, seen.artifact, seen.body.version, seen.body.sequence)


def _told(events: Sequence[Event]) -> collections.Counter[ArtifactId]:
    """By artifact, the others who are told that their copy is not current any more. Who deletes knows."""
    told: collections.Counter[ArtifactId] = collections.Counter()
    deleted_by: dict[ArtifactId, ParticipantNumber] = {}
    for event in events:
        if type(event) is ArtifactDeleted:
            deleted_by[event.artifact] = event.participant
        elif type(event) is GrantsInvalidated:
            holders = {*event.sharers, event.owner} - {NOBODY, deleted_by.get(event.artifact, NOBODY)}
            told[event.artifact] += len(holders)
    return told


def metrics_of(
    *, benchmark: Any, on_metric: Any, count_tokens: Any, telemetry: Telemetry | None = None
) -> OperationMetrics | None:
    """What was asked for; None for nothing. Raises `UsageError` for what cannot work."""
    if type(benchmark) is not bool:
        raise UsageError(f"benchmark is True or False, got {benchmark!r}")
    if on_metric is not None and not callable(on_metric):
        raise UsageError(f"on_metric is a function that takes a StoreMetricEvent, got {on_metric!r}")
    if count_tokens is not None:
        check_counter(count_tokens)
    if not benchmark and on_metric is None and telemetry is None:
        if count_tokens is not None:
            raise UsageError(
                "count_tokens counts for benchmark=True, on_metric=... or telemetry=...: say one of them, too"
            )
        return None
    return OperationMetrics(benchmark=benchmark, on_metric=on_metric, count_tokens=count_tokens, telemetry=telemetry)


def print_summary(summary: dict[str, Any], account: TokenAccount) -> None:
    """Both accounts, for people, on stdout."""
    lines = (
        ("reads", f"{summary['n_operations']:,}"),
        ("hit rate", f"{summary['cache_hit_rate']:.3f}"),
        ("tokens of re-reading", f"{summary['baseline_tokens']:,}"),
        ("tokens of reads", f"{summary['ccs_tokens']:,}"),
        ("saved", f"{summary['tokens_saved']:,} ({summary['token_reduction_pct']} %)"),
        ("all that moved", f"{account.moved:,} of {account.baseline:,} ({account.saved_pct} % less)"),
        ("by cause", ", ".join(f"{cause} {tokens:,}" for cause, tokens in account.by_cause.items()) or "nothing"),
    )
    for name, value in lines:
        sys.stdout.write(f"{name:<21} {value}\n")
