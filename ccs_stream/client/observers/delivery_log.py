"""The delivery log: writes which agent got which version to the second stream of the log, off the hot path.

A workspace has one where deliveries are recorded. `DeliveryRecorder` hands every delivery to it.

Guarantees: deliveries are numbered from 1 in each session, in the order in which they were handed over, so that a loss
shows as a gap. Whoever reads or writes neither waits nor hears of an error. An append that fails is tried again. Does
not: survive a kill; the deliveries of the last second are lost then, without a gap.

How: a queue `ccs-deliveries` lets deliveries gather for a second and appends them in batches. Its worker may block on
the log, which nobody but `flush` and `close` waits for.
"""

import collections
import logging
from typing import Final

from ccs_stream.background import BackgroundQueue, WorkerHealth
from ccs_stream.client.cache.delivery import PendingDelivery, to_record
from ccs_stream.log.deliveries import encode_delivery, encode_full, given_bytes
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.deliveries import DeliveryOutcome
from ccs_stream.protocol.ids import SessionId

LOG = logging.getLogger(__name__)

GATHER_S: Final = 1.0
"""How long deliveries gather before they are written: an append beside a busy log costs an fsync, or a round trip."""
HURRY_AT: Final = 20_000
"""So many deliveries do not wait for that."""
BATCH_MAX: Final = 2_000
"""Deliveries in one append: some 300 KB."""
WAITING_MAX: Final = 200_000
"""Deliveries that may wait, some 40 MB. Later ones are dropped, and leave a gap."""
RETRY_S: Final = 1.0
"""Pause after an append that failed."""


class DeliveryLog:
    """The deliveries of one workspace's agents on their way to the log. For all threads."""

    def __init__(self, store: LogStore, shard: str) -> None:
        self._store = store
        self._shard = shard
        self._numbers: dict[SessionId, int] = {}
        """The last number of each session."""
        self._session: SessionId | None = None
        """The session of the last delivery."""
        self._missing: collections.Counter[SessionId] = collections.Counter()
        """Dropped deliveries that no gap shows yet."""
        self._batch: list[PendingDelivery] | None = None
        self._encoded: list[bytes] = []
        """The records of `_batch`; they keep their numbers when an append is tried again."""
        self._queue: BackgroundQueue[PendingDelivery] = BackgroundQueue(
            "deliveries",
            self._append,
            batch_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            gather_s=GATHER_S,
            hurry_at=HURRY_AT,
            retry_s=RETRY_S,
            on_failure=self._report_failure,
            on_drop=self._count_missing,
        )
        self.record = self._queue.submit
        """Take a delivery. Never waits and never raises."""

    def health(self) -> WorkerHealth:
        """The health of the queue."""
        return self._queue.health()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was handed over is in the log; False when that takes longer."""
        return self._queue.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Record what is left, for at most so long, and end; whether all was recorded."""
        return self._queue.close(timeout_s)

    def _append(self, batch: list[PendingDelivery]) -> None:
        if batch is not self._batch:
            self._encoded = [self._encode(each) for each in batch]
            self._batch = batch
        self._store.append_deliveries(self._shard, self._encoded)
        self._batch, self._encoded = None, []

    def _report_failure(self, error: BaseException) -> None:
        LOG.warning("deliveries could not be recorded in %s, and wait: %s", self._store.display_url, error)

    def _count_missing(self, delivery: PendingDelivery) -> None:
        session_id = delivery[0] if type(delivery) is tuple else delivery.session_id  # type: ignore[union-attr]
        self._missing[session_id] += 1

    def _encode(self, delivery: PendingDelivery) -> bytes:
        if type(delivery) is not tuple or delivery[-1] is not None:
            record = to_record(delivery)
            record.number = self._next_number(record.session_id)
            return encode_delivery(record)
        # Hits are nearly all there is: the record that `to_record` makes would cost as much as everything else.
        session_id, agent, artifact, version, content_hash, source, freshness, sequence, at, _ = delivery
        known = given_bytes(agent, artifact, version, content_hash, source, DeliveryOutcome.CONTENT)
        return encode_full(session_id, self._next_number(session_id), known, freshness, sequence, at)

    def _next_number(self, session: SessionId) -> int:
        if session != self._session or self._missing:
            self._numbers[session] = self._numbers.pop(session, 0) + self._missing.pop(session, 0)
            self._session = session
        number = self._numbers[session] + 1
        self._numbers[session] = number
        return number
