"""The body of a write, found where the log keeps it: in its decision or in the content store.

The client's content cache, the history of an artifact and `ccs-replay` use it.

Guarantees: a body that is returned has the hash that its event names. Does not: cache.
"""

import hashlib
from collections.abc import Iterator, Sequence

from ccs_stream.log.port import NOT_KEPT, LogStore
from ccs_stream.log.replaced_bodies import REPLACED_BYTES_MAX
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import ContentMissing
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import Hash, SequenceNumber


def verified(body: bytes, content_hash: Hash, what: str) -> bytes:
    """The body itself, if it has this hash. Raises `ContentMissing`."""
    if body is NOT_KEPT:
        raise ContentMissing(
            f"the body of {what} is no longer kept: its version was replaced, and a log in memory keeps such bodies "
            f"within {REPLACED_BYTES_MAX // 1024**2} MiB; a log in a file (sqlite:///...) keeps all of them"
        )
    if hashlib.sha256(body).digest() != content_hash:
        raise ContentMissing(f"the body of {what} is not the one its hash names: it was altered where it is kept")
    return body


def fetch_body(store: LogStore, shard: str, sequence: SequenceNumber, event: WriteCommitted, what: str) -> bytes:
    """The body that `event`, at `sequence`, has written. Raises `ContentMissing`, which calls it `what`."""
    return _fetch(store, shard, sequence, event.content_index, event.content_locator, event.content_hash, what)


def fetch_current_body(store: LogStore, shard: str, artifact: ArtifactState) -> bytes:
    """The body of an artifact's current version. Raises `ContentMissing`."""
    what = f"{artifact.key!r} version {artifact.version}"
    locator, content_hash = artifact.content_locator, artifact.content_hash
    return _fetch(store, shard, artifact.sequence, artifact.content_index, locator, content_hash, what)


def _fetch(  # what an event says about a body
    store: LogStore,
    shard: str,
    sequence: SequenceNumber,
    content_index: int | None,
    locator: bytes | None,
    content_hash: Hash,
    what: str,
) -> bytes:
    """The body of the write at `sequence`, from its decision or the content store."""
    if locator is not None:
        return verified(store.get_content(locator), content_hash, what)
    stored = store.find(shard, sequence)
    if stored is None or content_index is None or content_index >= len(stored.contents):
        raise ContentMissing(f"the body of {what} is no longer in the log: it was redacted")
    return verified(stored.contents[content_index], content_hash, what)


def fetch_bodies(store: LogStore, shard: str, artifacts: Sequence[ArtifactState]) -> Iterator[tuple[int, bytes]]:
    """The bodies of the current versions of `artifacts`, each with its place in that sequence, in the order of the log.

    Reads in bulk. A body that was redacted, or is not the one that its hash names, is left out.
    """
    order = sorted(range(len(artifacts)), key=lambda place: artifacts[place].sequence)
    inline = [place for place in order if artifacts[place].content_locator is None]
    for place, stored in zip(inline, store.find_each(shard, [artifacts[at].sequence for at in inline]), strict=True):
        index = artifacts[place].content_index
        if stored is not None and index is not None and index < len(stored.contents):
            body = stored.contents[index]
            if hashlib.sha256(body).digest() == artifacts[place].content_hash:
                yield place, body
    for place in order:
        locator = artifacts[place].content_locator
        if locator is not None:
            try:
                yield place, verified(store.get_content(locator), artifacts[place].content_hash, "an artifact")
            except ContentMissing:
                continue
