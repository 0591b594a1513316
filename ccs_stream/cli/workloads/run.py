"""Runs a workload on this package's store, and on the one that LangGraph ships.

Guarantees: both runs are of the same graph, and what the stores were asked for is counted. The published figures follow
the rules of agent-coherence: the nominal size of every read and write, compared with the tokens of reads and writes;
signals are free. `account` counts everything, in the actual sizes. Does not: time anything.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from langgraph.store.base import GetOp, Op, PutOp, Result
from langgraph.store.memory import InMemoryStore

from ccs_stream.adapters.langgraph import CCSStore
from ccs_stream.cli.workloads.graphs import Workload, for_all
from ccs_stream.projections.metric_events import StoreMetricEvent
from ccs_stream.projections.tokens import estimate_tokens


@dataclasses.dataclass(frozen=True, slots=True)
class WorkloadResult:
    """The tokens that a workload moved."""

    name: str
    agents: int
    reads: int
    writes: int
    hit_rate: float
    baseline_tokens: int
    """Tokens of all reads and writes at their nominal size."""
    tokens: int
    """Tokens that reads and writes moved."""
    saving_pct: float
    account: dict[str, Any]
    """`baseline` (every read whole), `moved`, `saved_pct`, `by_cause`."""
    in_memory_store_tokens: int
    """Tokens that the same graph moved on LangGraph's `InMemoryStore`."""


class TokenCountingStore(InMemoryStore):
    """LangGraph's store, which also counts the tokens that go in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        operations = list(ops)
        results = super().batch(operations)
        for op, result in zip(operations, results, strict=True):
            if isinstance(op, PutOp) and op.value is not None:
                self.tokens += estimate_tokens(op.value)
            elif isinstance(op, GetOp) and result is not None:
                self.tokens += estimate_tokens(result.value)  # type: ignore[union-attr]  # of a GetOp
        return results


def run(workload: Workload) -> WorkloadResult:
    """Run a workload twice. Raises what its graph raises."""
    events: list[StoreMetricEvent] = []
    with CCSStore(benchmark=True, on_metric=events.append) as store:
        workload.graph(store).invoke({})
        account, summary = store.savings(), store.benchmark_summary()
    writes = sum(event.operation == "put" for event in events)
    reads = summary["n_operations"]
    tokens = sum(event.tokens_consumed for event in events)
    baseline = (reads + writes) * workload.tokens
    shared = TokenCountingStore()
    workload.graph(shared, for_all).invoke({})
    return WorkloadResult(
        name=workload.name,
        agents=len(workload.agents),
        reads=reads,
        writes=writes,
        hit_rate=summary["cache_hit_rate"],
        baseline_tokens=baseline,
        tokens=tokens,
        saving_pct=round(100 * (1 - tokens / baseline), 2),
        account={
            "baseline": account.baseline,
            "moved": account.moved,
            "saved_pct": account.saved_pct,
            "by_cause": account.by_cause,
        },
        in_memory_store_tokens=shared.tokens,
    )
