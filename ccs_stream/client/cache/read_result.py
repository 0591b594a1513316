"""What a read found, before it is put into the words of whoever asked.

Guarantees: artifact, position and body are of one moment. Does not: stay current.
"""

import dataclasses

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.log.port import Position
from ccs_stream.protocol.directory import ArtifactState


@dataclasses.dataclass(slots=True)
class ReadResult:
    """A private view of the artifact, where it was taken, and the body of that version."""

    state: ArtifactState
    position: Position
    body: CachedContent
    hit: bool
    """Whether a copy that was held could be served as it stood."""
    stale: bool = False
    """Whether the log could not be asked."""
    degraded: bool = False
    """Whether it is what is known here, because the log is not to be used."""
