"""Snapshots in a compacted topic: parts under keys of their own, and a manifest that comes last.

The Kafka store uses it.

Guarantees: a snapshot is found only if all of its parts are there and have the digest that its manifest names; one that
is cut short, or that compaction has begun to remove, is not found. Does not: verify the state in it;
`ccs_stream.log.snapshot` does, against the log.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from ccs_stream.log.kafka.appender import Appender
from ccs_stream.log.kafka.topic_reader import TopicReader
from ccs_stream.log.port import SnapshotBlob
from ccs_stream.log.schemas import Schema, registry
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.ids import SequenceNumber

PART_BYTES: Final = 512 * 1024
"""Half of Kafka's default largest message, as for chunks of bodies."""
SNAPSHOTS_KEPT: Final = 3
_PART: Final = registry("snapshot").current("SnapshotPart")
_MANIFEST: Final = registry("snapshot").current("SnapshotManifest")


class SnapshotTopic:
    """The snapshots of one log. Those of a workspace are in the partition of the workspace."""

    def __init__(self, topic: str, appender: Appender, reader: TopicReader) -> None:
        self._topic = topic
        self._appender = appender
        self._reader = reader

    def save(self, partition: int, workspace: str, blob: SnapshotBlob) -> None:
        """Keep a snapshot, and let compaction remove those beyond the newest few."""
        parts = [blob.data[at : at + PART_BYTES] for at in range(0, len(blob.data), PART_BYTES)] or [b""]
        records: list[tuple[bytes | None, bytes | None]] = []
        for index, data in enumerate(parts):
            fields = {"workspace": workspace, "snapshot_id": blob.snapshot_id, "index": index, "data": data}
            records.append((_key(workspace, blob.snapshot_id, index), _PART.write(fields)))
        manifest = {
            "workspace": workspace,
            "snapshot_id": blob.snapshot_id,
            "sequence": blob.sequence,
            "parts": len(parts),
            "size": len(blob.data),
            "sha256": hashlib.sha256(blob.data).digest(),
        }
        records.append((_key(workspace, blob.snapshot_id, None), _MANIFEST.write(manifest)))
        older = self._found(partition, workspace)
        self._appender.append(self._topic, partition, records)
        newer_first = sorted(older.values(), key=lambda each: -int(each["sequence"]))
        stale = [each for each in newer_first[SNAPSHOTS_KEPT - 1 :] if each["snapshot_id"] != blob.snapshot_id]
        graves: list[tuple[bytes | None, bytes | None]] = [
            (_key(workspace, each["snapshot_id"], index), None)
            for each in stale
            for index in (None, *range(each["parts"]))  # the manifest first: without it the parts are nothing
        ]
        if graves:
            self._appender.append(self._topic, partition, graves)

    def all(self, partition: int, workspace: str) -> Iterator[SnapshotBlob]:
        """Whole snapshots of a workspace, newest first."""
        found = self._found(partition, workspace, parts=True)
        for manifest in sorted(found.values(), key=lambda each: (-int(each["sequence"]), each["snapshot_id"])):
            if len(manifest["data"]) != manifest["parts"]:
                continue
            data = b"".join(manifest["data"].get(index, b"") for index in range(manifest["parts"]))
            if len(data) == manifest["size"] and hashlib.sha256(data).digest() == manifest["sha256"]:
                yield SnapshotBlob(
                    snapshot_id=manifest["snapshot_id"], sequence=SequenceNumber(manifest["sequence"]), data=data
                )

    def workspaces(self, partition: int) -> frozenset[str]:
        """Names of the workspaces that have a snapshot in a partition."""
        found: set[str] = set()
        for message in self._reader.read(self._topic, partition, -1):
            key, value = _parsed(message.key()), message.value()
            if key is not None and isinstance(value, bytes) and value.startswith(_MANIFEST.prefix):
                found.add(key[0])
        return frozenset(found)

    def _found(self, partition: int, workspace: str, *, parts: bool = False) -> dict[str, dict[str, Any]]:
        """Manifests by snapshot id; with `parts`, each with its data."""
        manifests: dict[str, dict[str, Any]] = {}
        data: dict[str, dict[int, bytes]] = {}
        for message in self._reader.read(self._topic, partition, -1):
            key, value = _parsed(message.key()), message.value()
            if key is None or key[0] != workspace:
                continue
            snapshot_id = key[1]
            if value is None:
                manifests.pop(snapshot_id, None)
                data.pop(snapshot_id, None)
            elif value.startswith(_MANIFEST.prefix):
                fields = _decode(_MANIFEST, value)
                if fields is not None:
                    manifests[snapshot_id] = fields
            elif parts and value.startswith(_PART.prefix):
                fields = _decode(_PART, value)
                if fields is not None:
                    data.setdefault(snapshot_id, {})[fields["index"]] = fields["data"]
        for snapshot_id, manifest in manifests.items():
            manifest["data"] = data.get(snapshot_id, {})
        return manifests


def _key(workspace: str, snapshot_id: str, index: int | None) -> bytes:
    return json.dumps([workspace, snapshot_id, index], separators=(",", ":")).encode()


def _parsed(key: Any) -> tuple[str, str] | None:
    try:
        workspace, snapshot_id, _ = json.loads(key)
    except (TypeError, ValueError):
        return None
    return (workspace, snapshot_id) if isinstance(workspace, str) and isinstance(snapshot_id, str) else None


def _decode(schema: Schema, value: bytes) -> dict[str, Any] | None:
    """The record; None for a garbled one, which is as good as none."""
    try:
        return schema.read(value)
    except CorruptRecord:
        return None
