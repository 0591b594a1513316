"""Keeps an embedded coordinator in the consumer group only while no dedicated coordinator is in it.

`SharedFollower` owns one for a client with `coordinator=embedded`. Guarantees: it withdraws, resigning what it leads,
when a dedicated coordinator joins the group, and joins again when the last one has left. Beside other members it joins
only after its trial. Does not: decide who leads;
the group suggests and the log says so.

How: the periodic task `ccs-candidate` asks the brokers who is in the group, which may block it for the log's time-out.
"""

import logging
from typing import Final, Protocol

from ccs_stream.background import PeriodicTask, WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.kafka.group.description import GroupSize, count_members
from ccs_stream.coordinator.kafka.group.member import GroupMember
from ccs_stream.coordinator.kafka.group.trial import Trial
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError

LOG = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
"""How soon a dedicated coordinator that came or went is noticed."""


class GroupSeat(Protocol):
    """A follower of the log, as far as it can join the group and leave it."""

    store: KafkaLog
    member: GroupMember | None
    """The membership, while there is one."""

    def join_group(self) -> None:
        """Offer to lead."""

    def leave_group(self) -> None:
        """Resign what is led, and leave."""


class EmbeddedCandidate:
    """Keeps one seat in the group, or out of it."""

    def __init__(self, seat: GroupSeat, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seat = seat
        self._trial = Trial(seat.store, clock)
        self._task = PeriodicTask("candidate", self._look, interval_s=LOOK_EVERY_S, clock=clock)

    def start(self) -> None:
        """Look now, in this thread, and then again and again."""
        self._look()
        self._task.start()

    def stop(self) -> None:
        """Look no more. Does not leave the group; the owner of the seat does."""
        self._task.close(self._seat.store.settings.timeout_s)

    def health(self) -> WorkerHealth:
        """The state of its thread."""
        return self._task.health()

    def _look(self) -> None:
        seat = self._seat
        try:
            size = count_members(seat.store)
        except CcsError as error:
            LOG.debug("who coordinates is not known: %s", error)
            return
        if size.dedicated and seat.member is not None:
            LOG.info("a dedicated coordinator has joined: withdrawing")
            seat.leave_group()
        elif seat.member is None and not self._task.closed and (not size.members or self._may_join(size)):
            seat.join_group()

    def _may_join(self, size: GroupSize) -> bool:
        return not size.dedicated and self._trial.is_over()
