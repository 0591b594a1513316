"""The LangSmith exporter: writes the cost of a store's reads and writes into the metadata of the runs they happen in.

Guarantees: the keys of agent-coherence 0.6, on the run that was current where the read or write happened; their values
are those of the run's latest event, and totals of this exporter. A run that is already over by the time its tokens are
counted is sent its metadata again, soon after, once for all that came late. Nothing is sent of a run that LangSmith
itself does not send. Does not: wait for the counting; until it is done the values of a run are null. Send a late run's
metadata to write replicas. Keep runs from inheriting the metadata of the run above them; that is how LangSmith has it.

How: a periodic task `ccs-langsmith-late` sends what came late; it may block on LangSmith.
"""

import logging
import threading
import uuid
from typing import Any, Final, cast

from langsmith import utils
from langsmith.run_helpers import get_current_run_tree
from langsmith.run_trees import RunTree

from ccs_stream.background import UNTIL_WOKEN, ForkGuard, PeriodicTask
from ccs_stream.client.observers.telemetry import Exporter, TelemetryExporter
from ccs_stream.projections.metric_events import ObservedOperation, StoreMetricEvent

LOG = logging.getLogger(__name__)

LATE_S: Final = 0.5
"""How long runs that were over too soon are gathered: reads at a run's end come in bursts, and share a request."""
CLOSE_TIMEOUT_S: Final = 5.0
"""How long closing waits for a request that is under way."""
LATE_MAX: Final = 1_000
"""Runs that are gathered at most; they hold their inputs and outputs."""

_NOT_YET: Final[dict[str, Any]] = dict.fromkeys(
    (
        "ccs.operation",
        "ccs.agent_name",
        "ccs.tokens_consumed",
        "ccs.cache_hit",
        "ccs.tick",
        "ccs.token_reduction_pct",
        "ccs.tokens_saved_estimate",
        "ccs.cache_hit_rate",
    )
)


class LangSmithExporter(Exporter, TelemetryExporter):
    """Exports to LangSmith. Several stores may share one; its totals are then of all of them."""

    _late: dict[uuid.UUID, RunTree]

    def __init__(self) -> None:
        self.unsent = 0
        """Runs that were over too soon, and could not be sent again."""
        self._consumed = self._saved = self._reads = self._hits = 0
        self._begin()

    def capture(self) -> tuple[RunTree, bool] | None:
        """The current run, if any, and whether LangSmith sends it."""
        run = get_current_run_tree()
        if run is None:
            return None
        metadata = run.extra.get("metadata") or {}
        # Keys come in the caller's thread, and into a copy, for LangChain shares this dict with others who may iterate
        # over it. The thread aside only replaces values.
        if "ccs.tick" not in metadata:
            run.extra["metadata"] = {**metadata, **_NOT_YET}
        return run, utils.tracing_is_enabled() is True

    def on_event(self, event: StoreMetricEvent) -> None:
        """Put an event on the run that is current here."""
        self._put(event, self.capture())

    def export(self, observed: ObservedOperation, captured: object) -> None:
        self._put(observed.event, cast("tuple[RunTree, bool] | None", captured))

    def close(self) -> None:
        """Send what is late."""
        self._begin_in_a_child()
        self._sender.close(CLOSE_TIMEOUT_S)
        self._send_late()

    def _put(self, event: StoreMetricEvent, captured: tuple[RunTree, bool] | None) -> None:
        self._begin_in_a_child()
        with self._lock:
            totals = self._count(event)
            if captured is None:
                return
            run, sent = captured
            run.extra["metadata"].update(totals)
            # In this order: a run that is not over yet will be sent with what was put.
            if sent and run.end_time is not None:
                self._keep_late(run)

    def _count(self, event: StoreMetricEvent) -> dict[str, Any]:
        self._consumed += event.tokens_consumed
        self._saved += event.tokens_saved_estimate
        if event.operation == "get":
            self._reads += 1
            self._hits += event.cache_hit
        full = self._consumed + self._saved
        return {
            "ccs.operation": event.operation,
            "ccs.agent_name": event.agent_name,
            "ccs.tokens_consumed": event.tokens_consumed,
            "ccs.cache_hit": event.cache_hit,
            "ccs.tick": event.tick,
            "ccs.token_reduction_pct": round(100 * self._saved / full, 1) if full else 0.0,
            "ccs.tokens_saved_estimate": self._saved,
            "ccs.cache_hit_rate": round(self._hits / self._reads, 3) if self._reads else 0.0,
        }

    def _keep_late(self, run: RunTree) -> None:
        if getattr(run, "replicas", None) or (len(self._late) >= LATE_MAX and run.id not in self._late):
            self.unsent += 1
            return
        self._late[run.id] = run
        self._sender.start()

    def _send_late(self) -> float:
        """Send what is late; nothing more is to be done then until something else is."""
        with self._lock:
            late, self._late = self._late, {}
        for run in late.values():
            try:
                _send(run)
            except Exception:
                self.unsent += 1
                if self.unsent == 1:
                    LOG.exception("LangSmith did not take the metadata of %s; later ones are counted", run.id)
        return UNTIL_WOKEN

    def _begin_in_a_child(self) -> None:
        """In a forked child the lock may be locked for ever, and the parent's task does not run."""
        if self._guard.forked:
            self._begin()

    def _begin(self) -> None:
        self._guard = ForkGuard("the LangSmith exporter")
        self._lock = threading.Lock()
        self._late = {}
        self._sender = PeriodicTask("langsmith-late", self._send_late, interval_s=LATE_S)


def _send(run: RunTree) -> None:
    """The metadata of a run that is over. Not its outputs: they are sent already, and may have been changed since."""
    run.client.update_run(
        run.id,
        name=run.name,
        run_type=cast("Any", run.run_type),
        start_time=run.start_time,
        end_time=run.end_time,
        tags=run.tags,
        extra={**run.extra, "metadata": {**run.extra["metadata"]}},
        parent_run_id=run.parent_run_id,
        trace_id=run.trace_id,
        dotted_order=run.dotted_order,
        session_id=run.session_id,
        session_name=run.session_name,
        address=getattr(run, "address", None),
    )
