"""Snapshots: the folded state at a position, so that opening a long log is quick.

Guarantees: taken from admitted state only; holds no bodies, but where they are; trusted only when its digest holds and
the log has, at its position, the very record whose hash it names. A snapshot that fails this is not used, which is said
aloud, and the state is folded from zero. Does not: replace anything; a log is complete without one.

Data: 32 bytes of SHA-256 over the rest, then one single-object-encoded Avro record (`schemas/snapshot`).
"""

import dataclasses
import functools
import hashlib
import json
import logging
from importlib import resources
from io import BytesIO
from typing import Any, Final

import fastavro

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import LogStore, Position, SnapshotBlob
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.schemas import PREFIX_BYTES, Schema, load
from ccs_stream.protocol.directory import ArtifactState, Directory, ParticipantState, SessionState
from ccs_stream.protocol.errors import CorruptRecord, LogDiverged, LogError, UnknownSchema
from ccs_stream.protocol.events import WorkspaceOpened
from ccs_stream.protocol.evolve import settings_of
from ccs_stream.protocol.ids import CommandNumber, Hash, LogId, Micros, ParticipantNumber, Sequence, SessionId
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.protocol.states import GrantState

LOG = logging.getLogger(__name__)

_DIGEST_BYTES: Final = 32
_WHAT_BITS: Final = 40
_STATES: Final = {state.value: state for state in GrantState}
_ARTIFACT_FIELDS: Final = tuple(field.name for field in dataclasses.fields(ArtifactState))


@functools.cache
def snapshot_schema() -> Schema:
    """The schema of a snapshot."""
    source = (resources.files("ccs_stream.schemas") / "snapshot" / "Snapshot.avsc").read_text("utf-8")
    return load(json.loads(source))


def take_snapshot(state: Directory, position: Position) -> SnapshotBlob:
    """A snapshot of `state`, which was folded exactly to `position`."""
    if state.sequence != position.sequence:
        raise AssertionError(f"state at {state.sequence} and position at {position.sequence} are not of one moment")
    schema = snapshot_schema()
    out = BytesIO()
    out.write(schema.prefix)
    fastavro.schemaless_writer(out, schema.parsed, _fields(state, position))
    body = out.getvalue()
    digest = hashlib.sha256(body).digest()
    return SnapshotBlob(
        snapshot_id=f"{position.sequence}-{digest[:8].hex()}", sequence=position.sequence, data=digest + body
    )


def read_snapshot(blob: SnapshotBlob) -> tuple[Directory, Position, str]:
    """State, position and state hash of a snapshot. Raises `CorruptRecord`, `UnknownSchema`."""
    digest, body = blob.data[:_DIGEST_BYTES], blob.data[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptRecord("the snapshot does not have its own digest: it was cut short or altered")
    schema = snapshot_schema()
    if not body.startswith(schema.prefix):
        raise UnknownSchema("the snapshot is of another release")
    source = BytesIO(body)
    source.seek(PREFIX_BYTES)
    fields: Any = fastavro.schemaless_reader(source, schema.parsed, None)
    position = Position(
        LogId(fields["log_id"]),
        fields["workspace"],
        fields["offset"],
        Sequence(fields["sequence"]),
        Hash(fields["chain_hash"]),
    )
    return _state(fields), position, fields["state_hash"]


def open_at_snapshot(store: LogStore, workspace: str, reader: ShardReader) -> Directory:
    """The newest state that a snapshot of `store` vouches for, with `reader` standing behind it; else an empty one."""
    for blob in store.snapshots(workspace):
        try:
            state, position, _ = read_snapshot(blob)
            if position.shard != workspace:
                raise LogDiverged("the snapshot is of another workspace")
            reader.seek(position)
        except LogError as error:
            LOG.warning("snapshot %s of %s is not used: %s", blob.snapshot_id, store.display_url, error)
        else:
            return state
    return Directory()


def _fields(state: Directory, position: Position) -> dict[str, Any]:
    settings = WorkspaceOpened(**dataclasses.asdict(state.settings))
    return {
        "log_id": position.log_id,
        "workspace": position.shard,
        "offset": position.offset,
        "sequence": position.sequence,
        "chain_hash": position.hash,
        "state_hash": state_hash(state),
        "recorded_at": state.recorded_at,
        "participants_ever": state.participants_ever,
        "unknown_events": state.unknown_events,
        "settings": DEFAULT_CODEC.encode_event(settings),
        "agents": [state.agents[ParticipantNumber(number + 1)] for number in range(state.participants_ever)],
        "ended_sessions": list(state.ended_sessions),
        "sessions": [_session_fields(session) for session in state.sessions.values()],
        "artifacts": [_artifact_fields(artifact) for artifact in state.artifacts.values()],
    }


def _session_fields(session: SessionState) -> dict[str, Any]:
    window = sorted(session.window.items())
    return {
        "session_id": session.session_id,
        "joined_at": session.joined_at,
        "active_at": session.active_at,
        "renewed_until": session.renewed_until,
        "highest": session.highest,
        "agents": list(session.participants),
        "participants": list(session.participants.values()),
        "numbers": [number for number, _ in window],
        "sequences": [packed >> _WHAT_BITS for _, packed in window],
        "whats": [packed & ((1 << _WHAT_BITS) - 1) for _, packed in window],
    }


def _artifact_fields(artifact: ArtifactState) -> dict[str, Any]:
    fields = {name: getattr(artifact, name) for name in _ARTIFACT_FIELDS}
    fields["sharers"] = sorted(artifact.sharers)
    fields["reclaimed"] = sorted(artifact.reclaimed)
    if artifact.index_fields is not None:
        fields["index_fields"] = list(artifact.index_fields)  # fastavro reads a tuple as (branch, value)
    return fields


def _state(fields: dict[str, Any]) -> Directory:
    state = Directory()
    state.sequence = Sequence(fields["sequence"])
    state.recorded_at = Micros(fields["recorded_at"])
    opened = DEFAULT_CODEC.decode_event(fields["settings"])
    if type(opened) is not WorkspaceOpened:
        raise CorruptRecord("the snapshot's settings are not settings")
    state.opened, state.settings = True, settings_of(opened)
    state.participants_ever = fields["participants_ever"]
    state.unknown_events = fields["unknown_events"]
    state.agents = {ParticipantNumber(number): agent for number, agent in enumerate(fields["agents"], start=1)}
    state.ended_sessions = dict.fromkeys(fields["ended_sessions"])
    for each in fields["sessions"]:
        _load_session(state, each)
    for each in fields["artifacts"]:
        each["scope"] = tuple(each["scope"])
        each["owner_state"] = _STATES[each["owner_state"]]
        each["sharers"], each["reclaimed"] = set(each["sharers"]), set(each["reclaimed"])
        if each["index_fields"] is not None:
            each["index_fields"] = tuple(each["index_fields"])
        artifact = ArtifactState(**each)
        state.artifacts[artifact.artifact] = artifact
    state.rebuild_indexes()
    return state


def _load_session(state: Directory, fields: dict[str, Any]) -> None:
    session = SessionState(
        SessionId(fields["session_id"]),
        Micros(fields["joined_at"]),
        Micros(fields["active_at"]),
        Micros(fields["renewed_until"]),
        CommandNumber(fields["highest"]),
        {
            agent: ParticipantNumber(number)
            for agent, number in zip(fields["agents"], fields["participants"], strict=True)
        },
        {
            CommandNumber(number): (sequence << _WHAT_BITS) | what
            for number, sequence, what in zip(fields["numbers"], fields["sequences"], fields["whats"], strict=True)
        },
    )
    state.sessions[session.session_id] = session
    for agent, participant in session.participants.items():
        state.participants[participant] = ParticipantState(participant, agent, session.session_id)
