"""Timing callables in turns.

Guarantees: the callables of one comparison run in turns, batch by batch, and a ratio is the median of the ratios of
the turns: what slows the machine for a moment slows both sides of a ratio. Does not: look at tails.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    turns: int
    batch_s: float
    """Time one callable runs in one turn."""


FULL = Effort(turns=15, batch_s=0.04)
QUICK = Effort(turns=3, batch_s=0.004)


@dataclasses.dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a call, one a turn, by name."""

    by_name: Mapping[str, list[float]]

    def seconds(self, name: str) -> float:
        """The median, in seconds a call."""
        return statistics.median(self.by_name[name])

    def ratio(self, name: str, over: str) -> float:
        """How many times longer `name` takes than `over`: the median of the turns."""
        pairs = zip(self.by_name[name], self.by_name[over], strict=True)
        return statistics.median(one / other for one, other in pairs)


def in_turns(effort: Effort, calls: Mapping[str, Call]) -> Timings:
    """Time `calls` in turns. Each is called a few times before, so that none is measured cold."""
    counts = {name: _calibrated(call, effort.batch_s) for name, call in calls.items()}
    by_name: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(effort.turns):
        for name, call in calls.items():
            by_name[name].append(batch(call, counts[name]))
    return Timings(by_name)


def batch(call: Call, count: int) -> float:
    """Seconds a call over `count` calls."""
    turns = range(count)
    began = time.perf_counter()
    for _ in turns:
        call()
    return (time.perf_counter() - began) / count


def once(call: Call) -> float:
    """Seconds that one call takes."""
    return batch(call, 1)


def _calibrated(call: Call, batch_s: float) -> int:
    """How many calls fill a batch."""
    count = 1
    while True:
        spent = batch(call, count) * count
        if spent >= batch_s / 4 or count >= 1 << 20:
            return max(1, round(count * batch_s / max(spent, 1e-9)))
        count *= 4
