"""The content audit: every value that this process hands to agents, as dictionaries for a function or lines for a file.

A workspace has one where `content_audit_log=` names a function or a file.

Guarantees: entries are numbered from 1 without gaps. A function so far behind that entries are dropped sees a gap.
Whoever reads or writes never waits for it. Does not: hold bodies; a hash names the content.

How: a queue `ccs-content-audit`, whose worker calls the function or appends to the file.
"""

from pathlib import Path

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.client.cache.delivery import PendingDelivery, to_record
from ccs_stream.client.observers.json_lines import LINES_MAX, JsonLines, Line, LineFunction
from ccs_stream.projections.state_log import content_audit_entry


class ContentAudit:
    """The content audit of one workspace. A function is called with one entry at a time."""

    def __init__(self, sink: LineFunction | Path, *, instance_id: str) -> None:
        self._instance_id = instance_id
        self._number = 0
        self._queue: BackgroundQueue[PendingDelivery]
        if isinstance(sink, Path):
            lines = JsonLines(sink)
            self._queue = BackgroundQueue(
                "content-audit",
                lambda batch: lines.append([self._entry(each) for each in batch]),
                batch_max=LINES_MAX,
            )
        else:
            function = sink
            self._queue = BackgroundQueue.for_each("content-audit", lambda each: function(self._entry(each)))
        self.record = self._queue.submit
        """Take a delivery. Never waits and never raises."""

    def health(self) -> WorkerHealth:
        """The health of the queue."""
        return self._queue.health()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the sink has taken everything; False when that takes longer."""
        return self._queue.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Hand over what is left, for at most so long, and end; True if the sink has taken all."""
        return self._queue.close(timeout_s)

    def _entry(self, delivery: PendingDelivery) -> Line:
        record = to_record(delivery)
        self._number += 1
        return content_audit_entry(
            agent=record.agent,
            artifact=record.artifact,
            version=record.version or None,
            content_hash=record.content_hash.hex() or None,
            source=record.source.value,
            outcome=record.outcome.value,
            sequence=record.valid_at_sequence,
            sequence_number=self._number + self._queue.dropped,
            instance_id=self._instance_id,
        )
