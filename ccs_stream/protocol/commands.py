"""The commands: requests of participants, named in the imperative, each of which may be refused.

Clients make them, `decide` answers them. Guarantees: a command carries everything `decide` needs besides the folded
state and the decider's clock: ids come from the caller, durations are relative. Does not: carry the author's clock;
instants are stamped by the decider.
"""

import dataclasses
import enum
from typing import ClassVar

from ccs_stream.protocol.ids import (
    ArtifactId,
    CommandNumber,
    Fence,
    Hash,
    Micros,
    Scope,
    SessionId,
    Version,
)
from ccs_stream.protocol.settings import WorkspaceSettings


class CommandKind(enum.StrEnum):
    """The name of a command, as the envelope of its decision records it."""

    OPEN = "open"
    JOIN = "join"
    LEAVE = "leave"
    EVICT = "evict"
    READ = "read"
    COMMIT = "commit"
    COMMIT_ALL = "commit_all"
    DELETE = "delete"
    REFRESH = "refresh"
    ACQUIRE = "acquire"
    RELEASE = "release"
    HEARTBEAT = "heartbeat"
    SWEEP = "sweep"


class WriteMode(enum.StrEnum):
    """How a change treats a version that is newer than its base."""

    LAST_WRITER_WINS = "last_writer_wins"
    """Accepted over any version; the base is recorded, so a lost update shows."""
    COMPARE_AND_SET = "compare_and_set"
    """Accepted only if the base is the current version (None: only if nothing exists)."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Content:
    """An opaque body, inline or already confirmed in the content store."""

    content_type: str
    content_encoding: str
    content_hash: Hash
    size: int
    body: bytes | None
    """None when it is in the content store."""
    locator: bytes | None = None
    uploaded_at: Micros | None = None
    """When the content store confirmed it, by the store's clock."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Write:
    """One change of a commit: a new body."""

    artifact: ArtifactId
    scope: Scope
    key: str
    content: Content
    mode: WriteMode = WriteMode.LAST_WRITER_WINS
    base_version: Version | None = None
    fence: Fence | None = None
    """The fence of the author's own reservation, where it holds one."""
    ttl_us: Micros | None = None
    index_fields: tuple[str, ...] | None = None
    reason: str | None = None
    trace_parent: str | None = None
    """W3C Trace Context of the span that writes; it does not make the command another one."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Erase:
    """One change of a commit: a tombstone. Erasing what does not exist changes nothing."""

    artifact: ArtifactId
    mode: WriteMode = WriteMode.LAST_WRITER_WINS
    base_version: Version | None = None
    fence: Fence | None = None
    reason: str | None = None


ArtifactChange = Write | Erase


@dataclasses.dataclass(slots=True, kw_only=True)
class Open:
    """Open the workspace with these settings; refused when it is open with others."""

    KIND: ClassVar[CommandKind] = CommandKind.OPEN
    session_id: SessionId
    number: CommandNumber
    settings: WorkspaceSettings


@dataclasses.dataclass(slots=True, kw_only=True)
class Join:
    KIND: ClassVar[CommandKind] = CommandKind.JOIN
    session_id: SessionId
    number: CommandNumber
    agent: str
    host: str | None = None
    """What the process says about itself; see `protocol.process_identity`."""
    pid: int | None = None
    program: str | None = None
    release: str | None = None
    labels: dict[str, str] | None = None


@dataclasses.dataclass(slots=True, kw_only=True)
class Leave:
    KIND: ClassVar[CommandKind] = CommandKind.LEAVE
    session_id: SessionId
    number: CommandNumber


@dataclasses.dataclass(slots=True, kw_only=True)
class Evict:
    """End another session, by an operator's decision."""

    KIND: ClassVar[CommandKind] = CommandKind.EVICT
    session_id: SessionId
    number: CommandNumber
    target: SessionId


@dataclasses.dataclass(slots=True, kw_only=True)
class Read:
    """Ask for a copy. Changes nothing where the reader already holds one, or where there is nothing to read."""

    KIND: ClassVar[CommandKind] = CommandKind.READ
    session_id: SessionId
    number: CommandNumber
    agent: str
    artifact: ArtifactId


@dataclasses.dataclass(slots=True, kw_only=True)
class Commit:
    """One or several changes, all or none."""

    session_id: SessionId
    number: CommandNumber
    agent: str
    changes: tuple[ArtifactChange, ...]

    @property
    def KIND(self) -> CommandKind:  # noqa: N802 (the constant of the other commands)
        if len(self.changes) != 1:
            return CommandKind.COMMIT_ALL
        return CommandKind.COMMIT if type(self.changes[0]) is Write else CommandKind.DELETE


@dataclasses.dataclass(slots=True, kw_only=True)
class Refresh:
    """Extend the artifact's life to its full TTL from now."""

    KIND: ClassVar[CommandKind] = CommandKind.REFRESH
    session_id: SessionId
    number: CommandNumber
    agent: str
    artifact: ArtifactId


@dataclasses.dataclass(slots=True, kw_only=True)
class Acquire:
    KIND: ClassVar[CommandKind] = CommandKind.ACQUIRE
    session_id: SessionId
    number: CommandNumber
    agent: str
    artifact: ArtifactId
    scope: Scope
    key: str
    duration_us: Micros


@dataclasses.dataclass(slots=True, kw_only=True)
class Release:
    KIND: ClassVar[CommandKind] = CommandKind.RELEASE
    session_id: SessionId
    number: CommandNumber
    agent: str
    artifact: ArtifactId
    fence: Fence


@dataclasses.dataclass(slots=True, kw_only=True)
class Heartbeat:
    KIND: ClassVar[CommandKind] = CommandKind.HEARTBEAT
    session_id: SessionId
    number: CommandNumber


@dataclasses.dataclass(slots=True, kw_only=True)
class Sweep:
    """End what has expired, at most `limit` things in one decision. Only the leader sweeps."""

    KIND: ClassVar[CommandKind] = CommandKind.SWEEP
    session_id: SessionId
    number: CommandNumber
    limit: int


Command = Open | Join | Leave | Evict | Read | Commit | Refresh | Acquire | Release | Heartbeat | Sweep
