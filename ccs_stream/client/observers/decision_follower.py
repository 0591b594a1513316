"""Following the decisions of a workspace, in a thread of its own, after this process has folded each.

The state log and the pusher use it.

Guarantees: every admitted decision of the workspace, from where the follower began, is handed over once and in order.
An error is counted and logged once, and what it met is handed over again later. No reader or writer waits for it. Does
not: read beyond what this process has folded; survive a fork, whose parent goes on with it.

How: a periodic task waits for new decisions and reads them from the log. It may block on the log and on its callbacks.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.background import UNTIL_WOKEN, ForkGuard, PeriodicTask, WorkerHealth
from ccs_stream.clock import Deadline
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.reader import LogEntry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import Closed
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)

WAIT_S: Final = 0.1
"""Longest single wait for more, and so the longest time that closing waits for it."""
PAUSE_S: Final = 0.02
"""Pause between two rounds: what is written meanwhile is taken together, and writers need not wake anybody."""
RETRY_S: Final = 1.0
"""Pause after an error: what cannot be read or written is usually away for longer."""


class DecisionFollower:
    """Calls `on_decision(decision, events)` once per decision, and `on_caught_up()` when there are no more.

    Both may raise: a decision is not handed over again, but `on_caught_up` is called again later. Make it under the
    coordinator's lock where something else must stand at the same place.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        on_decision: Callable[[DecisionRecord, Sequence[Event]], None],
        *,
        on_caught_up: Callable[[], None],
        name: str,
    ) -> None:
        self._coordinator = coordinator
        self._on_decision = on_decision
        self._on_caught_up = on_caught_up
        self._name = name
        self._guard = ForkGuard(name)
        self._reader = coordinator.reader_here()
        self._taken = self._reader.offset
        """Everything up to this offset was handed over."""
        self._moved = threading.Condition()
        self._closing = threading.Event()
        self._ended = False
        """True if nothing more will be handed over."""
        self._task = PeriodicTask(
            name, self._round, interval_s=PAUSE_S, retry_s=RETRY_S, on_failure=self._report_failure
        )
        self._reported = False
        self._task.wake()

    @property
    def forked(self) -> bool:
        """True if this is a forked child, where nothing is followed."""
        return self._guard.forked

    @property
    def closing(self) -> bool:
        """True if `close` was called."""
        return self._closing.is_set()

    @property
    def failed(self) -> int:
        """Errors met; each round that met one was tried again."""
        return self._task.failures

    def health(self) -> WorkerHealth:
        """The health of the thread."""
        return self._task.health()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what this process knows of the log now is handed over; False when that takes longer."""
        known = self._coordinator.folded_offset
        with self._moved:
            self._moved.wait_for(lambda: self._taken >= known or self._ended or not self._task.alive, timeout_s)
        return self._taken >= known

    def close(self, timeout_s: float) -> bool:
        """Hand over what this process knows of the log now, for at most so long, and end; whether all was."""
        if self.forked:
            return True
        deadline = Deadline(timeout_s)
        self._closing.set()
        if not self._ended:
            self._task.wake()
        taken = self.flush(timeout_s)
        self._task.close(deadline.left_s)
        return taken

    def _round(self) -> float | None:
        closing = self.closing  # read first: what is known by then is still handed over
        try:
            if not closing:
                self._coordinator.wait(self._is_behind, WAIT_S)
            self._take()
        except Closed:
            return self._end()  # nothing more will be known here
        except BaseException:
            if closing:
                self._end()
            raise
        return self._end() if closing else None

    def _end(self) -> float:
        with self._moved:
            self._ended = True
            self._moved.notify_all()
        return UNTIL_WOKEN

    def _report_failure(self, error: BaseException) -> None:
        if not self._reported:
            self._reported = True
            LOG.error("%s failed, and tries again. Later errors are counted", self._name, exc_info=error)

    def _is_behind(self) -> bool:
        return self.closing or self._coordinator.folded_offset > self._reader.offset

    def _take(self) -> None:
        """Hand over all to where the state is folded. No call of this process was answered from further on."""
        known = self._coordinator.folded_offset
        self._on_caught_up()
        if known > self._reader.offset:
            for entry in self._reader.read(until=known, bodies=False):
                self._hand_over(entry)
            self._on_caught_up()
        with self._moved:
            # Behind the last record of this workspace, the shard may hold records of others.
            self._taken = max(known, self._reader.offset)
            self._moved.notify_all()

    def _hand_over(self, entry: LogEntry) -> None:
        record = entry.record
        if entry.verdict is not Verdict.ADMITTED or type(record) is not DecisionRecord:
            return
        if record.workspace == self._coordinator.workspace:
            self._on_decision(record, entry.events)
