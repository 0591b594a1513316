"""Snapshots: the folded state at a position, so that opening a long log is quick.

Coordinators take and read them; every store keeps them.

Guarantees: a snapshot is taken from admitted state only, and holds no bodies but where they are. It is trusted only if
its digest holds, its state has the state hash that it names, and the log has, at its position, the record whose hash it
names. A snapshot that fails this is not used: a warning is logged, and the state is folded from zero. Listings from a
restored state have the same order as listings from a state folded from zero. Does not: replace anything; a log is
complete without a snapshot. Nor does it vouch for the log before its position; `ccs-replay verify` checks that.

The state hash does not cover why and when something was reclaimed, nor what a process said about itself. A state that
is restored from a snapshot of an earlier release does not know them.

Data: 32 bytes of SHA-256 over the rest, then one single-object-encoded Avro record (`schemas/snapshot`), which holds
the artifacts in columns: read so, 100,000 of them take a quarter of a second, and as rows two.
"""

import contextlib
import dataclasses
import gc
import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.port import LogStore, Position, SnapshotBlob
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.schemas import PREFIX_BYTES, Schema, registry
from ccs_stream.log.snapshot_columns import NONE, artifacts_of, columns_of, load_beside
from ccs_stream.protocol.admit import ChainEnd, Cursor
from ccs_stream.protocol.directory import Directory, ParticipantState, SessionState
from ccs_stream.protocol.errors import CorruptRecord, LogDiverged, LogError, UnknownSchema
from ccs_stream.protocol.events import WorkspaceOpened
from ccs_stream.protocol.evolve import settings_of
from ccs_stream.protocol.ids import (
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    LogId,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
)
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.statehash import STATE_HASH_VERSION, state_hash

LOG = logging.getLogger(__name__)

_HASH_BYTES: Final = 32
_WHAT_BITS: Final = 40


def snapshot_schema() -> Schema:
    """The schema of a snapshot."""
    return registry("snapshot").current("Snapshot")


@dataclasses.dataclass(slots=True)
class RestoredSnapshot:
    """A snapshot, decoded."""

    state: Directory
    position: Position
    state_hash: str
    """The state hash that the snapshot names."""
    cursor: Cursor | None
    """The cursor of admission at the snapshot's position; None if the log serialises its writers."""
    body_offsets: dict[int, int]
    """By sequence, the offsets of the decisions that made the current versions; empty if the log finds them itself."""


def take_snapshot(
    state: Directory,
    position: Position,
    *,
    cursor: Cursor | None = None,
    offset_of: Callable[[int], int | None] | None = None,
) -> SnapshotBlob:
    """Take a snapshot of `state`, which was folded exactly to `position`.

    `cursor` is the cursor of admission there, for a shard that several workspaces share. `offset_of` finds a decision
    by its sequence, for a log that does not.
    """
    if state.sequence != position.sequence:
        raise AssertionError(f"state at {state.sequence} and position at {position.sequence} are not of one moment")
    schema = snapshot_schema()
    fields = _fields(state, position)
    fields["cursor"] = None if cursor is None else _cursor_fields(cursor)
    fields["body_offsets"] = None if offset_of is None else _body_offsets(state, offset_of)
    body = schema.write(fields)
    digest = hashlib.sha256(body).digest()
    return SnapshotBlob(
        snapshot_id=f"{position.sequence}-{digest[:8].hex()}", sequence=position.sequence, data=digest + body
    )


def read_snapshot(blob: SnapshotBlob) -> RestoredSnapshot:
    """Decode a snapshot, and verify nothing but its own digest. Raises `CorruptRecord`, `UnknownSchema`."""
    digest, body = blob.data[:_HASH_BYTES], blob.data[_HASH_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptRecord("the snapshot does not have its own digest: it was cut short or altered")
    written = registry("snapshot").by_prefix.get(body[:PREFIX_BYTES])
    if written is None or written.name != snapshot_schema().name:
        raise UnknownSchema("the snapshot is of another release")
    try:
        with _without_collection():
            # Of any size: it has the digest that its writer gave it, so this is no garbage.
            reader = None if written.current else snapshot_schema()
            return _opened(written.read(body, reader, bytes_max=len(body)))
    except (ValueError, LookupError, TypeError) as error:
        raise CorruptRecord(f"the snapshot contradicts itself: {error}") from error


def _opened(fields: dict[str, Any]) -> RestoredSnapshot:
    position = Position(
        LogId(fields["log_id"]),
        fields["workspace"],
        fields["offset"],
        SequenceNumber(fields["sequence"]),
        Hash(fields["chain_hash"]),
    )
    state, offsets = _state(fields), fields["body_offsets"]
    pins = {} if offsets is None else _pins(state, offsets)
    cursor = None if fields["cursor"] is None else _cursor(position.log_id, fields["cursor"])
    return RestoredSnapshot(state, position, fields["state_hash"], cursor, pins)


def _body_offsets(state: Directory, offset_of: Callable[[int], int | None]) -> list[int]:
    offsets = (offset_of(each.sequence) for each in state.artifacts.values())
    return [NONE if offset is None else offset for offset in offsets]


def _pins(state: Directory, offsets: list[int]) -> dict[int, int]:
    artifacts = state.artifacts.values()
    return {each.sequence: at for each, at in zip(artifacts, offsets, strict=True) if at != NONE}


def _cursor_fields(cursor: Cursor) -> dict[str, Any]:
    return {
        "epoch": cursor.epoch,
        "leader_id": cursor.leader_id,
        "index": cursor.index,
        "resigned": cursor.resigned,
        "admitted": cursor.admitted,
        "void": cursor.void,
        "commands_log_id": cursor.commands_log_id,
        "command_offset": cursor.command_offset,
        "workspaces": list(cursor.workspaces),
        "sequences": [end.sequence for end in cursor.workspaces.values()],
        "hashes": b"".join([end.hash for end in cursor.workspaces.values()]),
    }


def _cursor(log_id: LogId, fields: dict[str, Any]) -> Cursor:
    hashes = fields["hashes"]
    ends = {
        name: ChainEnd(SequenceNumber(sequence), Hash(hashes[place * _HASH_BYTES : (place + 1) * _HASH_BYTES]))
        for place, (name, sequence) in enumerate(zip(fields["workspaces"], fields["sequences"], strict=True))
    }
    return Cursor(
        log_id=log_id,
        epoch=Epoch(fields["epoch"]),
        leader_id=LeaderId(fields["leader_id"]),
        index=DecisionIndex(fields["index"]),
        resigned=fields["resigned"],
        admitted=fields["admitted"],
        void=fields["void"],
        workspaces=ends,
        commands_log_id=LogId(fields["commands_log_id"]),
        command_offset=fields["command_offset"],
    )


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Three objects an artifact are made here and none is garbage: looking for some takes longer than making them."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def open_at_snapshot(store: LogStore, workspace: str, reader: ShardReader) -> Directory:
    """The state of the newest snapshot that holds, with `reader` moved behind it; without one, an empty state.

    Raises `MissingHead`, `NewerFormat` if the log does not begin with the record that it must begin with.
    """
    for blob in store.snapshots(workspace):
        try:
            opened = verified_snapshot(blob, workspace)
            reader.seek(opened.position)
        except LogError as error:
            LOG.warning("snapshot %s of %s is not used: %s", blob.snapshot_id, store.display_url, error)
        else:
            reader.check_head()
            return opened.state
    return Directory()


def verified_snapshot(blob: SnapshotBlob, workspace: str) -> RestoredSnapshot:
    """Decode a snapshot of `workspace`, and verify its state hash. Raises `CorruptRecord`, `LogDiverged`, ...

    It is not verified that the log has the snapshot's position.
    """
    opened = read_snapshot(blob)
    if opened.position.shard != workspace:
        raise LogDiverged("the snapshot is of another workspace")
    if not opened.state_hash.startswith(f"{STATE_HASH_VERSION}:"):
        raise UnknownSchema("the snapshot holds a state as another release folds it")
    if state_hash(opened.state) != opened.state_hash:
        raise CorruptRecord("the snapshot does not give the state whose hash it names")
    return opened


def _fields(state: Directory, position: Position) -> dict[str, Any]:
    # fastavro takes a tuple for (branch, value), so every array is a list.
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
        "artifacts": columns_of(state),
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
        **(session.process or ProcessIdentity()).members(),
    }


def _state(fields: dict[str, Any]) -> Directory:
    state = Directory()
    state.sequence = state.last_complete_sequence = SequenceNumber(fields["sequence"])
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
    state.participants = dict(sorted(state.participants.items()))
    artifacts = artifacts_of(fields["artifacts"])
    state.artifacts = {artifact.artifact: artifact for artifact in artifacts}
    load_beside(state, artifacts, fields["artifacts"])
    state.rebuild_indexes()
    state.existing = {}  # the order of listings is the log's; times alone do not always tell it
    for number in fields["artifacts"]["existing"]:
        state.mark_existing(artifacts[number])
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
        ProcessIdentity.of_fields(fields),
    )
    state.sessions[session.session_id] = session
    for agent, participant in session.participants.items():
        state.participants[participant] = ParticipantState(participant, agent, session.session_id)
