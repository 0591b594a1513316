"""Logs and histories made by hand: what a sound run leaves behind, to be broken in one place at a time.

Guarantees: a `CraftedLog` is admitted as a whole as long as its records are not changed. Does not: use the product.
"""

import hashlib
import json
import uuid
from typing import Any

from tests.faults.checker import NOBODY, Raw, chained, decode, encode
from tests.faults.history import Operation

LOG_ID = b"L" * 16


class CraftedLog:
    """Records of one partition, in order."""

    def __init__(self) -> None:
        opened = {"log_id": LOG_ID, "shards": 1, "partitioner": "murmur2", "format": 1, "opened_at": 1}
        self.values: list[bytes | None] = [encode("LogOpened", opened)]
        self.epoch, self.leader, self.index = 0, NOBODY, 0
        self.sequences: dict[str, int] = {}
        self.hashes: dict[str, bytes] = {}
        self.versions: dict[tuple[str, str], int] = {}
        self.session = uuid.uuid4().bytes
        self.number = 0

    @property
    def raws(self) -> list[Raw]:
        """As they are in the topic."""
        return [Raw(offset, value) for offset, value in enumerate(self.values)]

    def claim(self, epoch: int | None = None) -> bytes:
        """A claim; returns its id."""
        leader = uuid.uuid4().bytes
        asked = self.epoch + 1 if epoch is None else epoch
        fields = {"log_id": LOG_ID, "epoch": asked, "leader_id": leader, "commands_log_id": NOBODY}
        self.values.append(encode("LeaderClaimed", {**fields, "claimed_at": 1, "build": "crafted"}))
        if asked == self.epoch + 1:
            self.epoch, self.leader, self.index = asked, leader, 0
        return leader

    def resign(self) -> None:
        """The leader resigns."""
        self.values.append(encode("LeaderResigned", {"epoch": self.epoch, "leader_id": self.leader}))

    def decide(self, workspace: str, events: list[tuple[str, dict[str, Any]]], body: bytes = b"", **other: Any) -> int:
        """Append the next decision, with fields of another one where asked for; its last sequence."""
        first = self.sequences.get(workspace, 0) + 1
        self.number += 1
        fields = {
            "workspace": workspace,
            "epoch": self.epoch,
            "leader_id": self.leader,
            "index": self.index + 1,
            "first_sequence": first,
            "session_id": self.session,
            "number": self.number,
            "command_kind": "commit",
            "command_offset": None,
            "recorded_at": 1,
            "prev_hash": self.hashes.get(workspace, bytes(32)),
            "critical": True,
            "events": [encode(name, said) for name, said in events],
            "contents": [body] if body else [],
            **other,
        }
        value = encode("Decision", fields)
        self.values.append(value)
        if not other.keys() & {"epoch", "leader_id", "index", "first_sequence"}:
            self.index += 1
            self.sequences[workspace] = first + len(events) - 1
            self.hashes[workspace] = chained(value, fields["contents"])
        return int(first + len(events) - 1)

    def write(self, workspace: str, key: str, value: Any, **other: Any) -> tuple[int, int]:
        """Append the write of a value; its version and sequence."""
        artifact = hashlib.md5(f"{workspace}/{key}".encode(), usedforsecurity=False).digest()
        version = other.pop("version", self.versions.get((workspace, key), 0) + 1)
        events: list[tuple[str, dict[str, Any]]] = []
        if workspace not in self.sequences:
            joined = {"participant": 1, "agent": "a", "session_id": self.session}
            events.append(("ParticipantJoined", joined))
        if (workspace, key) not in self.versions:
            events.append(("ArtifactRegistered", {"artifact": artifact, "scope": [], "key": key}))
        body = json.dumps(value).encode()
        written = {"artifact": artifact, "participant": 1, "version": version, "base_version": None}
        content = {"content_type": "application/json", "content_encoding": "", "content_hash": bytes(32)}
        where = {"previous_sequence": 0, "content_size": len(body), "content_index": 0}
        events.append(("WriteCommitted", {**written, **content, **where}))
        self.versions[workspace, key] = version
        return version, self.decide(workspace, events, body, **other)


class Run:
    """A sound run of one client: what it did, and the log of it."""

    def __init__(self) -> None:
        self.log = CraftedLog()
        self.log.claim()
        self.operations: list[Operation] = []
        self.now = 0.0

    def call(self, kind: str, key: str, **fields: Any) -> Operation:
        """One call that has returned."""
        self.now += 1.0
        usual: dict[str, Any] = {"process": "p", "agent": "a", "workspace": "w", "outcome": "ok"}
        given = usual | {"ended_at": self.now + 0.5} | fields
        operation = Operation(id=f"o{len(self.operations)}", kind=kind, key=key, invoked_at=self.now, **given)
        self.operations.append(operation)
        return operation

    def write(self, key: str = "k", **fields: Any) -> Operation:
        """An acknowledged write."""
        operation = self.call("write", key, **fields)
        operation.value = {"op": operation.id}
        operation.version, operation.sequence = self.log.write(operation.workspace, key, operation.value)
        return operation

    def increment(self, n: int, key: str = "c", **fields: Any) -> Operation:
        """An acknowledged guarded increment to `n`."""
        operation = self.call("increment", key, **fields)
        operation.value = {"op": operation.id, "n": n}
        operation.version, operation.sequence = self.log.write(operation.workspace, key, operation.value)
        return operation

    def read(self, of: Operation | None, key: str = "k", freshness: str = "own_writes", **fields: Any) -> Operation:
        """A read that gave what `of` wrote."""
        operation = self.call("read", key, freshness=freshness, **fields)
        if of is not None:
            operation.version, operation.sequence, operation.seen = of.version, of.sequence, of.value
        return operation


def fields_of(value: bytes | None) -> dict[str, Any]:
    """Of a crafted record."""
    found = decode(value)
    assert found is not None
    return found[1]
