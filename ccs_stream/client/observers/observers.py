"""Whoever works beside a workspace: the record of deliveries, the content audit, the state log, pushing.

Guarantees: all of them are told aside; none can delay, break or block a read or write. Closing tells them what is left,
for a bounded time. Does not: survive a fork; a child opens its own workspace.
"""

import functools

from ccs_stream.client.observers.content_audit import ContentAudit
from ccs_stream.client.observers.delivery_log import DeliveryLog, Give, Given
from ccs_stream.client.observers.pusher import Pusher
from ccs_stream.client.observers.state_log import StateLog
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.options import ClientConfig

FAREWELL_S = 5.0
"""How long closing waits for each."""


class WorkspaceObservers:
    """One for a workspace."""

    def __init__(self, engine: Engine, policy: ClientConfig, *, instance_id: str) -> None:
        coordinator = engine.coordinator
        store = coordinator.store
        self.pusher = Pusher(engine) if policy.rules.push else None
        wanted = not store.instantaneous if policy.deliveries is None else policy.deliveries
        self.deliveries = DeliveryLog(store, coordinator.workspace) if wanted else None
        self.audit: ContentAudit | None = None
        self.state_log: StateLog | None = None
        if policy.content_audit_log is not None:
            self.audit = ContentAudit(policy.content_audit_log, instance_id=instance_id)
        if policy.state_log is not None:
            self.state_log = StateLog(coordinator, policy.state_log, instance_id=instance_id)

    @property
    def give(self) -> Give | None:
        """Takes every delivery; None where nobody wants to know."""
        gives: list[Give] = [each.give for each in (self.deliveries, self.audit) if each is not None]
        if len(gives) < 2:
            return gives[0] if gives else None
        return functools.partial(_all, tuple(gives))

    def settle(self, timeout_s: float) -> bool:
        """Wait until all that was given is told and recorded; False when that takes longer."""
        watching = (self.pusher, self.deliveries, self.audit, self.state_log)  # what is pushed is delivered
        return all(each.settle(timeout_s) for each in watching if each is not None)

    def close(self) -> None:
        """Tell what is left, and end."""
        if self.pusher is not None:
            self.pusher.close(FAREWELL_S)
        if self.state_log is not None:
            self.state_log.close(FAREWELL_S)
        if self.audit is not None:
            self.audit.close(FAREWELL_S)
        if self.deliveries is not None:
            self.deliveries.close(FAREWELL_S)


def _all(gives: tuple[Give, ...], given: Given) -> None:
    for give in gives:
        give(given)
