"""`state`: the state of a workspace at a position.

Guarantees: events that were written together are never split; the hash is that of the live state at that position. Does
not: show contents; `artifact --content` does.
"""

from typing import Any

from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay.event_text import agent_of
from ccs_stream.replay.output import console, format_time, print_json, print_pairs, table
from ccs_stream.replay.source import Source


def run(source: Source, at: str | None, *, as_json: bool) -> None:
    """Print the state."""
    folded = source.state_at(at)
    state, position = folded.state, folded.position
    artifacts = [
        _describe(state, each) for each in sorted(state.artifacts.values(), key=lambda each: (each.scope, each.key))
    ]
    summary = {
        "sequence": state.sequence,
        "recorded_at": format_time(state.recorded_at) if state.recorded_at else None,
        "state_hash": state_hash(state),
        "position": str(position),
        "sessions": len(state.sessions),
    }
    if as_json:
        print_json({**summary, "artifacts": artifacts})
        return
    print_pairs((name.replace("_", " "), value) for name, value in summary.items())
    columns = ("artifact", "version", "bytes", "writer", "updated", "holders", "reservation")
    rows = [
        (
            each["artifact"],
            f"{each['version']}{' (deleted)' if each['deleted'] else ''}",
            each["bytes"],
            each["writer"],
            each["updated_at"] or "",
            " ".join(f"{holder['agent']}:{holder['state']}" for holder in each["holders"]),
            each["reservation"] or "",
        )
        for each in artifacts
    ]
    console().print(table("", columns, rows))


def _describe(state: Directory, artifact: ArtifactState) -> dict[str, Any]:
    holders = [(artifact.owner, artifact.owner_state.value)] if artifact.owner else []
    holders += [(number, "S") for number in sorted(artifact.sharers)]
    reservation = None
    if artifact.reserved_by:
        who = agent_of(state, artifact.reserved_by)
        reservation = f"{who}, fence {artifact.fence}, until {format_time(artifact.reserved_until)}"
    return {
        "artifact": "/".join((*artifact.scope, artifact.key)),
        "scope": list(artifact.scope),
        "key": artifact.key,
        "version": artifact.version,
        "deleted": artifact.deleted,
        "bytes": artifact.content_size,
        "content_hash": artifact.content_hash.hex(),
        "writer": artifact.writer_agent,
        "updated_at": format_time(artifact.updated_at) if artifact.updated_at else None,
        "expires_at": None if artifact.expires_at is None else format_time(artifact.expires_at),
        "holders": [
            {"agent": agent_of(state, number), "participant": number, "state": held} for number, held in holders
        ],
        "reservation": reservation,
    }
