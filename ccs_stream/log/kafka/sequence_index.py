"""An index from sequences to offsets of one workspace: Kafka finds records by offset, and callers know sequences.

The Kafka store holds one for each workspace; readers feed it through `LogStore.learn`.

Guarantees: an offset that it returns is that of an admitted decision, never of a void one with the same sequences,
because only readers that admitted the decision report it. It holds an entry for each current version, and one for every
64 decisions. Does not: know decisions that were not reported; for those it returns None.
"""

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from ccs_stream.protocol.events import ArtifactDeleted, Event, WriteCommitted

STRIDE: Final = 64
"""Of so many decisions one is remembered for good. The others are found by reading on from it."""


class SequenceIndex:
    """See the module's docstring. One thread at a time feeds it, in the order of the log."""

    __slots__ = ("_count", "_firsts", "_last", "_made", "_offsets")

    def __init__(self) -> None:
        self._firsts = array("q")
        self._offsets = array("q")
        self._count = 0
        self._last = 0
        """Last sequence that was reported."""
        self._made: dict[int, int] = {}
        """By sequence, the offset of the decision that made a version which is current."""

    def learn(self, first_sequence: int, offset: int, events: Sequence[Event]) -> None:
        """Remember that an admitted decision with these events is at `offset`. Known decisions are passed over."""
        if first_sequence <= self._last:
            return
        if first_sequence != self._last + 1:
            # A reader began here: earlier decisions are known only by the versions that are current.
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
        """Take over from a snapshot where the versions are that were current at `last_sequence`."""
        if not self._last:
            self._made.update(made)
            self._last = last_sequence

    def offset_of(self, sequence: int) -> int | None:
        """Offset of the decision that made a current version with the event `sequence`; None for any other."""
        return self._made.get(sequence)

    def before(self, sequence: int) -> int | None:
        """Offset of the decision that holds `sequence`, or of one not far before it; None if none was reported."""
        if sequence > self._last:
            return None
        place = bisect_right(self._firsts, sequence) - 1
        return None if place < 0 else self._offsets[place]
