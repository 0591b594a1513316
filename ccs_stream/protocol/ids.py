"""Identities and numbers of the protocol, each its own type.

Guarantees: mixing up two ids or two counters does not type-check; an artifact's id is the same on every host and in
every release (golden vectors in the tests), and two different addresses never share one.
Does not: create ids. Random ids (sessions, leaders, logs) come from the shell that calls the core.
"""

import json
import uuid
from typing import Final, NewType

ArtifactId = NewType("ArtifactId", bytes)
"""16 bytes: uuid5 of the artifact's address, see `artifact_id`."""
SessionId = NewType("SessionId", bytes)
"""16 random bytes, chosen by the client when it starts."""
LeaderId = NewType("LeaderId", bytes)
"""16 random bytes, fresh for every claim of leadership."""
LogId = NewType("LogId", bytes)
"""16 random bytes, written in the first record of every shard of a log."""
Hash = NewType("Hash", bytes)
"""SHA-256 digest, 32 bytes."""

SequenceNumber = NewType("SequenceNumber", int)
"""Number of an event in its workspace: 1, 2, 3, ... without a gap; 0 is "before the first"."""
Version = NewType("Version", int)
"""Per artifact, one more for every committed write or delete; 0 is "never existed"."""
Epoch = NewType("Epoch", int)
"""Leadership term of a shard; 0 where there are no leaders because the log itself serialises writers."""
DecisionIndex = NewType("DecisionIndex", int)
"""Number of a decision in its epoch and shard: 1, 2, 3, ..."""
ParticipantNumber = NewType("ParticipantNumber", int)
"""Number a workspace gives to an (agent, session) when it joins; 0 stands for none."""
CommandNumber = NewType("CommandNumber", int)
"""Number a session gives to its commands; 0 marks a command without a session (open, sweep)."""
Fence = NewType("Fence", int)
"""Per artifact, one more at every acquire, release and reclaim of its reservation."""
Micros = NewType("Micros", int)
"""Microseconds since 1970-01-01T00:00:00Z (an instant) or microseconds (a duration)."""

NO_LEADER: Final = LeaderId(bytes(16))
"""Leader of epoch 0: the log serialises its writers itself."""
NO_LOG: Final = LogId(bytes(16))
"""No log, or none known yet."""
NO_SESSION: Final = SessionId(bytes(16))
"""Session of commands the coordinator gives itself."""
NOBODY: Final = ParticipantNumber(0)
"""No participant: the author of an expiry, the owner of an artifact without one."""
GENESIS_HASH: Final = Hash(bytes(32))
"""`prev_hash` of a workspace's first decision."""

# RFC 9562 name-based ids need a namespace; this one is uuid5(NAMESPACE_URL, "ccs-stream:artifact") and never changes.
ARTIFACT_NAMESPACE: Final = uuid.UUID("b53af54d-767e-57be-9b47-615d5d311969")

Scope = tuple[str, ...]


def artifact_id(workspace: str, scope: Scope, key: str) -> ArtifactId:
    """Id of the artifact addressed by `scope` and `key` in `workspace`: uuid5 (RFC 9562) over a JSON list.

    The JSON list keeps the parts apart whatever characters they hold: `("a:b",), "k"` and `("a", "b"), "k"` differ.
    """
    name = json.dumps([workspace, list(scope), key], ensure_ascii=True, separators=(",", ":"))
    return ArtifactId(uuid.uuid5(ARTIFACT_NAMESPACE, name).bytes)
