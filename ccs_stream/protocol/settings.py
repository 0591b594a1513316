"""Limits of a workspace, fixed by its first event.

Guarantees: every participant works under the same limits, because they are folded from the log; a client that asks
for others gets an error. Does not: hold anything about a process (batch sizes, retries); those belong to the client.
"""

import dataclasses
from typing import Final, Self

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import (
    BODY_BYTES_MAX,
    COUNT_MAX,
    DURATION_US_MAX,
    SECOND_US,
    check_flag,
    check_whole_number,
)

__all__ = ["DEFAULT_SETTINGS", "SECOND_US", "WorkspaceSettings"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSettings:
    """The settings that `WorkspaceOpened` records. All durations are microseconds, all sizes bytes."""

    inline_content_bytes: int = 64 * 1024
    """A body up to this size travels inside its decision; a larger one goes to the content store first."""
    maximum_content_bytes: int = 16 * 1024 * 1024
    """A larger body is refused before anything is appended."""
    maximum_decision_bytes: int = 900 * 1024
    """A larger record is refused; below Kafka's default `message.max.bytes` (1 MiB) with room for headers."""
    maximum_changes: int = 1_000
    """Changes one `commit_all` may carry."""
    maximum_reservation_us: Micros = Micros(3_600 * SECOND_US)
    """Longest reservation a participant may ask for: a bound on how long a lost holder blocks the others."""
    dedupe_window: int = 256
    """Numbers a session's window spans: a client never sends n + window while n is unresolved."""
    maximum_sessions: int = 10_000
    """With more live sessions than this, a sweep ends those that have been idle for longest."""
    content_grace_us: Micros = Micros(3_600 * SECOND_US)
    """An upload that no admitted record names may be collected after this time; a later commit of it is refused."""
    crash_recovery: bool = False
    """True if a sweep may reclaim the M and E grants of sessions that stopped renewing themselves."""
    heartbeat_interval_us: Micros = Micros(5 * SECOND_US)
    """A session is renewed at most once in this time."""
    session_timeout_us: Micros = Micros(30 * SECOND_US)
    """With crash recovery, a session's M and E grants are reclaimed this long after its last renewal."""
    maximum_hold_us: Micros = Micros(3_600 * SECOND_US)
    """With crash recovery, an M or E grant is reclaimed this long after it was taken, renewed or not."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, what = getattr(self, field.name), f"workspace setting {field.name}"
            if field.name == "crash_recovery":
                check_flag(value, what)
            else:
                check_whole_number(value, what, least=1)
        if self.heartbeat_interval_us >= self.session_timeout_us:
            raise UsageError("workspace setting heartbeat_interval_us must be below session_timeout_us")
        if self.inline_content_bytes >= self.maximum_decision_bytes:
            raise UsageError("workspace setting inline_content_bytes must be below maximum_decision_bytes")

    def check(self) -> Self:
        """The settings themselves, if a workspace may be opened with them. Raises `UsageError`.

        Settings on a log are not checked so: a log that has larger ones stays readable.
        """
        for field in dataclasses.fields(self):
            if field.name != "crash_recovery":
                what = f"workspace setting {field.name}"
                check_whole_number(getattr(self, field.name), what, least=1, most=_most(field.name))
        return self


def _most(name: str) -> int:
    if name.endswith("_us"):
        return DURATION_US_MAX
    return BODY_BYTES_MAX if name.endswith("_bytes") else COUNT_MAX


DEFAULT_SETTINGS: Final = WorkspaceSettings()
