"""Who was given what, on its way to the second stream: told aside, numbered, written in batches.

Guarantees: whoever reads or writes neither waits for any of it nor hears of its errors; deliveries are numbered from 1
in their session, in the order in which they were given; what could not be kept leaves a gap in the numbers, so that a
loss shows. Does not: survive a kill whole: what was given in the last `FLUSH_S` seconds, and the batch under way, may
be lost (at most `WAITING_MAX`). After an append whose outcome was unknown a delivery may be there twice, under one
number.
"""

import collections
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.log.deliveries import encode_delivery, encode_full, given_bytes
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.deliveries import (
    DeliveryForm,
    DeliveryFreshness,
    DeliveryOutcome,
    DeliveryRecorded,
    DeliverySource,
)
from ccs_stream.protocol.errors import CcsError, Closed
from ccs_stream.protocol.ids import ArtifactId, Micros, SequenceNumber, SessionId, Version

LOG = logging.getLogger(__name__)

FLUSH_S: Final = 1.0
"""How long deliveries gather before they are written: an append beside a busy log costs an fsync, or a round trip."""
HURRY: Final = 20_000
"""So many do not wait for that."""
BATCH_MAX: Final = 2_000
"""Deliveries in one append: some 300 KB."""
WAITING_MAX: Final = 200_000
"""Deliveries that may wait, some 40 MB; what comes then is dropped, and leaves a gap."""
RETRY_S: Final = 1.0
"""Pause after an append that failed."""
FAREWELL_S: Final = 5.0
"""How long closing waits for the last append."""

Context = tuple[str | None, int | None]
"""Conversation and generation, where the caller knows."""
Hit = tuple[
    SessionId,
    str,
    ArtifactId,
    Version,
    bytes,
    DeliverySource,
    DeliveryFreshness,
    SequenceNumber,
    Micros,
    Context | None,
]
"""A delivery of content in full, as cheap to make as can be: session, agent, artifact, version, hash, source,
freshness, sequence, time, context."""
Given = Hit | DeliveryRecorded
"""A delivery on its way; it has no number yet."""
Give = Callable[[Given], None]


def recorded(given: Given) -> DeliveryRecorded:
    """The delivery, without a number."""
    if type(given) is DeliveryRecorded:
        return given
    session_id, agent, artifact, version, content_hash, source, freshness, sequence, at, context = given  # type: ignore[misc]
    conversation, generation = (None, None) if context is None else context
    return DeliveryRecorded(
        session_id=session_id,
        number=0,
        agent=agent,
        artifact=artifact,
        version=version,
        content_hash=content_hash,
        source=source,
        outcome=DeliveryOutcome.CONTENT,
        freshness=freshness,
        valid_at_sequence=sequence,
        at=at,
        conversation=conversation,
        generation=generation,
        form=DeliveryForm.FULL,
    )


class DeliveryLog:
    """See the module's docstring. One for a workspace; its thread begins with the first delivery."""

    def __init__(self, store: LogStore, shard: str) -> None:
        self.dropped = 0
        """Deliveries that nobody could keep."""
        self.written = 0
        """Deliveries in the second stream."""
        self.failed = 0
        """Appends that failed; each was tried again."""
        self._store = store
        self._shard = shard
        self._numbers: dict[SessionId, int] = {}
        """The last number of each session."""
        self._session: SessionId | None = None
        """The session of the last delivery."""
        self._begin()

    def give(self, given: Given) -> None:
        """Have it recorded, some time."""
        waiting = self._waiting
        if len(waiting) >= HURRY:
            if len(waiting) >= WAITING_MAX:
                self._drop(1)
                return
            self._hurry.set()
        waiting.append(given)
        if not self._awake:
            self._wake()

    def settle(self, timeout_s: float) -> bool:
        """Wait until what was given is in the stream; False when that takes longer."""
        deadline = time.monotonic() + timeout_s
        while self._waiting or self._unwritten:
            self._hurry.set()
            if time.monotonic() >= deadline or self._thread is None or not self._thread.is_alive():
                return not self._waiting and not self._unwritten
            time.sleep(0.002)
        return True

    def close(self, timeout_s: float = FAREWELL_S) -> bool:
        """Record what is left, for at most so long, and end. Whether all was recorded."""
        if self._pid != os.getpid():
            return True
        self._closed = True
        self._hurry.set()
        self._called.set()
        thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        left = len(self._waiting) + len(self._unwritten)
        if left:
            LOG.warning("%d deliveries of %s were not recorded", left, self._store.display_url)
        return not left

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._waiting: collections.deque[Given] = collections.deque()
        self._unwritten: list[bytes] = []
        self._missing: collections.Counter[SessionId] = collections.Counter()
        self._awake = False
        self._closed = False
        self._lock = threading.Lock()
        self._called = threading.Event()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # what waited is the parent's
            return
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="ccs-deliveries", daemon=True)
                self._thread.start()
            self._awake = True
        self._called.set()

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self.dropped == count:
            LOG.warning(
                "%s takes deliveries more slowly than they come: what comes now is dropped, and leaves gaps in the "
                "numbers",
                self._store.display_url,
            )
        last = next(reversed(self._numbers), None)
        if last is not None:
            self._missing[last] += count

    def _run(self) -> None:
        while not self._closed:
            self._called.wait()
            self._called.clear()
            self._hurry.wait(FLUSH_S)
            self._awake = False  # before looking: whoever gives from here on calls again
            self._write()
            if self._unwritten and not self._closed:
                self._hurry.clear()
                self._hurry.wait(RETRY_S)
                self._called.set()
        self._write()

    def _write(self) -> None:
        self._hurry.clear()
        while self._unwritten or self._waiting:
            while self._waiting and len(self._unwritten) < BATCH_MAX:
                self._unwritten.append(self._numbered(self._waiting.popleft()))
            try:
                self._append(self._unwritten)
            except Closed:
                return
            except (CcsError, OSError) as error:
                self.failed += 1
                if self.failed == 1:
                    LOG.warning("deliveries could not be recorded, and wait: %s", error)
                return
            self.written += len(self._unwritten)
            self._unwritten = []

    def _append(self, batch: Sequence[bytes]) -> None:
        self._store.append_deliveries(self._shard, batch)

    def _numbered(self, given: Given) -> bytes:
        if type(given) is not tuple or given[-1] is not None:
            delivery = recorded(given)
            delivery.number = self._next(delivery.session_id)
            return encode_delivery(delivery)
        # Hits are nearly all there is: the record that `recorded` makes would cost as much as all the rest of it.
        session_id, agent, artifact, version, content_hash, source, freshness, sequence, at, _ = given
        known = given_bytes(agent, artifact, version, content_hash, source, DeliveryOutcome.CONTENT)
        return encode_full(session_id, self._next(session_id), known, freshness, sequence, at)

    def _next(self, session: SessionId) -> int:
        if session != self._session or self._missing:
            # The newest session is the last in the order, and the one that a loss is counted against.
            self._numbers[session] = self._numbers.pop(session, 0) + self._missing.pop(session, 0)
            self._session = session
        number = self._numbers[session] + 1
        self._numbers[session] = number
        return number
