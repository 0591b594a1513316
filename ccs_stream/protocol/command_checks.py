"""The checks of commands against the table of limits.

`decide` calls them, and the coordinators where a decision cannot be encoded. Guarantees: a command that passes
`check_command` leads to events that can be encoded, decoded, folded and shown; one that does not raises `UsageError`,
which names the member and the limit. Does not: look at the state.
"""

from typing import Final, assert_never

from ccs_stream.protocol.commands import (
    Acquire,
    ArtifactChange,
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
    Sweep,
    Write,
)
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import (
    INT64_MAX,
    LOCATOR_BYTES_MAX,
    MEDIA_BYTES_MAX,
    TIME_US_MAX,
    TRACE_PARENT_BYTES_MAX,
    check_duration_us,
    check_index_paths,
    check_reason,
    check_scope,
    check_text,
    check_whole_number,
    shown,
)
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.settings import WorkspaceSettings

PLAIN_MEDIA: Final = frozenset({("application/json", ""), ("application/octet-stream", "")})
"""The media of nearly all contents, which need no check."""
_ID_BYTES: Final = 16
_HASH_BYTES: Final = 32


def check_command(command: Command) -> None:
    """Check all members of a command. Raises `UsageError`."""
    match command:
        case Commit():
            check_text(command.agent, "an agent's name")
            if not isinstance(command.changes, tuple | list):
                raise UsageError(f"the changes of a commit are a tuple, got {shown(command.changes)}")
            for change in command.changes:
                check_change(change)
        case Read() | Refresh():
            check_text(command.agent, "an agent's name")
            _check_bytes(command.artifact, "an artifact's id", _ID_BYTES)
        case Acquire():
            check_text(command.agent, "an agent's name")
            _check_address(command)
            check_whole_number(command.duration_us, "the duration of a reservation", least=-INT64_MAX)
        case Release():
            check_text(command.agent, "an agent's name")
            _check_bytes(command.artifact, "an artifact's id", _ID_BYTES)
            check_whole_number(command.fence, "a fence")
        case Join():
            check_text(command.agent, "an agent's name", least=1)
            (ProcessIdentity.of(command) or ProcessIdentity()).check()
        case Open():
            if not isinstance(command.settings, WorkspaceSettings):
                raise UsageError(f"settings are WorkspaceSettings, got {shown(command.settings)}")
        case Evict():
            _check_bytes(command.target, "a session's id", _ID_BYTES)
        case Sweep():
            check_whole_number(command.limit, "the limit of a sweep")
        case Leave() | Heartbeat():
            pass
        case _:
            assert_never(command)


def check_change(change: ArtifactChange) -> None:
    """Check all members of one change of a commit. Raises `UsageError`."""
    if not isinstance(change, Write | Erase):
        raise UsageError(f"a change is a Write or an Erase, got {shown(change)}")
    if change.base_version is not None:
        check_whole_number(change.base_version, "the expected or last read version")
    if change.fence is not None:
        check_whole_number(change.fence, "a fence")
    if isinstance(change, Erase):
        _check_bytes(change.artifact, "an artifact's id", _ID_BYTES)
        check_reason(change.reason)
        return
    _check_address(change)
    check_content(change.content)
    check_options(change)


def check_content(content: Content) -> None:
    """Check a content. Raises `UsageError`."""
    check_text(content.content_type, "a content type", MEDIA_BYTES_MAX)
    check_text(content.content_encoding, "a content encoding", MEDIA_BYTES_MAX)
    _check_bytes(content.content_hash, "the hash of a content", _HASH_BYTES)
    check_whole_number(content.size, "the size of a content")
    body: object = content.body
    locator: object = content.locator
    if body is None and locator is None:
        raise UsageError("a content has neither a body nor a locator")
    if body is not None and not isinstance(body, bytes):
        raise UsageError(f"the body of a content is bytes, got {shown(body)}")
    if locator is not None and (not isinstance(locator, bytes) or len(locator) > LOCATOR_BYTES_MAX):
        raise UsageError(f"the locator of a content is at most {LOCATOR_BYTES_MAX} bytes, got {shown(locator)}")
    if content.uploaded_at is not None:
        check_whole_number(content.uploaded_at, "the time of an upload", least=-INT64_MAX)


def check_options(change: Write) -> None:
    """Check the parts of a write that most writes do without. Raises `UsageError`."""
    if change.ttl_us is not None:
        check_duration_us(change.ttl_us, "ttl_us")
    if change.index_fields is not None:
        check_index_paths(change.index_fields)
    check_reason(change.reason)
    if change.trace_parent is not None:
        check_text(change.trace_parent, "trace_parent", TRACE_PARENT_BYTES_MAX)


def ends_at(now: Micros, duration_us: Micros, what: str) -> Micros:
    """The end of a duration that begins now. Raises `UsageError` where that is beyond the calendar."""
    end = Micros(now + duration_us)
    if end > TIME_US_MAX:
        raise UsageError(f"{what} ends after the year 9998: the clock is far ahead, or the time too long")
    return end


def _check_address(named: Write | Acquire) -> None:
    _check_bytes(named.artifact, "an artifact's id", _ID_BYTES)
    check_scope(named.scope)
    check_text(named.key, "a key")


def _check_bytes(value: object, what: str, size: int) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise UsageError(f"{what} is {size} bytes, got {shown(value)}")
