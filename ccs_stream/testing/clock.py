"""A clock that a test moves by hand, for code that is given a `ccs_stream.clock.Clock`.

Guarantees: time stands still until `advance`; a waiting thread is woken when its time has come or its event is set.
Does not: move by itself when every thread waits; the test says when.
"""

import threading
from collections.abc import Callable
from typing import Final

from ccs_stream.protocol.ids import Micros

_LOOK_EVERY_S: Final = 0.001
"""How often, in real time, a waiter looks whether the test has moved the clock."""
_BEGINNING_S: Final = 1_000_000.0
"""Monotonic time at the start: long after 0, as on a machine that has run for days."""


class ManualClock:
    """Time that moves when `advance` is called."""

    def __init__(self, now: Micros | int = 1_700_000_000_000_000) -> None:
        """Start at `now`, in microseconds since 1970-01-01T00:00:00Z."""
        self._started_at = now
        self._elapsed_us = 0
        self._lock = threading.Lock()

    def advance(self, duration_s: float) -> None:
        """Let `duration_s` pass, at once."""
        with self._lock:
            self._elapsed_us += round(duration_s * 1_000_000)

    def now(self) -> Micros:
        """See `Clock`."""
        return Micros(self._started_at + self._elapsed_us)

    def monotonic(self) -> float:
        """See `Clock`."""
        return _BEGINNING_S + self._elapsed_us / 1_000_000

    def since_boot(self) -> float:
        """See `Clock`."""
        return self.monotonic()

    def sleep(self, duration_s: float) -> None:
        """See `Clock`."""
        self.wait(threading.Event(), duration_s)

    def wait(self, event: threading.Event, timeout_s: float | None = None) -> bool:
        """See `Clock`."""
        deadline = None if timeout_s is None else self.monotonic() + timeout_s
        while not event.wait(_LOOK_EVERY_S):
            if deadline is not None and self.monotonic() >= deadline:
                return event.is_set()
        return True

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """See `Clock`."""
        deadline = None if timeout_s is None else self.monotonic() + timeout_s
        while not predicate():
            if deadline is not None and self.monotonic() >= deadline:
                return predicate()
            condition.wait(_LOOK_EVERY_S)
        return True
