"""The results of reads, writes and history.

Guarantees: a reading is the caller's own; changing its value changes nobody else's. Does not: stay current.
"""

import dataclasses
import datetime as dt
from typing import Any

from ccs_stream.coordinator.answer import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.ids import Scope, Version
from ccs_stream.protocol.limits import instant_of

instant = instant_of
"""The name by which the client and its adapters know it."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Reading:
    """A version of an artifact, as read."""

    scope: Scope
    key: str
    value: Any
    version: Version
    agent: str
    """The agent that wrote it."""
    content_type: str
    content_hash: str
    """SHA-256 of the body, hex."""
    created_at: dt.datetime
    updated_at: dt.datetime
    expires_at: dt.datetime | None
    position: Position
    """The log position this reading is valid at."""
    stale: bool = False
    """True if the log could not be reached when this was read, so that a newer version may exist."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Written:
    """A committed write or delete. `version` is None for a delete of what did not exist."""

    version: Version | None
    base_version: Version | None
    """The version that the author had last read in this flow; None for none."""
    overwrote_unseen: bool
    """True if the write replaced a version that its author never saw: a lost update, on record."""
    answer: Answer
    queued: int | None = None
    """The number of the change in the outbox, where it waits for the log; it has no version yet."""

    @property
    def position(self) -> Position:
        """The place of the write in the log. Pass it as `at_least=` to read this write in another process."""
        return self.answer.position


@dataclasses.dataclass(slots=True, kw_only=True)
class Change:
    """A change of an artifact, as admitted to the log."""

    kind: str
    """`written`, `deleted` or `expired`."""
    scope: Scope
    key: str
    version: Version
    base_version: Version | None
    agent: str
    """The agent that did it; empty for an expiry."""
    at: dt.datetime
    reason: str | None
    """Why, in the author's words."""
    content_hash: str
    """SHA-256 of the body, hex; empty for a delete."""
    position: Position
    """Watch from here to see what follows."""
    value: Any = None
    """The value written; None for a delete, with `values=False`, and where it is `missing`."""
    missing: str | None = None
    """Why a value that was written cannot be given: its body was redacted, or is no longer kept. Else None."""
