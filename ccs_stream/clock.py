"""The clock that coordinators and background workers read and wait by; tests replace it with one they move by hand.

Guarantees: code that is given a `Clock` takes wall time, monotonic time and every timed wait from it, so that a test
with a manual clock (`ccs_stream.testing.clock`) needs no real sleeping. The system's clock costs what the functions of
`time` and `threading` cost. Does not: reach into the stores; SQLite and librdkafka keep time-outs of their own.

A client passes a clock through by handing it to `open_coordinator(..., clock=...)` and to the queues and periodic tasks
that it makes; what a coordinator was given is its `clock`. All of them use `SYSTEM_CLOCK` unless given another.

A `Deadline` is the end of a wait that several steps share, such as the closing of several queues.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from ccs_stream.protocol.ids import Micros


def wall_clock() -> Micros:
    """The machine's wall time: microseconds since 1970-01-01T00:00:00Z."""
    return Micros(time.time_ns() // 1_000)


def since_boot() -> float:
    """Seconds since the machine was started, its sleep included, where the system counts that."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
"""On Linux the monotonic clock stands still while the machine sleeps, and this one does not."""


def boot_id() -> str | None:
    """The name of the machine's present run; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


class Clock(Protocol):
    """Tells the time and waits. Every method may be called from any thread."""

    def now(self) -> Micros:
        """Wall time: microseconds since 1970-01-01T00:00:00Z."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back. For deadlines."""

    def since_boot(self) -> float:
        """Seconds since the machine was started, its sleep included, where the system counts that. Nobody sets it."""

    def sleep(self, duration_s: float) -> None:
        """Return after `duration_s`."""

    def wait(self, event: threading.Event, timeout_s: float | None = None) -> bool:
        """Wait until `event` is set, for at most `timeout_s`; whether it is set."""

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait until `predicate()` holds, for at most `timeout_s`; whether it does. The caller holds `condition`."""


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(wall_clock)
    monotonic = staticmethod(time.monotonic)
    since_boot = staticmethod(since_boot)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def wait(event: threading.Event, timeout_s: float | None = None) -> bool:
        """See `Clock`."""
        return event.wait(timeout_s)

    @staticmethod
    def wait_for(condition: threading.Condition, predicate: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """See `Clock`."""
        return condition.wait_for(predicate, timeout_s)


SYSTEM_CLOCK: Final[Clock] = SystemClock()
"""The clock of everything that is not given another."""


class Deadline:
    """The end of a wait that is shared by several steps. `Deadline(5.0)` is five seconds from now."""

    __slots__ = ("_ends_at",)

    def __init__(self, timeout_s: float) -> None:
        self._ends_at = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._ends_at - time.monotonic())
