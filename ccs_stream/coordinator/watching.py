"""Whether the topics of a log are still those that this process opened.

Guarantees: a topic that was made anew, cut at its head or given other partitions stops whoever follows the log, within
about `LOOK_EVERY_S`, with a word on what to do. Does not: notice it sooner, and does not undo it.

Nobody else would say so: who follows at the end sees nothing of what happens at the head, and Kafka's clients go on
with whatever topic has the name.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined,unused-ignore]  # it is public

from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import CcsError, LogDiverged, LogMissing

LOG = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""Two requests each time; what they find has already happened, and only people can mend it."""


class Watch:
    """Looks at the topics of one log, in a thread of its own."""

    def __init__(self, store: KafkaLog, failed: Callable[[CcsError], None]) -> None:
        self._store = store
        self._failed = failed
        self._missing: frozenset[str] = frozenset()
        """Topics that were not there at the last look: a broker that has just started may not know them yet."""
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
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self._look()
            except (LogDiverged, LogMissing) as error:
                if not self._stop.is_set():
                    self._failed(error)
                return
            except CcsError as error:
                LOG.debug("the topics could not be looked at: %s", error)
            except Exception:
                if self._stop.is_set():
                    return  # the log was closed while it was asked
                raise

    def _look(self) -> None:
        store = self._store
        there = topics.describe(store.clients, settings=False)
        missing = frozenset(name for name in store.opened if name not in there)
        for name in missing & self._missing:
            raise LogMissing(f"{name} was deleted while it was in use: restore it from a copy, and start again")
        self._missing = missing
        for name, opened in store.opened.items():
            now = there.get(name, opened)
            if now.topic_id != opened.topic_id:
                raise LogDiverged(_made_anew(store, name))
            if now.partitions != opened.partitions:
                raise LogDiverged(
                    f"{name} has {now.partitions} partitions now, and was opened with {opened.partitions}: a workspace "
                    "would be looked for in the wrong one. Partitions cannot be taken away: make a new log under "
                    "another prefix, or restore the topic from a copy"
                )
        if not missing:
            self._look_at_heads()

    def _look_at_heads(self) -> None:
        store, name = self._store, self._store.names.log
        earliest: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        places = {TopicPartition(name, each): earliest for each in range(store.partitions)}
        asked = store.clients.admin.list_offsets(places, request_timeout=store.settings.timeout_s)
        for place, future in asked.items():
            begins: Any = store.clients.asked(f"asking where {name} [{place.partition}] begins", future)
            if begins.offset > 0:
                raise LogDiverged(
                    f"{name} [{place.partition}] begins at offset {begins.offset} now: its head was deleted, by "
                    "retention or by hand, and nobody can start from it any more. Restore it from a copy; the topic's "
                    "retention.ms must be -1"
                )


def _made_anew(store: KafkaLog, name: str) -> str:
    if name == store.names.commands:
        return (
            f"{name} was made anew while it was in use: stop all coordinators, see that it has as many partitions as "
            "the log with `ccs-stream topics check URL`, and start them again; they take a new topic from its beginning"
        )
    return (
        f"{name} was made anew while it was in use: what it held is gone; stop everything, and restore it from a copy"
    )
