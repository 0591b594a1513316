"""The health of a coordinator as data, for `workspace.health()`, `ccs-stream` and tests.

Guarantees: taking it never waits for a disk, a broker or a lock that is held for long; figures of different fields may
be a moment apart.
"""

import dataclasses

from ccs_stream.background import WorkerHealth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorHealth:
    """The state of a workspace's coordinator in this process."""

    workers: tuple[WorkerHealth, ...]
    """Its background threads; those of a log on Kafka are shared by all workspaces that this process opened on it."""
    commands_waiting: int
    """Commands that are not on their way yet: they wait for their turn, or for room in their session's window."""
    commands_in_flight: int
    """Commands that may be decided by now and whose decision was not read from the log yet."""
    folded_offset: int
    """Offset of the last record that was folded."""
    lag_records: int | None
    """Records in the log that were not folded yet, as far as was seen; None where there are some, not counted."""
    leads: bool
    """True if this process decides the commands of the workspace."""
    epoch: int
    """The leadership term last seen; 0 where a log has no leaders."""
    offers_to_lead: bool
    """True if this process is in the group of the coordinators, or needs no group to decide."""
    connected: bool
    """True if the log can be reached, as far as is known."""
    closed: bool
    last_error: str | None
    """Why following the log ended, or what the brokers said last while they do not answer."""
    clock_ahead_s: float = 0.0
    """By how much the clock of this process is ahead of the log's time and not followed; 0 where it is right."""
