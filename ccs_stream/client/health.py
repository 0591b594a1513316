"""The health of a workspace as data: its threads, what waits in them, and how the log is reached.

`Workspace.health()` and the `health()` of the stores return it.

Guarantees: costs no I/O and waits for nothing but the workspace's lock. Does not: judge; a program decides what it
calls healthy.
"""

import dataclasses

from ccs_stream.background import WorkerHealth
from ccs_stream.coordinator.health import CoordinatorHealth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceHealth:
    """The state of a workspace at one moment.

    ```
    health = workspace.health()
    if health.degraded or any(worker.dropped for worker in health.workers):
        alert(health)
    ```
    """

    workspace: str
    closed: bool
    sequence: int
    """Sequence up to which the log is folded here."""
    stale: bool
    """True if the log cannot be reached now, so that newer versions may exist."""
    degraded: bool
    """True if reads come from what this process knows, and writes are refused or queued (`on_error="degrade"`)."""
    degradation_count: int
    """How often the log failed a call, where `on_error="degrade"`."""
    last_error: str | None
    """The last error of the log in degraded mode, as text."""
    outbox_waiting: int
    """Changes that wait in the outbox."""
    outbox_conflicts: int
    """Changes of the outbox that were refused and are not resolved."""
    agents: tuple[str, ...]
    """Agents that have joined in this session."""
    coordinator: CoordinatorHealth
    """How commands are decided: who leads, what waits, how far the log is ahead."""
    workers: tuple[WorkerHealth, ...]
    """The background workers of this workspace, the coordinator's included; see `docs/architecture.md`."""

    @property
    def waiting(self) -> int:
        """Items that wait in all queues."""
        return sum(worker.waiting for worker in self.workers)

    @property
    def failures(self) -> int:
        """Failures that the workers have counted."""
        return sum(worker.failures for worker in self.workers)
