"""The events of the log, in the past tense, one dataclass for each Avro schema in `schemas/log`.

`decide` makes them, `evolve` folds them. Guarantees: field names and order are those of the schema (tested); an event
is a fact, and a reader that admitted its decision folds it without checking whether it was allowed. Does not: say why
it was allowed; the rules are in `decide`.

Events are slotted but not frozen: a frozen dataclass costs four times as much to make, and the rebuild of a long log
makes millions. No code changes one.
"""

import dataclasses
import enum
from typing import ClassVar, Final

from ccs_stream.protocol.ids import (
    ArtifactId,
    Fence,
    Hash,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    SessionId,
    Version,
)
from ccs_stream.protocol.states import GrantState


class SessionEndReason(enum.StrEnum):
    LEFT = "left"
    EVICTED = "evicted"


class DeleteReason(enum.StrEnum):
    DELETED = "deleted"
    EXPIRED = "expired"


class ReservationEndReason(enum.StrEnum):
    RELEASED = "released"
    EXPIRED = "expired"


class ReclaimTrigger(enum.StrEnum):
    SESSION_SILENT = "session_silent"
    MAXIMUM_HOLD = "maximum_hold"


class RefusalReason(enum.StrEnum):
    """Why a command was refused. The first group cannot be helped by trying again unchanged."""

    UNKNOWN_SESSION = "unknown_session"
    SESSION_ENDED = "session_ended"
    UNKNOWN_PARTICIPANT = "unknown_participant"
    CONTENT_TOO_LARGE = "content_too_large"
    CONTENT_TOO_OLD = "content_too_old"
    TOO_MANY_CHANGES = "too_many_changes"
    DUPLICATE_ARTIFACT = "duplicate_artifact"
    DECISION_TOO_LARGE = "decision_too_large"
    """The log cannot hold it: the decision has too many bytes, or a member breaks the table of limits."""
    RESERVATION_TOO_LONG = "reservation_too_long"
    SETTINGS_DIFFER = "settings_differ"
    NUMBER_REUSED = "number_reused"
    INTERNAL_ERROR = "internal_error"
    VERSION_CONFLICT = "version_conflict"
    """Read again, merge, and try with the version you read."""
    RECLAIMED = "reclaimed"
    """The reservation was lost: read again before writing."""
    FENCED = "fenced"
    """The fence is not that of the reservation in force."""
    RESERVED = "reserved"
    """Another participant has reserved the artifact: wait for the release, or until its time is over."""


@dataclasses.dataclass(slots=True, kw_only=True)
class WorkspaceOpened:
    """Sequence 1 of every workspace: the limits everybody works under."""

    CRITICAL: ClassVar[bool] = True
    inline_content_bytes: int
    maximum_content_bytes: int
    maximum_decision_bytes: int
    maximum_changes: int
    maximum_reservation_us: Micros
    dedupe_window: int
    maximum_sessions: int
    content_grace_us: Micros
    crash_recovery: bool
    heartbeat_interval_us: Micros
    session_timeout_us: Micros
    maximum_hold_us: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class ParticipantJoined:
    """An agent has joined in a session, and got its number as a participant."""

    CRITICAL: ClassVar[bool] = True
    participant: ParticipantNumber
    agent: str
    session_id: SessionId
    host: str | None = None
    """What the process says about itself; see `protocol.process_identity`."""
    pid: int | None = None
    program: str | None = None
    release: str | None = None
    labels: dict[str, str] | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class SessionEnded:
    """The session's grants and reservations end with it."""

    CRITICAL: ClassVar[bool] = True
    session_id: SessionId
    reason: SessionEndReason


@dataclasses.dataclass(slots=True, kw_only=True)
class SessionRenewed:
    """A session gave a sign of life; its M and E grants are safe until then, unless held for too long."""

    CRITICAL: ClassVar[bool] = True
    session_id: SessionId
    until: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class ArtifactRegistered:
    """An address got its id. It has no version yet: reading it still finds nothing."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    scope: tuple[str, ...]
    key: str


@dataclasses.dataclass(slots=True, kw_only=True)
class WriteOptions:
    """The parts of a write that most writes do without."""

    expires_at: Micros | None = None
    ttl_us: Micros | None = None
    index_fields: tuple[str, ...] | None = None
    """Paths to embed for semantic search: None for the store's default, () for none."""
    reason: str | None = None
    """Why the author made the change, in the author's words."""
    trace_parent: str | None = None
    """W3C Trace Context of the span that wrote it, as the author gave it and not checked."""


@dataclasses.dataclass(slots=True, kw_only=True)
class WriteCommitted:
    """A new version. Its body is `contents[content_index]` of the same decision, or is found by `content_locator`."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    version: Version
    base_version: Version | None
    """The version that the author had last read: None: never read; 0: read, and it had never existed."""
    previous_sequence: SequenceNumber
    """Sequence of the event that made the version this one replaces; 0 for the first."""
    content_type: str
    content_encoding: str
    content_hash: Hash
    content_size: int
    content_index: int | None
    content_locator: bytes | None = None
    options: WriteOptions | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class ArtifactDeleted:
    """A tombstone version: the artifact is gone, its version goes on."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    version: Version
    base_version: Version | None
    previous_sequence: SequenceNumber
    reason: DeleteReason
    note: str | None = None
    """Why the author made the change, in the author's words."""


@dataclasses.dataclass(slots=True, kw_only=True)
class ExpiryExtended:
    """The artifact's life goes on until `expires_at`."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    expires_at: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class GrantIssued:
    """A reader may hold a copy.

    `to_state` I grants no copy: it records that a reclaimed participant has seen that the artifact does not exist.
    """

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    version: Version
    to_state: GrantState


@dataclasses.dataclass(slots=True, kw_only=True)
class GrantsInvalidated:
    """The holders whose copies a write or delete made stale: the one M or E holder, if any, and all S holders."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    version: Version
    """The version that made them stale."""
    owner: ParticipantNumber
    owner_state: GrantState
    """I when there was no owner."""
    sharers: list[ParticipantNumber]


@dataclasses.dataclass(slots=True, kw_only=True)
class GrantReclaimed:
    """A grant was taken back from a silent holder, or from one that held it for too long."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    from_state: GrantState
    trigger: ReclaimTrigger


@dataclasses.dataclass(slots=True, kw_only=True)
class ReservationAcquired:
    """A participant alone may write the artifact until then, with this fence."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    fence: Fence
    until: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class ReservationEnded:
    """The reservation is over, released or expired."""

    CRITICAL: ClassVar[bool] = True
    artifact: ArtifactId
    participant: ParticipantNumber
    fence: Fence
    """The artifact's fence after the end: everything written with a lower one is late."""
    reason: ReservationEndReason


@dataclasses.dataclass(slots=True, kw_only=True)
class CommandRefused:
    """A command was refused and changed nothing."""

    CRITICAL: ClassVar[bool] = False
    agent: str
    reason: RefusalReason
    detail: str
    artifact: ArtifactId | None
    current_version: Version | None
    fence: Fence | None
    subject: int
    """Fingerprint of the command, see `protocol.dedupe`."""


@dataclasses.dataclass(slots=True, kw_only=True)
class CommandAnswered:
    """A command from the commands topic changed nothing, or repeats the decision ending at `original_sequence`."""

    CRITICAL: ClassVar[bool] = False
    original_sequence: SequenceNumber


@dataclasses.dataclass(slots=True, kw_only=True)
class UnknownEvent:
    """An event of a later release: counted and marked, never folded."""

    CRITICAL: ClassVar[bool] = False
    fingerprint: bytes
    size: int


Event = (
    WorkspaceOpened
    | ParticipantJoined
    | SessionEnded
    | SessionRenewed
    | ArtifactRegistered
    | WriteCommitted
    | ArtifactDeleted
    | ExpiryExtended
    | GrantIssued
    | GrantsInvalidated
    | GrantReclaimed
    | ReservationAcquired
    | ReservationEnded
    | CommandRefused
    | CommandAnswered
    | UnknownEvent
)

EVENT_TYPES: Final[tuple[type[Event], ...]] = (
    WorkspaceOpened,
    ParticipantJoined,
    SessionEnded,
    SessionRenewed,
    ArtifactRegistered,
    WriteCommitted,
    ArtifactDeleted,
    ExpiryExtended,
    GrantIssued,
    GrantsInvalidated,
    GrantReclaimed,
    ReservationAcquired,
    ReservationEnded,
    CommandRefused,
    CommandAnswered,
)
"""Every event with a schema."""
