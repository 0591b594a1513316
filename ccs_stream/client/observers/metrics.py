"""Operation metrics: metric events, telemetry, and the two accounts of savings, from reads and writes.

A workspace has them where `benchmark=True`, `on_metric=` or `telemetry=` asks for them.

Guarantees: a read or write never waits for any of it and never hears of its errors. Events are numbered in the order in
which the workspace saw the operations, and told in that order. Does not: keep anything across restarts; the log does.

How: the queue `ccs-metrics` counts tokens; the queues `ccs-on-metric` and `ccs-telemetry` call the listeners. A slow
listener delays nobody but itself.
"""

import collections
import dataclasses
import functools
import math
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, assert_never

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.delivery import NO_TIME, Address, ReadCall
from ccs_stream.client.caller_warning import warn_caller
from ccs_stream.client.observers.telemetry import Exporter, FindTrace, Telemetry, exporter_of
from ccs_stream.client.observers.token_counter import CountTokens, TokenCounter, check_counter
from ccs_stream.client.operations.changes import WriteBatch
from ccs_stream.clock import SYSTEM_CLOCK, Deadline
from ccs_stream.coordinator.answer import Answer
from ccs_stream.projections.metric_events import SCHEMA_VERSION, ObservedOperation, StoreMetricEvent
from ccs_stream.projections.savings import MovementCause, Savings, TokenAccount, TokenMovement, signals
from ccs_stream.protocol.commands import Write
from ccs_stream.protocol.errors import CcsError, UsageError
from ccs_stream.protocol.events import ArtifactDeleted, Event, GrantsInvalidated, WriteCommitted
from ccs_stream.protocol.ids import NOBODY, ArtifactId, Micros, ParticipantNumber, Scope, SequenceNumber, Version
from ccs_stream.protocol.limits import shown

SUMMARY_TIMEOUT_S: Final = 30.0
"""How long a summary waits for what is still being counted."""
WAITING_MAX: Final = 100_000
"""Operations that may wait to be counted; some 50 MB. Later ones are dropped, and missing from the accounts."""
CLOSE_TIMEOUT_S: Final = 2.0
"""How long closing waits for each listener."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """The options of metrics, checked."""

    benchmark: bool
    on_metric: Callable[[StoreMetricEvent], object] | None
    count_tokens: CountTokens | None
    exporter: Exporter | None

    @classmethod
    def parse(
        cls, *, benchmark: Any = False, on_metric: Any = None, count_tokens: Any = None, telemetry: Any = None
    ) -> "MetricsOptions | None":
        """The options, or None where nothing is to be measured. Raises `UsageError` for what cannot work."""
        if type(benchmark) is not bool:
            raise UsageError(f"benchmark is True or False, got {shown(benchmark)}")
        if on_metric is not None and not callable(on_metric):
            raise UsageError(f"on_metric is a function that takes a StoreMetricEvent, got {shown(on_metric)}")
        if count_tokens is not None:
            check_counter(count_tokens)
        exporter = exporter_of(telemetry)
        if not benchmark and on_metric is None and exporter is None:
            if count_tokens is not None:
                raise UsageError(
                    "count_tokens counts for benchmark=True, on_metric=... or telemetry=...: say one of them, too"
                )
            return None
        return cls(benchmark=benchmark, on_metric=on_metric, count_tokens=count_tokens, exporter=exporter)


@dataclasses.dataclass(slots=True)
class _Captured:
    """The caller's context and the end of the operation, for telemetry."""

    context: object
    ended_at: Micros


@dataclasses.dataclass(slots=True)
class _ReadSeen:
    """A value that was handed out, before its tokens are counted."""

    operation: str
    agent: str
    address: Address
    artifact: ArtifactId
    content: CachedContent
    sequence: SequenceNumber
    hit: bool
    tick: int
    began_at: Micros
    number: int
    captured: _Captured | None


@dataclasses.dataclass(slots=True)
class _WriteSeen:
    """The writes and deletes of one decision, before their tokens are counted."""

    operation: str
    agent: str
    batch: WriteBatch
    answer: Answer
    tick: int
    began_at: Micros
    number: int
    """Number of the first write; the others follow."""
    captured: _Captured | None
    begun: Sequence[object | None]
    """Returned by `begin`: nothing, or one thing for each write."""


@dataclasses.dataclass(slots=True)
class _PushSeen:
    """A value that was handed out unasked."""

    agent: str
    scope: Scope
    key: str
    content: CachedContent


class OperationMetrics:
    """The metrics of one workspace; a `ReadObserver` and a `WriteObserver`."""

    def __init__(self, options: MetricsOptions, *, instance_id: str, find_trace: FindTrace) -> None:
        self._instance_id = instance_id
        self._find_trace = find_trace
        self._benchmark = options.benchmark
        self._savings = Savings()
        on_metric, exporter = options.on_metric, options.exporter
        self._listener = None if on_metric is None else BackgroundQueue.for_each("on-metric", on_metric)
        self._telemetry = None if exporter is None else Telemetry(exporter)
        self._links = self._telemetry is not None and self._telemetry.links
        """True if telemetry links reads to writes."""
        self._counting: BackgroundQueue[_ReadSeen | _WriteSeen | _PushSeen]
        self._counting = BackgroundQueue.for_each("metrics", self._count, waiting_max=WAITING_MAX)
        self._tokens = TokenCounter(options.count_tokens)
        self._next_number = 1
        self._lock = threading.Lock()

    @property
    def uncounted(self) -> int:
        """Values whose tokens `count_tokens` could not tell."""
        return self._tokens.uncounted

    def now(self) -> Micros:
        """Microseconds since 1970, where telemetry wants to know how long operations take; else 0."""
        return NO_TIME if self._telemetry is None else SYSTEM_CLOCK.now()

    def read(
        self,
        call: ReadCall,
        agent: str,
        address: Address,
        artifact: ArtifactId,
        content: CachedContent,
        sequence: SequenceNumber,
        *,
        hit: bool,
    ) -> None:
        """See `ReadObserver`."""
        captured = self._capture()
        with self._lock:  # what is numbered first is told first
            number = self._next_number
            self._next_number = number + 1
            self._counting.submit(
                _ReadSeen(
                    call.operation or "",
                    agent,
                    address,
                    artifact,
                    content,
                    sequence,
                    hit,
                    call.tick,
                    call.began_at,
                    number,
                    captured,
                )
            )

    def begin(self, batch: WriteBatch) -> Sequence[object | None]:
        """See `WriteObserver`: each write carries the trace of what telemetry begins for it."""
        telemetry = self._telemetry
        if telemetry is None or not self._links:
            return ()
        begun: list[object | None] = []
        for change, (namespace, _, key) in zip(batch.changes, batch.addresses, strict=True):
            if type(change) is Write:
                one = telemetry.begin_write(batch.agent, namespace, key, change.artifact)
                change.trace_parent = None if one is None else telemetry.trace_parent_of(one)
                begun.append(one)
        return begun

    def failed(self, begun: Sequence[object | None], error: BaseException) -> None:
        """See `WriteObserver`."""
        for each in begun:
            if each is not None and self._telemetry is not None:
                self._telemetry.failed_write(each, error)

    def wrote(
        self,
        batch: WriteBatch,
        answer: Answer,
        *,
        tick: int,
        began_at: Micros,
        queued: bool = False,
        begun: Sequence[object | None] = (),
    ) -> None:
        """See `WriteObserver`."""
        captured = self._capture() if batch.contents else None
        with self._lock:
            operation = "degraded" if queued else "put"
            number = self._next_number
            self._next_number += len(batch.contents)
            self._counting.submit(
                _WriteSeen(operation, batch.agent, batch, answer, tick, began_at, number, captured, begun)
            )

    def pushed(self, agent: str, scope: Scope, key: str, content: CachedContent) -> None:
        """`agent` was handed a value unasked, because another wrote it."""
        self._counting.submit(_PushSeen(agent, scope, key, content))

    def on_degraded(self, degraded: bool) -> None:  # noqa: FBT001  # a listener
        """Degraded mode began, or ended."""
        if self._telemetry is not None:
            self._telemetry.degraded(degraded=degraded)

    def summary(self) -> dict[str, Any]:
        """The tokens of reads under agent-coherence's keys and rules. Raises `UsageError` without `benchmark=True`."""
        self._require_benchmark()
        return self._savings.benchmark()

    def account(self) -> TokenAccount:
        """All tokens that moved. Raises `UsageError` without `benchmark=True`."""
        self._require_benchmark()
        return self._savings.account()

    def workers(self) -> list[WorkerHealth]:
        """The health of its threads."""
        return [each.health() for each in (self._counting, self._listener, self._telemetry) if each is not None]

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is counted and told; False when that takes longer."""
        queues = (self._counting, self._listener, self._telemetry)
        deadline = Deadline(timeout_s)
        return all(each.flush(deadline.left_s) for each in queues if each is not None)

    def close(self, timeout_s: float = math.inf) -> None:
        """Count and hand over what is left; each listener has a bounded time, and all together have `timeout_s`."""
        deadline = Deadline(timeout_s)
        for each in (self._counting, self._listener, self._telemetry):
            if each is not None:
                each.close(min(CLOSE_TIMEOUT_S, deadline.left_s))

    def _capture(self) -> _Captured | None:
        return None if self._telemetry is None else _Captured(self._telemetry.capture(), SYSTEM_CLOCK.now())

    def _require_benchmark(self) -> None:
        if not self._benchmark:
            raise UsageError("nothing was counted: open it with benchmark=True")
        if not self._counting.flush(SUMMARY_TIMEOUT_S):
            raise CcsError(f"counting tokens is more than {SUMMARY_TIMEOUT_S:g} s behind: is count_tokens slow?")
        if self._counting.dropped:
            missing = f"{self._counting.dropped} reads and writes came faster than they were counted, and are missing"
            warn_caller(f"{missing}: is count_tokens slow?", UserWarning)

    def _count(self, seen: _ReadSeen | _WriteSeen | _PushSeen) -> None:
        match seen:
            case _ReadSeen():
                cause = (
                    MovementCause.SEARCH
                    if seen.operation == "search.hit"
                    else MovementCause.HIT
                    if seen.hit
                    else MovementCause.MISS
                )
                event = self._count_value(seen, cause, seen.address, seen.content.body, seen.number)
                self._observe(event, seen.artifact, seen.content.version, seen.sequence, seen, self._written_by(seen))
            case _WriteSeen():
                self._count_writes(seen)
            case _PushSeen():
                if self._benchmark:
                    tokens = self._tokens.of(seen.content.body)
                    moved = TokenMovement(
                        cause=MovementCause.PUSH, agent=seen.agent, scope=seen.scope, key=seen.key, full=tokens
                    )
                    self._savings.add(moved)
            case _:
                assert_never(seen)

    def _count_writes(self, seen: _WriteSeen) -> None:
        batch = seen.batch
        bodies = iter(batch.contents)
        events = seen.answer.events
        informed = _informed(events)
        versions = {event.artifact: event.version for event in events if type(event) is WriteCommitted}
        begun = iter(seen.begun)
        number = seen.number
        for change, address in zip(batch.changes, batch.addresses, strict=True):
            if type(change) is Write:
                event = self._count_value(seen, MovementCause.WRITE, address, next(bodies).body, number)
                version = versions.get(change.artifact)
                self._observe(event, change.artifact, version, seen.answer.last_sequence, seen, begun=next(begun, None))
                number += 1
            if self._benchmark and informed[change.artifact]:
                _, scope, key = address
                self._savings.add(signals(seen.agent, scope, key, informed[change.artifact]))

    def _count_value(
        self, seen: _ReadSeen | _WriteSeen, cause: MovementCause, address: Address, body: bytes, number: int
    ) -> StoreMetricEvent | None:
        """Count the tokens of a value, and tell the listener; returns the event where one is needed."""
        namespace, scope, key = address
        moved = TokenMovement(cause=cause, agent=seen.agent, scope=scope, key=key, full=self._tokens.of(body))
        if self._benchmark:
            self._savings.add(moved)
        if self._listener is None and self._telemetry is None:
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
            instance_id=self._instance_id,
            schema_version=SCHEMA_VERSION,
        )
        if self._listener is not None:
            self._listener.submit(event)
        return event

    def _observe(
        self,
        event: StoreMetricEvent | None,
        artifact: ArtifactId,
        version: Version | None,
        sequence: SequenceNumber,
        seen: _ReadSeen | _WriteSeen,
        written_by: Callable[[], str | None] | None = None,
        begun: object | None = None,
    ) -> None:
        """Have telemetry export the operation."""
        if self._telemetry is None or event is None or seen.captured is None:
            return
        ended = seen.captured.ended_at
        observed = ObservedOperation(
            event=event,
            artifact=artifact,
            version=version,
            sequence=sequence,
            began_at=seen.began_at or ended,
            ended_at=ended,
            written_by=written_by,
        )
        self._telemetry.export(observed, seen.captured.context if begun is None else begun)

    def _written_by(self, seen: _ReadSeen) -> Callable[[], str | None] | None:
        """A function that finds the trace of the write whose version was read; None where it is not needed."""
        if not self._links or seen.operation == "degraded":
            return None
        return functools.partial(self._find_trace, seen.artifact, seen.content.version, seen.content.sequence)


def _informed(events: Sequence[Event]) -> collections.Counter[ArtifactId]:
    """By artifact, how many other holders lose their copy. The one that deletes is not counted."""
    informed: collections.Counter[ArtifactId] = collections.Counter()
    deleted_by: dict[ArtifactId, ParticipantNumber] = {}
    for event in events:
        if type(event) is ArtifactDeleted:
            deleted_by[event.artifact] = event.participant
        elif type(event) is GrantsInvalidated:
            holders = {*event.sharers, event.owner} - {NOBODY, deleted_by.get(event.artifact, NOBODY)}
            informed[event.artifact] += len(holders)
    return informed


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
