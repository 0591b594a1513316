"""Whether the topics of a log are still those that this process opened.

Guarantees: a topic that was made anew, cut at its head or given other partitions stops whoever follows the log, with a
word on what to do: within about `LOOK_EVERY_S`, and a head within that for each partition followed. Does not: notice it
sooner, and does not undo it.

Nobody else would say so: who follows at the end sees nothing of what happens at the head, and Kafka's clients go on
with whatever topic has the name.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogDiverged, LogMissing

LOG = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""A few requests each time; what they find has already happened, and only people can mend it."""
LOOK_AGAIN_S: Final = 1.0
"""What is wrong is looked at once more: a broker that has just started may not know all of its topics yet."""


class TopicMonitor:
    """Looks at the topics of one log, in a thread of its own."""

    def __init__(
        self, store: KafkaLog, partitions: Callable[[], Iterable[int]], failed: Callable[[CcsError], None]
    ) -> None:
        """`partitions` says which are followed, `failed` is told what is wrong."""
        self._store = store
        self._partitions = partitions
        self._failed = failed
        self._turn = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ccs-watch", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Look no more. Does not wait."""
        self._stop.set()

    def _run(self) -> None:
        before: CcsError | None = None
        while not self._stop.wait(LOOK_EVERY_S if before is None else LOOK_AGAIN_S):
            try:
                found = self._look()
            except CcsError as error:
                LOG.debug("the topics could not be looked at: %s", error)
                continue
            except Exception:
                if self._stop.is_set():
                    return  # the log was closed while it was asked
                raise
            if found is not None and before is not None and str(found) == str(before) and not self._stop.is_set():
                self._failed(found)
                return
            before = found

    def _look(self) -> CcsError | None:
        """What is wrong with the topics, if anything is. Raises what asking raises."""
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
        return self._look_at_head()

    def _look_at_head(self) -> CcsError | None:
        """One partition at a look, in turn; the same one again where something was wrong."""
        followed = sorted(self._partitions())
        if not followed:
            return None
        name, partition = self._store.names.log, followed[self._turn % len(followed)]
        begins, _ = self._store.bounds(name, partition)
        if begins > 0:
            return LogDiverged(
                f"{name} [{partition}] begins at offset {begins} now: its head was deleted, by retention or by hand, "
                "and nobody can start from it any more. Restore it from a copy; the topic's retention.ms must be -1"
            )
        self._turn += 1
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
