"""Where the decisions of a workspace are in its partition: Kafka finds by offset, and everybody else by sequence.

Guarantees: what it says is the offset of an admitted decision, never of a void one with the same sequences, because it
is told by whoever judged them; its size is that of what exists, plus a hundredth of what happened. Does not: know what
nobody has told it; then it says so.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from ccs_stream.protocol.events import ArtifactDeleted, Event, WriteCommitted

STRIDE: Final = 64
"""Decisions between two that are remembered for good: what lies between is read from the first of them on."""


class SequenceIndex:
    """One workspace's. Told by one thread at a time, in the order of the log."""

    __slots__ = ("_count", "_firsts", "_last", "_made", "_offsets")

    def __init__(self) -> None:
        self._firsts = array("q")
        self._offsets = array("q")
        self._count = 0
        self._last = 0
        """Last sequence told of."""
        self._made: dict[int, int] = {}
        """By sequence, the offset of the decision that made a version which is current."""

    def learn(self, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        """An admitted decision with these events is at `offset`. What is known already is passed over."""
        if first_sequence <= self._last:
            return
        if first_sequence != self._last + 1:
            # Somebody began to read here: what lies before is known by its versions only.
            self._firsts, self._offsets, self._count = array("q"), array("q"), 0
        if self._count % STRIDE == 0:
            self._firsts.append(first_sequence)
            self._offsets.append(offset)
        self._count += 1
        self._last = first_sequence + len(events) - 1
        for number, event in enumerate(events):
            if type(event) is WriteCommitted:
                self._made[first_sequence + number] = offset
                self._made.pop(event.previous_sequence, None)
            elif type(event) is ArtifactDeleted:
                self._made.pop(event.previous_sequence, None)

    def pin(self, made: Mapping[int, int], last_sequence: int) -> None:
        """A snapshot says where the versions are that were current at `last_sequence`."""
        if not self._last:
            self._made.update(made)
            self._last = last_sequence

    def offset_of(self, sequence: int) -> int | None:
        """Offset of the decision that made a current version with the event `sequence`; None for any other."""
        return self._made.get(sequence)

    def before(self, sequence: int) -> int | None:
        """Offset of a decision that is `sequence`'s or not far before it; None where nobody has told."""
        if sequence > self._last:
            return None
        place = bisect_right(self._firsts, sequence) - 1
        return None if place < 0 else self._offsets[place]
