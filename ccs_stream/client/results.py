"""What reads and writes return.

Guarantees: a reading is the caller's own; changing its value changes nobody else's. Does not: stay current.
"""

import dataclasses
import datetime as dt
from typing import Any

from ccs_stream.coordinator.answer import Answer
from ccs_stream.log.port import Position
from ccs_stream.protocol.ids import Micros, Scope, Version

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def instant(at: Micros) -> dt.datetime:
    """The instant of a number of microseconds, exact, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=at)


@dataclasses.dataclass(slots=True, kw_only=True)
class Reading:
    """A version of an artifact, as read."""

    scope: Scope
    key: str
    value: Any
    version: Version
    agent: str
    """Who wrote it."""
    content_type: str
    content_hash: str
    """SHA-256 of the body, hex."""
    created_at: dt.datetime
    updated_at: dt.datetime
    expires_at: dt.datetime | None
    position: Position
    """The log position this reading is valid at."""
    stale: bool = False
    """Whether the log could not be reached when this was read: others may have written since, unseen."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Written:
    """A committed write or delete. `version` is None for a delete of what did not exist."""

    version: Version | None
    base_version: Version | None
    """What the author had last read in this execution scope; None for never."""
    overwrote_unseen: bool
    """Whether a version its author never saw was replaced: a lost update, on record."""
    answer: Answer
    queued: int | None = None
    """Its number in the outbox, where it waits there for a log that cannot be used now; it has no version yet."""

    @property
    def position(self) -> Position:
        """Where the write is in the log: pass it as `at_least=` to read your write elsewhere."""
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
    """Who did it; empty for an expiry."""
    at: dt.datetime
    reason: str | None
    """Why, in the author's words."""
    content_hash: str
    """SHA-256 of the body, hex; empty for a delete."""
    position: Position
    """Watch from here to see what follows."""
    value: Any = None
    """The value written; None for a delete, or where only the record of it was asked for."""
