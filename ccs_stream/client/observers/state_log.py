"""The state log: every change of every grant, for a function or a file of JSON lines.

A workspace has one where `state_log=` names a function or a file.

Guarantees: what it tells is read from the log, after it is there. Readers and writers of the workspace neither wait for
it nor hear of its errors. Lines come in the order of the log, numbered from 1 without gaps in each instance. Does not:
tell what happened before it was opened or after it was closed; that can always be derived from the log.

How: a `DecisionFollower` derives the lines. A file is appended to in its thread; a function is called from a queue.
"""

from collections.abc import Sequence
from pathlib import Path

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.client.observers.decision_follower import DecisionFollower
from ccs_stream.client.observers.json_lines import LINES_MAX, JsonLines, Line, LineFunction, parse_sink
from ccs_stream.clock import Deadline
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.projections.state_log import state_log_entry
from ccs_stream.projections.transitions import Transitions
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.records import DecisionRecord


class StateLog:
    """The state log of one workspace, from now on.

    A function is called with one line at a time, and may take as long as it likes. When it is too far behind, lines are
    dropped and counted, and their numbers show the gap. A file loses nothing while the process lives: what cannot be
    written is tried again, and waits in the log.
    """

    def __init__(self, coordinator: Coordinator, sink: LineFunction | str | Path, *, instance_id: str) -> None:
        self.instance_id = instance_id
        sink = parse_sink(sink, "state_log")
        self._file = JsonLines(sink) if isinstance(sink, Path) else None
        self._queue = None if isinstance(sink, Path) else BackgroundQueue.for_each("state-log-function", sink)
        self._number = 0
        self._pending: list[Line] = []
        with coordinator.lock:  # reader and fold stand at one place
            self._fold = Transitions.from_directory(coordinator.state)
            self._follower = DecisionFollower(
                coordinator, self._derive, on_caught_up=self._write_pending, name="state-log"
            )

    @property
    def failed(self) -> int:
        """Errors met while the log was followed or lines were written; each was tried again."""
        return self._follower.failed

    @property
    def dropped(self) -> int:
        """Lines that the function never got, because it was too far behind."""
        return 0 if self._queue is None else self._queue.dropped

    @property
    def raised(self) -> int:
        """Lines on which a function raised."""
        return 0 if self._queue is None else self._queue.failures

    def workers(self) -> list[WorkerHealth]:
        """The health of its threads."""
        queue = self._queue
        return [self._follower.health(), *([] if queue is None else [queue.health()])]

    def flush(self, timeout_s: float) -> bool:
        """Wait until the sink has taken what this process knows of the log now; False when that takes longer.

        True in a forked child, which has no state log: its parent goes on with it.
        """
        if self._follower.forked:
            return True
        deadline = Deadline(timeout_s)
        if not self._follower.flush(timeout_s):
            return False
        return self._queue is None or self._queue.flush(deadline.left_s)

    def close(self, timeout_s: float) -> bool:
        """Take what this process knows of the log now, for at most so long, and end; whether the sink has taken it all.

        Close it before the coordinator. Closing twice is fine.
        """
        if self._follower.forked:
            return True
        deadline = Deadline(timeout_s)
        taken = self._follower.close(timeout_s)
        if self._queue is not None:
            taken = self._queue.close(deadline.left_s) and taken
        return taken

    def _derive(self, decision: DecisionRecord, events: Sequence[Event]) -> None:
        for transition in self._fold.decision(decision.first_sequence, decision.recorded_at, events):
            self._number += 1
            line = state_log_entry(transition, sequence_number=self._number, instance_id=self.instance_id)
            self._pending.append(line)
        if len(self._pending) >= LINES_MAX:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._file is not None:
            self._file.append(self._pending)
        elif self._queue is not None:
            for line in self._pending:
                self._queue.submit(line)
        self._pending.clear()
