"""The bodies of replaced versions that a log in memory still keeps, and the freeing of those beyond a budget.

`MemoryLog` has one for each shard.

Guarantees: the body of a current version is never freed; those of replaced and deleted versions are freed in the order
in which they were replaced, once they exceed the budget together. Does not: touch records; events, hashes and versions
stay, so that the log reads and folds as before.
"""

from collections import deque
from collections.abc import MutableMapping, Sequence
from typing import Final

from ccs_stream.log.port import NOT_KEPT, StoredRecord
from ccs_stream.protocol.events import ArtifactDeleted, Event, WriteCommitted
from ccs_stream.protocol.ids import ArtifactId

REPLACED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of bodies of replaced and deleted versions that a log in memory keeps."""

_Place = tuple[StoredRecord, int | None, bytes | None, int]
"""Where a body is: its record and the place in it, or its locator; and its size."""


class ReplacedBodies:
    """See the module's docstring. The caller has the shard's turn."""

    __slots__ = ("_bytes", "_bytes_max", "_contents", "_current", "_replaced")

    def __init__(self, contents: MutableMapping[bytes, bytes], bytes_max: int) -> None:
        """`contents` are the bodies beside the records, by locator."""
        self._contents = contents
        self._bytes_max = bytes_max
        self._bytes = 0
        self._current: dict[ArtifactId, _Place] = {}
        self._replaced: deque[_Place] = deque()

    def note(self, decisions: Sequence[tuple[StoredRecord, Sequence[Event]]]) -> None:
        """Note what decisions wrote, replaced and deleted, in their order; free what is beyond the budget."""
        current = self._current
        for stored, events in decisions:
            for event in events:
                if type(event) is WriteCommitted:
                    self._replace(event.artifact)
                    current[event.artifact] = (stored, event.content_index, event.content_locator, event.content_size)
                elif type(event) is ArtifactDeleted:
                    self._replace(event.artifact)
        while self._bytes > self._bytes_max and self._replaced:
            self._free(self._replaced.popleft())

    def _replace(self, artifact: ArtifactId) -> None:
        place = self._current.pop(artifact, None)
        if place is not None:
            self._replaced.append(place)
            self._bytes += place[3]

    def _free(self, place: _Place) -> None:
        stored, index, locator, size = place
        self._bytes -= size
        if locator is not None:
            self._contents[locator] = NOT_KEPT
        elif index is not None:
            stored.drop_content(index)
