"""Where the decisions of a workspace are in its partition: Kafka finds by offset, and everybody else by sequence.

Guarantees: what it says is the offset of the admitted decision, never of a void one with the same sequences, because it
is told by whoever judged them. Does not: know what nobody has told it; then it says so.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping


class SequenceIndex:
    """One workspace's; sixteen bytes a decision."""

    __slots__ = ("_firsts", "_last", "_offsets", "_pins")

    def __init__(self) -> None:
        self._firsts = array("q")
        self._offsets = array("q")
        self._last = 0
        """Last sequence told of."""
        self._pins: dict[int, int] = {}
        """Single sequences known from a snapshot."""

    def learn(self, first_sequence: int, last_sequence: int, offset: int) -> None:
        """An admitted decision is at `offset`. Told in order; what is known already is passed over."""
        if first_sequence <= self._last and self._firsts:
            return
        if first_sequence != self._last + 1:
            # Somebody began to read here: what lies before is known by pins only.
            self._firsts, self._offsets = array("q"), array("q")
        self._firsts.append(first_sequence)
        self._offsets.append(offset)
        self._last = last_sequence

    def pin(self, offsets: Mapping[int, int]) -> None:
        """The decisions that hold these sequences are at these offsets."""
        self._pins.update(offsets)

    def offset_of(self, sequence: int) -> int | None:
        """Offset of the decision that holds `sequence`; None when nobody has told."""
        if sequence <= self._last:
            place = bisect_right(self._firsts, sequence) - 1
            if place >= 0:
                return self._offsets[place]
        return self._pins.get(sequence)
