"""The lines of the two logs that agent-coherence 0.6 offers its users: states of grants, and contents given to agents.

Guarantees: exactly the keys, names and schemas of `ccs.state_log.v2` and `ccs.content_audit.v1`. `tick` is in both the
log sequence of the event that caused a line, so that the lines of both can be put into one order. Does not: number or
keep lines; `client.observers` does.

Ids: an artifact's is its own, written as a UUID; an agent's is a uuid5 of its name, the same in every process.
"""

import functools
import uuid
from typing import Any, Final

from ccs_stream.projections.transitions import Transition
from ccs_stream.protocol.ids import ArtifactId, SequenceNumber, Version
from ccs_stream.protocol.states import GrantState

STATE_LOG_SCHEMA: Final = "ccs.state_log.v2"
CONTENT_AUDIT_SCHEMA: Final = "ccs.content_audit.v1"
STATE_NAMES: Final = {state: state.name for state in GrantState}
"""The name of each state in a line."""

_IDS_REMEMBERED: Final = 4_096
"""Texts of ids that are kept: making one takes as long as the rest of a line, and the same few come again and again."""


@functools.lru_cache(maxsize=_IDS_REMEMBERED)
def artifact_text(artifact: ArtifactId) -> str:
    """The text of an artifact's id in a line."""
    return str(uuid.UUID(bytes=artifact))


@functools.lru_cache(maxsize=_IDS_REMEMBERED)
def agent_text(agent: str) -> str:
    """The text of an agent's id in a line."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ccs-agent:{agent}"))


def state_log_entry(transition: Transition, *, sequence_number: int, instance_id: str) -> dict[str, Any]:
    """The line of a transition, with number `sequence_number` (from 1, without gaps) of the stream `instance_id`."""
    agent = transition.agent
    return {
        "tick": transition.sequence,
        "artifact_id": artifact_text(transition.artifact),
        "agent_id": agent_text(agent),
        "agent_name": agent or None,
        "from_state": STATE_NAMES[transition.from_state],
        "to_state": STATE_NAMES[transition.to_state],
        "trigger": transition.trigger.value,
        "version": transition.version,
        "content_hash": transition.content_hash,
        "sequence_number": sequence_number,
        "instance_id": instance_id,
        "schema_version": STATE_LOG_SCHEMA,
    }


def content_audit_entry(  # noqa: PLR0913  # a line has as many fields
    *,
    agent: str | None,
    artifact: ArtifactId,
    version: Version | None,
    content_hash: str | None,
    source: str,
    outcome: str,
    sequence: SequenceNumber,
    sequence_number: int,
    instance_id: str,
) -> dict[str, Any]:
    """The line of a content that an agent was given.

    `source` is cache_hit, fetch, broadcast, write or search; `outcome` is content, empty or error; `content_hash` is
    SHA-256 in hex; `sequence` is the log sequence at which the content was current.
    """
    return {
        "tick": sequence,
        "agent_id": None if agent is None else agent_text(agent),
        "agent_name": agent,
        "artifact_id": artifact_text(artifact),
        "version": version,
        "content_hash": content_hash,
        "source": source,
        "outcome": outcome,
        "sequence_number": sequence_number,
        "instance_id": instance_id,
        "schema_version": CONTENT_AUDIT_SCHEMA,
    }
