"""The observers of a workspace together: delivery log, content audit, state log, metrics and pusher.

`Workspace` makes them from its options and closes them.

Guarantees: none of them can delay, break or block a read or write; each works in threads of its own. Closing gives each
a bounded time for what is left. Does not: survive a fork; a child opens its own workspace.
"""

import functools
import math
from pathlib import Path
from typing import Final

from ccs_stream.background import WorkerHealth
from ccs_stream.client.cache.delivery import DeliverySink, PendingDelivery
from ccs_stream.client.observers.content_audit import ContentAudit
from ccs_stream.client.observers.delivery_log import DeliveryLog
from ccs_stream.client.observers.json_lines import LineFunction
from ccs_stream.client.observers.metrics import MetricsOptions, OperationMetrics
from ccs_stream.client.observers.pusher import Pusher
from ccs_stream.client.observers.state_log import StateLog
from ccs_stream.client.observers.telemetry import trace_on_log
from ccs_stream.client.operations.engine import Engine
from ccs_stream.clock import Deadline

CLOSE_TIMEOUT_S: Final = 5.0
"""How long closing waits for each observer."""


class WorkspaceObservers:
    """The observers of one workspace; None for each that no option asks for."""

    def __init__(
        self,
        engine: Engine,
        *,
        instance_id: str,
        deliveries: bool | None,
        content_audit_log: LineFunction | Path | None,
        state_log: LineFunction | Path | None,
        metrics: MetricsOptions | None,
    ) -> None:
        """Begin to observe. `deliveries` None records them where the log is durable."""
        coordinator = engine.coordinator
        store, name = coordinator.store, coordinator.workspace
        self.metrics: OperationMetrics | None = None
        if metrics is not None:
            find_trace = functools.partial(trace_on_log, store, name)
            self.metrics = OperationMetrics(metrics, instance_id=instance_id, find_trace=find_trace)
        self.pusher = Pusher(engine) if engine.copies.rules.push else None
        records_deliveries = not store.instantaneous if deliveries is None else deliveries
        self.deliveries = DeliveryLog(store, name) if records_deliveries else None
        self.audit: ContentAudit | None = None
        self.state_log: StateLog | None = None
        if content_audit_log is not None:
            self.audit = ContentAudit(content_audit_log, instance_id=instance_id)
        if state_log is not None:
            self.state_log = StateLog(coordinator, state_log, instance_id=instance_id)
        engine.recorder.connect(sink=self._sink(), observer=self.metrics)
        engine.writer.observer = self.metrics
        if self.metrics is not None and self.pusher is not None:
            self.pusher.on_push = self.metrics.pushed

    def _sink(self) -> DeliverySink | None:
        sinks = [each.record for each in (self.deliveries, self.audit) if each is not None]
        if len(sinks) < 2:
            return sinks[0] if sinks else None

        def record(delivery: PendingDelivery) -> None:
            for sink in sinks:
                sink(delivery)

        return record

    def workers(self) -> list[WorkerHealth]:
        """The health of all their threads."""
        found = [each.health() for each in (self.pusher, self.deliveries, self.audit) if each is not None]
        for several in (self.state_log, self.metrics):
            if several is not None:
                found.extend(several.workers())
        return found

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is pushed, recorded and counted; False when that takes longer."""
        deadline = Deadline(timeout_s)
        observers = (self.pusher, self.deliveries, self.audit, self.state_log, self.metrics)  # a push is delivered
        return all(each.flush(deadline.left_s) for each in observers if each is not None)

    def close(self, timeout_s: float = math.inf) -> None:
        """Hand over what is left, and end; each observer has a bounded time, and all together have `timeout_s`."""
        deadline = Deadline(timeout_s)
        if self.metrics is not None:
            self.metrics.close(timeout_s)  # first: a listener may read the workspace
        for each in (self.pusher, self.state_log, self.audit, self.deliveries):
            if each is not None:
                each.close(min(CLOSE_TIMEOUT_S, deadline.left_s))
