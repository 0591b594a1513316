"""Checks that the topics of a log are still those that this process opened.

`LogFollower` owns one. Guarantees: a topic that was made anew, cut at its head or given other partitions stops the
follower of the log, with an error that says what to do: within about `CHECK_EVERY_S`, and a cut head within that for
each partition followed. Does not: notice it sooner, or undo it.

Nothing else would notice: a follower at the end of a log sees nothing of its head, and Kafka's clients go
on with whatever topic has the name.

How: the periodic task `ccs-topic-monitor` asks the brokers, which may block it for the log's time-out.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final

from ccs_stream.background import UNTIL_WOKEN, PeriodicTask, WorkerHealth
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogDiverged, LogMissing

LOG = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 5.0
"""A few requests each time; what they find has already happened, and only people can mend it."""
CONFIRM_AFTER_S: Final = 1.0
"""A finding is looked at once more: a broker that has just started may not know all of its topics yet."""


class TopicMonitor:
    """Checks the topics of one log again and again."""

    def __init__(
        self,
        store: KafkaLog,
        partitions: Callable[[], Iterable[int]],
        on_finding: Callable[[CcsError], None],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`partitions` returns those that are followed; `on_finding` is called once, with what is wrong."""
        self._store = store
        self._partitions = partitions
        self._on_finding = on_finding
        self._heads_checked = 0
        self._finding: CcsError | None = None
        """The finding of the last check, still to be confirmed."""
        self._task = PeriodicTask("topic-monitor", self._check, interval_s=CHECK_EVERY_S, clock=clock)

    def start(self) -> None:
        """Check from now on."""
        self._task.start()

    def stop(self) -> None:
        """Check no more. Does not wait for a check that is under way."""
        self._task.close(0.0)

    def health(self) -> WorkerHealth:
        """The state of its thread."""
        return self._task.health()

    def _check(self) -> float | None:
        """One check, and how soon the next one is due."""
        before = self._finding
        try:
            found = self._find()
        except CcsError as error:
            LOG.debug("the topics could not be looked at: %s", error)
            return None if before is None else CONFIRM_AFTER_S
        except Exception:
            if self._task.closed:  # the log was closed while it was asked
                return UNTIL_WOKEN
            raise
        self._finding = found
        if found is None:
            return None
        if before is None or str(found) != str(before) or self._task.closed:
            return CONFIRM_AFTER_S
        self._on_finding(found)
        return UNTIL_WOKEN

    def _find(self) -> CcsError | None:
        """The defect of the topics, if there is one. Raises what asking the brokers raises."""
        there = topics.describe(self._store.clients, settings=False)
        for name, opened in self._store.opened.items():
            now = there.get(name)
            if now is None:
                return LogMissing(f"{name} was deleted while it was in use: restore it from a copy, and start again")
            if now.topic_id != opened.topic_id:
                return LogDiverged(_made_anew(self._store, name))
            if now.partitions != opened.partitions:
                return LogDiverged(
                    f"{name} has {now.partitions} partitions now, and was opened with {opened.partitions}: a workspace "
                    "would be looked for in the wrong one. Partitions cannot be taken away: make a new log under "
                    "another prefix, or restore the topic from a copy"
                )
        return self._find_at_head()

    def _find_at_head(self) -> CcsError | None:
        """One partition at each check, in turn; the same one again where something was wrong."""
        followed = sorted(self._partitions())
        if not followed:
            return None
        name, partition = self._store.names.log, followed[self._heads_checked % len(followed)]
        begins, _ = self._store.bounds(name, partition)
        if begins > 0:
            return LogDiverged(
                f"{name} [{partition}] begins at offset {begins} now: its head was deleted, by retention or by hand, "
                "and no reader can start from it any more. Restore it from a copy; the topic's retention.ms must be -1"
            )
        self._heads_checked += 1
        return None


def _made_anew(store: KafkaLog, name: str) -> str:
    if name == store.names.commands:
        return (
            f"{name} was made anew while it was in use: stop all coordinators, see that it has as many partitions as "
            "the log with `ccs-stream topics check URL`, and start them again; they take a new topic from its beginning"
        )
    return (
        f"{name} was made anew while it was in use: what it held is gone; stop everything, and restore it from a copy"
    )
