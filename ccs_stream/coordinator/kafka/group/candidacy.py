"""Whether a process that embeds a coordinator offers it: only while nobody runs a dedicated one.

Guarantees: it withdraws, resigning what it leads, when a dedicated coordinator joins the group, and offers itself again
when the last one has left. Does not: decide who leads; the group suggests and the log says so.
"""

import logging
import threading
from typing import Final

from ccs_stream.coordinator.kafka.follower.log_follower import LogFollower
from ccs_stream.coordinator.kafka.group.description import count_dedicated
from ccs_stream.protocol.errors import CcsError

LOG = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0
"""How soon a dedicated coordinator that came or went is noticed."""


class EmbeddedCandidate:
    """Keeps one node in the group, or out of it; one thread."""

    def __init__(self, node: LogFollower) -> None:
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ccs-offer", daemon=True)

    def start(self) -> None:
        """Look once, then again and again."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what the node does then is its owner's to say."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self._node.store.settings.timeout_s)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        try:
            dedicated = count_dedicated(self._node.store)
        except CcsError as error:
            LOG.debug("who coordinates is not known: %s", error)
            return
        if dedicated and self._node.member is not None:
            LOG.info("a dedicated coordinator has joined: withdrawing")
            self._node.leave_group()
        elif not dedicated and self._node.member is None and not self._stop.is_set():
            self._node.join_group()
