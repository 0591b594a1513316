"""Following a workspace's log in a thread aside, decision by decision, after this process knows of each.

Guarantees: every admitted decision of the workspace from where it stood is taken once, in order; an error is counted,
logged once, and what it met is taken again later; nobody who reads or writes waits for it. Does not: read beyond what
this process has folded; survive a fork, whose parent goes on with it.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.coordinator.port import Coordinator
from ccs_stream.log.reader import LogEntry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.errors import Closed
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""How long one wait for more takes at most, and so how long closing may have to wait for it."""
LINGER_S: Final = 0.02
"""Pause between two looks: what is written meanwhile is taken together, and writers need not wake anybody up."""
AGAIN_S: Final = 1.0
"""Pause after an error: what cannot be read or written is usually away for longer."""


class DecisionFollower:
    """`take` is given each decision, and `after` called when what is known has been given. Both may raise.

    Make it under the coordinator's lock where something else must stand at the same place. What `take` was given is
    not given again; what `after` raised on is, by another call of `after`.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        take: Callable[[DecisionRecord, Sequence[Event]], None],
        *,
        after: Callable[[], None],
        name: str,
    ) -> None:
        self.failed = 0
        """Errors met; each was tried again."""
        self._coordinator = coordinator
        self._take_decision = take
        self._after = after
        self._name = name
        self._pid = os.getpid()
        self._reader = coordinator.reader_here()
        self._told = self._reader.offset
        """Everything to here was taken."""
        self._moved = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ccs-{name}", daemon=True)
        self._thread.start()

    @property
    def forked(self) -> bool:
        """Whether this is a forked child, where nothing follows."""
        return self._pid != os.getpid()

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def settle(self, timeout_s: float) -> bool:
        """Wait until what this process knows of the log now is taken; False when that takes longer."""
        known = self._coordinator.folded_offset
        with self._moved:
            self._moved.wait_for(lambda: self._told >= known or not self._thread.is_alive(), timeout_s)
        return self._told >= known

    def close(self, timeout_s: float) -> bool:
        """Take what this process knows of the log now, for at most so long, and end. Whether all was taken."""
        known = self._coordinator.folded_offset
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return self._told >= known

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.is_set()  # asked first: what is known by then is still taken
            pause_s = LINGER_S
            try:
                if not closing:
                    self._coordinator.wait(self._anything_new, LOOK_S)
                self._take()
            except Closed:
                break  # nothing more will be known here
            except Exception:
                self.failed += 1
                if self.failed == 1:
                    LOG.exception("%s cannot go on, and tries again. Later errors are counted", self._name)
                pause_s = AGAIN_S
            self._closing.wait(pause_s)
        with self._moved:
            self._moved.notify_all()

    def _anything_new(self) -> bool:
        return self._closing.is_set() or self._coordinator.folded_offset > self._reader.offset

    def _take(self) -> None:
        """Take all to where the state is folded: what is further on, nobody here was answered yet."""
        known = self._coordinator.folded_offset
        self._after()
        if known > self._reader.offset:
            for entry in self._reader.read(until=known, bodies=False):
                self._give(entry)
            self._after()
        with self._moved:
            # Behind the last record of this workspace, the shard may hold what is another's.
            self._told = max(known, self._reader.offset)
            self._moved.notify_all()

    def _give(self, entry: LogEntry) -> None:
        record = entry.record
        if entry.verdict is not Verdict.ADMITTED or type(record) is not DecisionRecord:
            return
        if record.workspace == self._coordinator.workspace:
            self._take_decision(record, entry.events)
