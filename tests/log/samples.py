"""One value of every event and record: the source of the golden files."""

import dataclasses
from typing import Any

from ccs_stream.protocol.commands import (
    Acquire,
    Command,
    Commit,
    Content,
    Erase,
    Evict,
    Heartbeat,
    Join,
    Leave,
    Open,
    Read,
    Refresh,
    Release,
    Write,
    WriteMode,
)
from ccs_stream.protocol.events import (
    ArtifactDeleted,
    ArtifactRegistered,
    CommandAnswered,
    CommandRefused,
    DeleteReason,
    Event,
    ExpiryExtended,
    GrantIssued,
    GrantReclaimed,
    GrantsInvalidated,
    ParticipantJoined,
    ReclaimTrigger,
    RefusalReason,
    ReservationAcquired,
    ReservationEnded,
    ReservationEndReason,
    SessionEnded,
    SessionEndReason,
    SessionRenewed,
    WorkspaceOpened,
    WriteCommitted,
    WriteOptions,
)
from ccs_stream.protocol.ids import (
    ArtifactId,
    CommandNumber,
    Epoch,
    Fence,
    Hash,
    LeaderId,
    LogId,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
    Version,
)
from ccs_stream.protocol.ids import DecisionIndex as Index
from ccs_stream.protocol.records import LeaderClaimed, LeaderResigned, LogOpened, LogTruncated
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.states import GrantState

A = ArtifactId(bytes(range(16)))
S = SessionId(bytes(range(16, 32)))
H = Hash(bytes(range(32)))
P, Q = ParticipantNumber(3), ParticipantNumber(300)
T = Micros(1_750_000_000_123_456)
TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

EVENTS: dict[str, Event] = {
    "WorkspaceOpened": WorkspaceOpened(
        inline_content_bytes=65536,
        maximum_content_bytes=16777216,
        maximum_decision_bytes=921600,
        maximum_changes=1000,
        maximum_reservation_us=Micros(3600000000),
        dedupe_window=256,
        maximum_sessions=10000,
        content_grace_us=Micros(3600000000),
        crash_recovery=True,
        heartbeat_interval_us=Micros(5000000),
        session_timeout_us=Micros(30000000),
        maximum_hold_us=Micros(3600000000),
    ),
    "ParticipantJoined": ParticipantJoined(participant=P, agent="plänner", session_id=S),
    "ParticipantJoined-identified": ParticipantJoined(
        participant=Q,
        agent="reviewer",
        session_id=S,
        host="worker-3",
        pid=4711,
        program="/srv/app/träin.py",
        release="1.2.3",
        labels={"run": "7", "": ""},
    ),
    "ParticipantJoined-labelled": ParticipantJoined(
        participant=P, agent="planner", session_id=S, release="1.2.3", labels={}
    ),
    "SessionEnded": SessionEnded(session_id=S, reason=SessionEndReason.EVICTED),
    "SessionRenewed": SessionRenewed(session_id=S, until=T),
    "ArtifactRegistered": ArtifactRegistered(artifact=A, scope=("a:b", "c"), key="k/1"),
    "WriteCommitted": WriteCommitted(
        artifact=A,
        participant=P,
        version=Version(7),
        base_version=Version(6),
        previous_sequence=SequenceNumber(123456),
        content_type="application/json",
        content_encoding="",
        content_hash=H,
        content_size=1024,
        content_index=0,
    ),
    "WriteCommitted-options": WriteCommitted(
        artifact=A,
        participant=Q,
        version=Version(1),
        base_version=None,
        previous_sequence=SequenceNumber(0),
        content_type="application/octet-stream",
        content_encoding="zstd",
        content_hash=H,
        content_size=5_000_000,
        content_index=None,
        content_locator=b"locator",
        options=WriteOptions(expires_at=T, ttl_us=Micros(60_000_000), index_fields=("$", "a.b"), reason="why"),
    ),
    "WriteCommitted-traced": WriteCommitted(
        artifact=A,
        participant=P,
        version=Version(8),
        base_version=Version(7),
        previous_sequence=SequenceNumber(123456),
        content_type="application/json",
        content_encoding="",
        content_hash=H,
        content_size=1024,
        content_index=0,
        options=WriteOptions(index_fields=(), reason="wäre gut", trace_parent=TRACE_PARENT),
    ),
    "ArtifactDeleted": ArtifactDeleted(
        artifact=A,
        participant=P,
        version=Version(8),
        base_version=Version(7),
        previous_sequence=SequenceNumber(123457),
        reason=DeleteReason.DELETED,
        note="no longer needed",
    ),
    "ExpiryExtended": ExpiryExtended(artifact=A, expires_at=T),
    "GrantIssued": GrantIssued(artifact=A, participant=Q, version=Version(7), to_state=GrantState.SHARED),
    "GrantsInvalidated": GrantsInvalidated(
        artifact=A, version=Version(8), owner=P, owner_state=GrantState.MODIFIED, sharers=[Q, ParticipantNumber(70000)]
    ),
    "GrantReclaimed": GrantReclaimed(
        artifact=A, participant=P, from_state=GrantState.EXCLUSIVE, trigger=ReclaimTrigger.SESSION_SILENT
    ),
    "ReservationAcquired": ReservationAcquired(artifact=A, participant=P, fence=Fence(9), until=T),
    "ReservationEnded": ReservationEnded(
        artifact=A, participant=P, fence=Fence(10), reason=ReservationEndReason.EXPIRED
    ),
    "CommandRefused": CommandRefused(
        agent="reviewer",
        reason=RefusalReason.VERSION_CONFLICT,
        detail="read again",
        artifact=A,
        current_version=Version(8),
        fence=None,
        subject=0xDEADBEEF,
    ),
    "CommandAnswered": CommandAnswered(original_sequence=SequenceNumber(42)),
}

RECORDS: dict[str, LogOpened | LogTruncated | LeaderClaimed | LeaderResigned] = {
    "LogOpened": LogOpened(log_id=LogId(A), shards=12, partitioner="murmur2", format=1, opened_at=T),
    "LogTruncated": LogTruncated(
        log_id=LogId(A),
        workspace="w",
        base_sequence=SequenceNumber(1000),
        base_index=Index(900),
        base_hash=H,
        state_hash="1:abc",
        truncated_at=T,
    ),
    "LeaderClaimed": LeaderClaimed(
        log_id=LogId(A), epoch=Epoch(5), leader_id=LeaderId(S), commands_log_id=LogId(S), claimed_at=T, build="x 1.2"
    ),
    "LeaderResigned": LeaderResigned(epoch=Epoch(5), leader_id=LeaderId(S)),
}

_COMMON: dict[str, Any] = {"session_id": S, "number": CommandNumber(70)}
_CONTENT = Content(content_type="application/json", content_encoding="", content_hash=H, size=2, body=b"{}")
_LARGE = Content(
    content_type="text/plain",
    content_encoding="zstd",
    content_hash=H,
    size=3_000_000,
    body=None,
    locator=b"0:17:6:00",
    uploaded_at=T,
)
_WRITE = Write(
    artifact=A,
    scope=("team", "shared"),
    key="plan",
    content=_CONTENT,
    mode=WriteMode.COMPARE_AND_SET,
    base_version=Version(6),
    fence=Fence(4),
    ttl_us=Micros(60_000_000),
    index_fields=("text",),
    reason="because",
)

COMMANDS: dict[str, Command] = {
    "open": Open(**_COMMON, settings=WorkspaceSettings(crash_recovery=True)),
    "join": Join(**_COMMON, agent="planner"),
    "join-identified": Join(
        **_COMMON, agent="planner", host="worker-3", pid=4711, program="app.py", release="1.2.3", labels={"run": "7"}
    ),
    "leave": Leave(**_COMMON),
    "evict": Evict(**_COMMON, target=SessionId(bytes(16))),
    "read": Read(**_COMMON, agent="planner", artifact=A),
    "commit": Commit(**_COMMON, agent="planner", changes=(_WRITE,)),
    "commit-traced": Commit(
        **_COMMON,
        agent="planner",
        changes=(Write(artifact=A, scope=("team",), key="plan", content=_CONTENT, trace_parent=TRACE_PARENT),),
    ),
    "commit_all": Commit(
        **_COMMON,
        agent="planner",
        changes=(_WRITE, Write(artifact=A, scope=(), key="", content=_LARGE), Erase(artifact=A, reason="done")),
    ),
    "commit_all-traced": Commit(
        **_COMMON,
        agent="planner",
        changes=(
            dataclasses.replace(_WRITE, trace_parent=TRACE_PARENT),
            Write(artifact=A, scope=(), key="", content=_LARGE),
            Erase(artifact=A, reason="done"),
        ),
    ),
    "delete": Commit(**_COMMON, agent="planner", changes=(Erase(artifact=A, base_version=Version(0)),)),
    "refresh": Refresh(**_COMMON, agent="planner", artifact=A),
    "acquire": Acquire(
        **_COMMON, agent="planner", artifact=A, scope=("team",), key="plan", duration_us=Micros(30_000_000)
    ),
    "release": Release(**_COMMON, agent="planner", artifact=A, fence=Fence(5)),
    "heartbeat": Heartbeat(**_COMMON),
}
"""At least one command of every kind that travels."""
