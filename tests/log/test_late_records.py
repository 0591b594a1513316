"""Records that arrive late: what a former leader decided does nothing to what was decided after it."""

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import Draft
from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import (
    ArtifactRegistered,
    GrantIssued,
    GrantsInvalidated,
    ParticipantJoined,
    WorkspaceOpened,
    WriteCommitted,
)
from ccs_stream.protocol.ids import (
    NO_SESSION,
    NOBODY,
    Epoch,
    Hash,
    LeaderId,
    LogId,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
    Version,
    artifact_id,
)
from ccs_stream.protocol.records import LeaderClaimed
from ccs_stream.protocol.settings import DEFAULT_SETTINGS
from ccs_stream.protocol.states import GrantState
from ccs_stream.testing.records import START, Chain

PLAN = artifact_id("w", (), "plan")
READER, WRITER = ParticipantNumber(1), ParticipantNumber(2)
OLD, NEW = LeaderId(b"o" * 16), LeaderId(b"n" * 16)


def append(store: MemoryLog, draft: Draft) -> None:
    store.append("w", [draft], store.end("w"))


def claim(store: MemoryLog, epoch: int, leader_id: LeaderId) -> None:
    claimed = LeaderClaimed(
        log_id=store.log_id,
        epoch=Epoch(epoch),
        leader_id=leader_id,
        commands_log_id=LogId(bytes(16)),
        claimed_at=Micros(START),
        build="",
    )
    append(store, Draft(DEFAULT_CODEC.encode_record(claimed), decision=False))


def written(version: int) -> WriteCommitted:
    return WriteCommitted(
        artifact=PLAN,
        participant=WRITER,
        version=Version(version),
        base_version=None,
        previous_sequence=SequenceNumber(0),
        content_type="",
        content_encoding="",
        content_hash=Hash(bytes(32)),
        content_size=0,
        content_index=None,
    )


def test_a_late_signal_that_undoes_a_newer_grant() -> None:
    # given a leader that decided "the reader's copy is stale" and was replaced before that reached the log
    store = MemoryLog()
    with store.turn("w"):
        claim(store, 1, OLD)
        chain = Chain("w", epoch=1, leader_id=OLD)
        settings = WorkspaceOpened(**{name: getattr(DEFAULT_SETTINGS, name) for name in WorkspaceOpened.__slots__})
        joined = [
            ParticipantJoined(participant=number, agent=name, session_id=SessionId(bytes([number]) * 16))
            for number, name in ((READER, "reader"), (WRITER, "writer"))
        ]
        registered = ArtifactRegistered(artifact=PLAN, scope=(), key="plan")
        append(store, chain.draft([settings, *joined, registered, written(1)], session_id=NO_SESSION))
        sequence, chained = chain.sequence, chain.hash
        signal = GrantsInvalidated(
            artifact=PLAN,
            version=Version(2),
            owner=NOBODY,
            owner_state=GrantState.INVALID,
            sharers=[READER, WRITER],
        )
        late = chain.draft([written(2), signal])
        # and a new leader under which the reader got its copy
        claim(store, 2, NEW)
        newer = Chain("w", epoch=2, leader_id=NEW)
        newer.sequence, newer.hash = sequence, chained
        grant = GrantIssued(artifact=PLAN, participant=READER, version=Version(1), to_state=GrantState.SHARED)
        append(store, newer.draft([grant]))
        # when the signal arrives after all
        append(store, late)
    state = Directory()
    entries: list[LogEntry] = []
    for entry in ShardReader(store, "w").read():
        fold_entry(state, entry)
        entries.append(entry)
    # then it is void, and the grant stands at the version it was given for
    assert entries[-1].verdict is Verdict.OLD_EPOCH
    artifact = state.artifacts[PLAN]
    assert (artifact.version, artifact.state_of(READER)) == (1, GrantState.SHARED)
