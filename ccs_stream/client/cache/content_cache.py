"""The bodies this process holds: each once, however many participants hold a copy.

Guarantees: bounded by bytes, what was kept first goes first; a body fetched from the log is verified against the hash
on the log. Does not: decide who may read it; that is the directory's grant.
"""

import datetime as dt
import threading
from typing import Final

from ccs_stream.client.results import instant
from ccs_stream.log.bodies import fetch_body
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import ArtifactId, Version

DEFAULT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bodies kept in memory by default; the log has all of them."""
_OVERHEAD_BYTES: Final = 400
"""Rough cost of an entry beside its body, so that many small bodies are bounded too."""


class CachedContent:
    """One version's body, with what readers of it need besides."""

    __slots__ = (
        "_created_at",
        "_updated_at",
        "body",
        "content_hash",
        "content_type",
        "created_us",
        "sequence",
        "ttl",
        "updated_us",
        "version",
    )

    def __init__(self, artifact: ArtifactState, body: bytes, version: Version) -> None:
        self.version = version
        self.body = body
        self.content_type = artifact.content_type
        self.content_hash = artifact.content_hash
        """Of the artifact as it stood; of this body where the versions are the same."""
        self.sequence = artifact.sequence
        """Of the event that made the version, likewise."""
        self.ttl = artifact.ttl_us is not None
        """Whether reading it may extend its life."""
        self.created_us = artifact.created_at
        self.updated_us = artifact.updated_at
        self._created_at: dt.datetime | None = None
        self._updated_at: dt.datetime | None = None

    @property
    def created_at(self) -> dt.datetime:
        """When the artifact came into being; made when first asked for."""
        if self._created_at is None:
            self._created_at = instant(self.created_us)
        return self._created_at

    @property
    def updated_at(self) -> dt.datetime:
        """When this version was written."""
        if self._updated_at is None:
            self._updated_at = instant(self.updated_us)
        return self._updated_at


class ContentCache:
    """Bodies by artifact: the version last read or written here."""

    def __init__(self, store: LogStore, shard: str, *, bytes_max: int = DEFAULT_BYTES_MAX) -> None:
        self._store = store
        self._shard = shard
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: dict[ArtifactId, CachedContent] = {}
        self._lock = threading.Lock()
        self.get = self._kept.get
        """The body of an artifact, of whatever version is kept; compare its `version` before use."""

    def keep(self, artifact: ArtifactState, body: bytes, version: Version) -> CachedContent:
        """Keep the body of `version`, which must be the artifact's own when `artifact` may have moved on."""
        entry = CachedContent(artifact, body, version)
        if artifact.version != version:
            return entry
        with self._lock:
            kept = self._kept
            old = kept.get(artifact.artifact)
            kept[artifact.artifact] = entry
            self._bytes += len(body)
            if old is not None:
                self._bytes -= len(old.body)
            else:
                self._bytes += _OVERHEAD_BYTES
            while self._bytes > self._bytes_max and len(kept) > 1:
                oldest = next(iter(kept))
                self._bytes -= len(kept.pop(oldest).body) + _OVERHEAD_BYTES
        return entry

    def fetch(self, artifact: ArtifactState) -> bytes:
        """The body of the artifact's current version, from the log. Raises `ContentMissing`."""
        return fetch_body(
            self._store,
            self._shard,
            sequence=artifact.sequence,
            content_index=artifact.content_index,
            locator=artifact.content_locator,
            content_hash=artifact.content_hash,
            what=f"{artifact.key!r} version {artifact.version}",
        )
