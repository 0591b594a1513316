"""`artifact`: the versions of one artifact.

Guarantees: versions are listed newest first, by following each version's link to the one it replaced; `--content`
prints the stored bytes. Does not: guess a name; the error for an unknown name gives the nearest ones.
"""

import difflib
import json
import sys
from collections.abc import Iterator
from typing import Any

from ccs_stream.log.bodies import fetch_body
from ccs_stream.log.history import LoggedVersion, version_at
from ccs_stream.protocol.directory import ArtifactState, Directory
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import ArtifactDeleted, DeleteReason, GrantsInvalidated, WriteCommitted
from ccs_stream.replay.event_text import agent_of
from ccs_stream.replay.output import console, format_time, print_json, table
from ccs_stream.replay.source import Source


def run(source: Source, name: str, content: int | None, *, as_json: bool) -> None:
    """Print the versions, or the content of one."""
    state = source.state_at(None).state
    artifact = find_artifact(state, name)
    if content is not None:
        sys.stdout.buffer.write(body_of(source, artifact, content))
        sys.stdout.buffer.flush()
        return
    versions = [_describe(state, version) for version in _versions(source, artifact)]
    if as_json:
        print_json({"artifact": _name(artifact), "id": artifact.artifact.hex(), "versions": versions})
        return
    columns = ("version", "what", "by", "base", "at", "bytes", "sha256", "made stale", "why")
    rows = [
        (
            each["version"],
            each["kind"],
            each["agent"] or "-",
            "never read" if each["base_version"] is None and each["agent"] else each["base_version"],
            each["at"],
            each["bytes"],
            each["content_hash"][:12],
            " ".join(each["invalidated"]),
            each["reason"] or "",
        )
        for each in versions
    ]
    console().print(table(f"{_name(artifact)}  ({artifact.artifact.hex()})", columns, rows))


def find_artifact(state: Directory, name: str) -> ArtifactState:
    """The artifact with this name. Raises `UsageError`, which gives the nearest names."""
    parts = _parts(name)
    for artifact in state.artifacts.values():
        if (*artifact.scope, artifact.key) == parts:
            return artifact
    names = [_name(artifact) for artifact in state.artifacts.values()]
    near = difflib.get_close_matches("/".join(parts), names, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {len(names)} artifacts, see `state`"
    raise UsageError(f"there is no artifact {name!r}{hint}")


def _parts(name: str) -> tuple[str, ...]:
    if name.startswith("["):
        try:
            parts = json.loads(name)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not a JSON list of strings: {name}") from error
        if isinstance(parts, list) and parts and all(isinstance(part, str) for part in parts):
            return tuple(parts)
        raise UsageError(f"not a JSON list of strings: {name}")
    return tuple(name.split("/"))


def _name(artifact: ArtifactState) -> str:
    return "/".join((*artifact.scope, artifact.key))


def _versions(source: Source, artifact: ArtifactState) -> Iterator[LoggedVersion]:
    sequence = artifact.sequence
    while sequence:
        version = version_at(source.store, source.workspace, sequence)
        yield version
        sequence = version.event.previous_sequence


def _describe(state: Directory, version: LoggedVersion) -> dict[str, Any]:
    event = version.event
    holders = [
        agent_of(state, number)
        for each in version.decision.events()
        if type(each) is GrantsInvalidated and (each.artifact, each.version) == (event.artifact, event.version)
        for number in (*((each.owner,) if each.owner else ()), *each.sharers)
    ]
    described: dict[str, Any] = {
        "version": event.version,
        "sequence": version.sequence,
        "agent": agent_of(state, event.participant),
        "base_version": event.base_version,
        "at": format_time(version.decision.record.recorded_at),
        "invalidated": holders,
    }
    if type(event) is WriteCommitted:
        reason = None if event.options is None else event.options.reason
        body = {
            "bytes": event.content_size,
            "content_hash": event.content_hash.hex(),
            "content_type": event.content_type,
        }
        return {**described, "kind": "written", "reason": reason, **body}
    assert type(event) is ArtifactDeleted  # noqa: S101  # the union has two members
    kind = "expired" if event.reason is DeleteReason.EXPIRED else "deleted"
    return {**described, "kind": kind, "reason": event.note, "bytes": 0, "content_hash": "", "content_type": ""}


def body_of(source: Source, artifact: ArtifactState, version: int) -> bytes:
    """The stored bytes of one version. Raises `UsageError`, `ContentMissing`."""
    for each in _versions(source, artifact):
        event = each.event
        if event.version == version and type(event) is WriteCommitted:
            what = f"{_name(artifact)} version {version}"
            return fetch_body(source.store, source.workspace, each.sequence, event, what)
    raise UsageError(f"{_name(artifact)} has no body at version {version}; its current version is {artifact.version}")
