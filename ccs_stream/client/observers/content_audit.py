"""The content audit: everything this process hands out to agents, told to whoever asked, in the form they know.

Guarantees: entries are numbered from 1 without gaps; a listener so far behind that some are dropped sees that by a gap;
nobody who reads or writes waits for it. Does not: hold bodies; a hash says which content it was.
"""

import threading
from pathlib import Path

from ccs_stream.client.observers.background_call import BackgroundCall
from ccs_stream.client.observers.delivery_log import Given, recorded
from ccs_stream.client.observers.state_log import BATCH_MAX, Callback, JsonLines, Line
from ccs_stream.projections.state_log import content_audit_entry


class ContentAudit:
    """One for a workspace. A function is told one entry at a time; to a file they are appended."""

    def __init__(self, sink: Callback | Path, *, instance_id: str) -> None:
        self._file = JsonLines(sink) if isinstance(sink, Path) else None
        self._tell = self._gather if isinstance(sink, Path) else sink
        self._gathered: list[Line] = []
        self._lock = threading.Lock()
        self._instance_id = instance_id
        self._number = 0
        self._aside: BackgroundCall[Given] = BackgroundCall("content_audit_log", self._entry)
        self.give = self._aside.give
        """Have a delivery told."""

    @property
    def dropped(self) -> int:
        """Entries that were not told, because the listener was too far behind."""
        return self._aside.dropped

    def settle(self, timeout_s: float) -> bool:
        """Wait until all is told; False when that takes longer."""
        settled = self._aside.settle(timeout_s)
        self._flush()
        return settled

    def close(self, timeout_s: float) -> bool:
        """Tell what is left, for at most so long. Whether all was told."""
        settled = self._aside.close(timeout_s)
        self._flush()
        return settled

    def _entry(self, given: Given) -> None:
        delivery = recorded(given)
        self._number += 1
        self._tell(
            content_audit_entry(
                agent=delivery.agent,
                artifact=delivery.artifact,
                version=delivery.version or None,
                content_hash=delivery.content_hash.hex() or None,
                source=delivery.source.value,
                outcome=delivery.outcome.value,
                sequence=delivery.valid_at_sequence,
                sequence_number=self._number + self._aside.dropped,
                instance_id=self._instance_id,
            )
        )

    def _gather(self, entry: Line) -> None:
        """Append what has come by now: one at a time while few come, many at once when they come faster."""
        with self._lock:
            self._gathered.append(entry)
        if len(self._gathered) >= BATCH_MAX or not self._aside.waiting:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            gathered, self._gathered = self._gathered, []
            if self._file is not None:
                self._file.append(gathered)
