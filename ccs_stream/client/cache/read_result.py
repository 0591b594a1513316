"""The result of a read, before it becomes a `Reading` of a workspace or an item of a framework.

Guarantees: artifact, position and content are of one moment. Does not: stay current.
"""

import dataclasses
import datetime as dt
from typing import Protocol

from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.log.port import Position
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import Version


class ReadContent(Protocol):
    """A value that was read, as far as an adapter needs it. A `CachedContent` is one, and so is a `ReadResult`."""

    @property
    def body(self) -> bytes:
        """The bytes of this version."""

    @property
    def json_body(self) -> bytes:
        """The same bytes, where the value is JSON. Raises `UsageError` for any other."""

    @property
    def version(self) -> Version:
        """The version read."""

    @property
    def created_at(self) -> dt.datetime:
        """When the artifact came into being, UTC."""

    @property
    def updated_at(self) -> dt.datetime:
        """When this version was written, UTC."""

    @property
    def stale(self) -> bool:
        """True if the log could not be asked, so that a newer version may exist."""


@dataclasses.dataclass(slots=True)
class ReadResult:
    """A private copy of the artifact's state, the position it was taken at, and the content of that version."""

    state: ArtifactState
    position: Position
    content: CachedContent
    hit: bool
    """True if the agent held a current copy already."""
    stale: bool = False
    """True if the log could not be asked."""
    degraded: bool = False
    """True if it was answered in degraded mode, from what this process knows."""

    @property
    def body(self) -> bytes:
        """The bytes of this version."""
        return self.content.body

    @property
    def json_body(self) -> bytes:
        """The same bytes, where the value is JSON. Raises `UsageError` for any other."""
        return self.content.json_body

    @property
    def version(self) -> Version:
        """The version read."""
        return self.content.version

    @property
    def created_at(self) -> dt.datetime:
        """When the artifact came into being, UTC."""
        return self.content.created_at

    @property
    def updated_at(self) -> dt.datetime:
        """When this version was written, UTC."""
        return self.content.updated_at
