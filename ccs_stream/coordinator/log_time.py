"""The time of a log: by what a coordinator stamps decisions, and by what its clients measure lives and reservations.

`LocalCoordinator` has one. Guarantees: time goes on, at the pace of a clock that nobody sets, from the last time that
is on the log; so it does for a process whose own clock is behind, and on a log whose time is far ahead. A wall clock
that is ahead of (the time known to be right + the time that passed since) by more than `AHEAD_MAX_S` is not followed:
the process goes on by what passed, says so once, and its health shows it. Does not: put back what is on the log
already; nor know better than the first process that opens the log after the machine was started.

How: a time known to be right is that of the first process since the machine was started, which the log may keep
(`LogStore.expected_time`), and whatever this process accepted since. The usual call compares two numbers with the wall
clock.
"""

import logging
import math
from typing import Final

from ccs_stream.clock import Clock
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import Micros

LOG = logging.getLogger(__name__)

AHEAD_MAX_S: Final = 60.0
"""How far a wall clock may jump ahead and be followed. NTP steps a clock by less, once it runs, and corrections after a
leap second or by hand are smaller; what is measured by lives and reservations is rarely harmed by a minute."""
_AHEAD_MAX_US: Final = int(AHEAD_MAX_S * 1_000_000)


class LogTime:
    """See the module's docstring. For all threads; a race between two of them costs a look at the clock."""

    def __init__(self, clock: Clock, what: str, state: Directory, *, expected: Micros | None) -> None:
        """`state` has the last time that is on the log. `expected` is the time as others of this machine know it.

        None where nobody does. `what` is for messages.
        """
        self._state = state
        self._wall = clock.now
        self._since_boot = clock.since_boot
        self._what = what
        self.ahead_s = 0.0
        """By how much the wall clock was ahead when it was last not followed; 0 while it is."""
        self._told = False
        at, wall, recorded_at = self._since_boot(), self._wall(), state.recorded_at
        if expected is not None and expected + _AHEAD_MAX_US < recorded_at:
            expected = None  # the log knows better: the machine began with a clock that was behind
        self._base = wall if expected is None or wall < expected else expected
        """A time known to be right, at `_base_at` of the clock that nobody sets."""
        self._base_at = at
        self._recorded, self._recorded_at = recorded_at, at
        """The last time that is on the log or was told, and when it was noted."""
        self._ceiling = -1
        """Up to this wall time nothing is to be asked. Moves with each look."""

    def now(self) -> Micros:
        """The time of the log."""
        wall = self._wall()
        if self._state.recorded_at <= wall <= self._ceiling:
            return wall
        return self._measured(wall)

    def note(self) -> None:
        """Something was read from the log just now, or something else makes its last time worth noting."""
        recorded_at = self._state.recorded_at
        if recorded_at > self._recorded:
            self._recorded, self._recorded_at = recorded_at, self._since_boot()

    def _measured(self, wall: Micros) -> Micros:
        self.note()
        at = self._since_boot()
        gone_on = self._recorded + _micros(at - self._recorded_at)
        expected = max(self._base + _micros(at - self._base_at), gone_on)
        if wall > expected + _AHEAD_MAX_US:
            self._report(wall - expected)
            wall = Micros(expected)
        else:
            self.ahead_s, self._told = 0.0, False
            if wall > expected:
                self._base, self._base_at, expected = wall, at, wall
            self._ceiling = expected + _AHEAD_MAX_US
        told = max(wall, Micros(gone_on))
        self._recorded, self._recorded_at = told, at
        return told

    def _report(self, ahead_us: int) -> None:
        self.ahead_s, self._ceiling = ahead_us / 1_000_000, -1
        if not self._told:
            self._told = True
            LOG.warning(
                "the clock of this process is %s ahead of the time of %s: it is not followed; set the clock right",
                _text(self.ahead_s),
                self._what,
            )


def _micros(duration_s: float) -> int:
    return math.floor(duration_s * 1_000_000)


def _text(duration_s: float) -> str:
    days, rest = divmod(duration_s, 86_400)
    return f"{days:.0f} days" if days else f"{rest:.0f} s"
