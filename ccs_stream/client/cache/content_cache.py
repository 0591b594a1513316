"""The contents that this process holds: one for each artifact, however many agents hold a copy.

Guarantees: bounded by bytes, and the oldest entry goes first. A body fetched from the log is verified against the hash
on the log. Does not: decide who may read a content; the directory's grants do.
"""

import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from ccs_stream.client.results import instant
from ccs_stream.client.values import JSON
from ccs_stream.log.bodies import fetch_bodies, fetch_current_body
from ccs_stream.log.port import LogStore
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Version

DEFAULT_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of bodies kept in memory by default. The log has all of them."""
_OVERHEAD_BYTES: Final = 400
"""Rough cost of an entry beside its body, so that many small bodies are bounded too."""


class CachedContent:
    """The body of one version, with what readers of it need besides."""

    __slots__ = (
        "_created_at",
        "_updated_at",
        "body",
        "content_hash",
        "content_type",
        "created_us",
        "has_ttl",
        "json_body",
        "sequence",
        "updated_us",
        "version",
    )

    stale: Final = False
    """A cached content is served only while it is current; see `ReadContent`."""

    def __init__(self, artifact: ArtifactState, body: bytes, version: Version) -> None:
        self.version = version
        self.body = self.json_body = body
        """As `json_body`, the body of a value that is known to be JSON."""
        self.content_type = artifact.content_type
        self.content_hash = artifact.content_hash
        """Hash of the artifact's content when this was cached: of this body, where the versions are equal."""
        self.sequence = artifact.sequence
        """Sequence of the event that made the artifact's version."""
        self.has_ttl = artifact.ttl_us is not None
        """True if a read may extend its life."""
        self.created_us = artifact.created_at
        self.updated_us = artifact.updated_at
        self._created_at: dt.datetime | None = None
        self._updated_at: dt.datetime | None = None

    @property
    def created_at(self) -> dt.datetime:
        """When the artifact came into being, UTC. Computed at the first access."""
        if self._created_at is None:
            self._created_at = instant(self.created_us)
        return self._created_at

    @property
    def updated_at(self) -> dt.datetime:
        """When this version was written, UTC."""
        if self._updated_at is None:
            self._updated_at = instant(self.updated_us)
        return self._updated_at


class NoJsonContent(CachedContent):
    """The content of a value that is not JSON, such as bytes. Its `json_body` raises `UsageError`."""

    __slots__ = ("_name",)

    def __init__(self, artifact: ArtifactState, body: bytes, version: Version) -> None:
        super().__init__(artifact, body, version)
        self._name = f"{artifact.key!r} in {artifact.scope!r}" if artifact.scope else repr(artifact.key)
        del self.json_body

    def __getattr__(self, name: str) -> bytes:
        if name == "json_body":
            raise UsageError(
                f"{self._name} is {self.content_type}, and not JSON: read it as an agent of the workspace does"
            )
        raise AttributeError(name)


def cached_content(artifact: ArtifactState, body: bytes, version: Version) -> CachedContent:
    """The content of a version."""
    return (CachedContent if artifact.content_type == JSON else NoJsonContent)(artifact, body, version)


class ContentCache:
    """Contents by artifact: the version last read or written in this process. For all threads."""

    def __init__(self, store: LogStore, shard: str, *, bytes_max: int = DEFAULT_BYTES_MAX) -> None:
        self._store = store
        self._shard = shard
        self._bytes_max = bytes_max
        self._bytes = 0
        self._counting = False
        """True while `_bytes` may differ from what is kept."""
        self._kept: dict[ArtifactId, CachedContent] = {}
        self._lock = threading.Lock()
        self.get = self._kept.get
        """The content of an artifact, of whatever version is kept. Compare its `version` before use."""

    def keep(self, artifact: ArtifactState, body: bytes, version: Version) -> CachedContent:
        """Keep the body of `version`, which must be the artifact's own when `artifact` may have moved on."""
        entry = cached_content(artifact, body, version)
        if artifact.version != version:
            return entry
        with self._lock:
            kept = self._kept
            if self._counting:  # an interrupt came while an entry was kept
                self._bytes = sum(len(each.body) + _OVERHEAD_BYTES for each in tuple(kept.values()))
            self._counting = True
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
            self._counting = False
        return entry

    def fetch(self, artifact: ArtifactState) -> bytes:
        """The body of the artifact's current version, from the log. Raises `ContentMissing`."""
        return fetch_current_body(self._store, self._shard, artifact)

    def fetch_and_keep(self, artifact: ArtifactState) -> CachedContent:
        """The content of the artifact's current version, from the log; kept from now on. Raises `ContentMissing`."""
        return self.keep(artifact, self.fetch(artifact), artifact.version)

    def fetch_each(self, artifacts: Sequence[ArtifactState]) -> Iterator[tuple[int, CachedContent]]:
        """The contents of the current versions of `artifacts`, each with its place in that sequence, in any order.

        Those that are not here are read from the log in bulk, and kept. One that the log no longer has is left out.
        """
        missing: list[int] = []
        for place, artifact in enumerate(artifacts):
            kept = self.get(artifact.artifact)
            if kept is not None and kept.version == artifact.version:
                yield place, kept
            else:
                missing.append(place)
        if missing:
            for place, body in fetch_bodies(self._store, self._shard, [artifacts[each] for each in missing]):
                artifact = artifacts[missing[place]]
                yield missing[place], self.keep(artifact, body, artifact.version)
