"""The trial of a newcomer among the coordinators: beside others it offers to lead only after it has lived for a while.

`CoordinatorService` and `EmbeddedCandidate` ask it before they join the group.

Guarantees: a process that crashes soon after each start, again and again (as one that runs out of memory does), joins
no group beside healthy coordinators, so that it takes no partition from them. Where the group is empty a newcomer joins
at once. Does not: judge how healthy a process is; it only has to live and to follow.

Why a session time-out: a member that dies is missed by its group for so long. One that joins and dies sooner than that
keeps its partitions without a leader nearly all the time.
"""

from typing import Final

from ccs_stream.clock import Clock
from ccs_stream.log.kafka.store import KafkaLog

TRIAL_SESSIONS: Final = 1.25
"""Length of the trial, in session time-outs: longer than one, with room for a slow start."""


class Trial:
    """The trial of one process, from when this is made."""

    def __init__(self, store: KafkaLog, clock: Clock) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + TRIAL_SESSIONS * store.settings.session_timeout_s

    def is_over(self) -> bool:
        """True once the process has lived for longer than a session time-out."""
        return self._clock.monotonic() >= self._ends_at
