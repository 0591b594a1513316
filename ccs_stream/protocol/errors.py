"""The one tree of exceptions, for users and for the layers alike.

Guarantees: every error says what to do, and `retryable` says whether the same call may succeed later unchanged.
Does not: carry credentials; URLs in messages are shown without their user part and query secrets.
"""

import difflib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar, Self

from ccs_stream.protocol.ids import Fence, Version


class CcsError(Exception):
    """Root of all errors of ccs-stream. An error travels: it survives `pickle` and `copy`, with its fields."""

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by a call of the class: its arguments are those of `__init__`, which may be others than `args`.
        return rebuild_error, (type(self), self.args, self.__dict__.copy())


def rebuild_error(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    """An error as it was, from its class, its `args` and its fields."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UsageError(CcsError, ValueError):
    """The call is wrong: an unknown option, a bad URL, a value that cannot be stored."""


def unknown_name(name: object, known: Iterable[str], *, what: str, where: str = "", advice: str = "") -> UsageError:
    """The error for a name that is not among `known`, such as a mistyped option; for the caller to raise.

    `what` begins the sentence, `where` follows the name, and `advice` ends it:
    `unknown_name("freshnes", options, what="connect has no option")`. The message names the nearest known name, or all
    names where none is near.
    """
    names = tuple(known)
    near = nearest(str(name), names)
    hint = f"did you mean {near!r}?" if near is not None else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"{what} {name!r}{where}; {hint}{advice}")


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The one of `known` that `name` was probably meant to be; None where nothing is near."""
    near = difflib.get_close_matches(name, tuple(known), n=1, cutoff=cutoff)
    return near[0] if near else None


class Closed(CcsError):
    """The workspace or log was closed: connect again."""

    @classmethod
    def of_workspace(cls, name: str) -> "Closed":
        """The error of a call on the workspace `name`, which was closed; for the caller to raise."""
        return cls(f"the workspace {name!r} was closed: connect again")


class ForkedProcess(CcsError):
    """The object was made in a parent process; file handles and locks do not survive a fork. Connect in the child."""


class OutcomeUnknown(CcsError):
    """The command may or may not be in the log, or come to be there. Wait for its `outcome`, or read.

    Calling again what raised this asks for something new: a write that did arrive is then made twice.
    """

    retryable = True

    def __init__(self, message: str, *, later: Callable[[float], object] | None = None) -> None:
        super().__init__(message)
        self._later = later

    def __reduce__(self) -> tuple[Any, ...]:
        # The command goes on in the process that gave it: elsewhere its outcome cannot be awaited.
        return rebuild_error, (type(self), self.args, self.__dict__ | {"_later": None})

    def __copy__(self) -> Self:
        copied: Self = rebuild_error(type(self), self.args, self.__dict__.copy())  # type: ignore[assignment]
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    def outcome(self, timeout_s: float) -> object:
        """Wait for the command's `Answer` in the log, with its `position` and its `refusal`, if any.

        Returns None when the log shows none within `timeout_s`. Meanwhile the command goes on being sent, under its
        number, so that it happens at most once.
        """
        return None if self._later is None else self._later(timeout_s)


# Refused commands.


class Refused(CcsError):
    """A command was refused; nothing changed."""

    def __init__(
        self, message: str, *, reason: str, current_version: Version | None = None, fence: Fence | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """A `RefusalReason`, as text."""
        self.current_version = current_version
        self.fence = fence


class VersionConflict(Refused):
    """The artifact changed since its author read it. Read again, merge, write again.

    `current_value` is the decoded value now (None when there is nothing), filled in by the client.
    """

    current_value: object = None


class Reserved(Refused):
    """Another participant holds a reservation: wait for its release."""

    retryable = True


class Reclaimed(Refused):
    """Your reservation or grant was taken back meanwhile: read again before writing."""

    trigger: str | None = None
    """`reclaim_heartbeat`, `reclaim_max_hold` or `expired` (a reservation); None where it is not known."""
    at: datetime | None = None
    """When, in UTC; None where it is not known."""


class Fenced(Refused):
    """The fence is not that of a reservation that you hold: acquire again."""


class SessionLost(Refused):
    """The session is unknown or has ended: connect again."""


class TooLarge(Refused):
    """The body or the decision exceeds the workspace's maximum, or a value breaks a limit; the message says which."""


# The log.


class LogError(CcsError):
    """Something is wrong with a log; the message says where and what to do."""


class NotALog(LogError):
    """The URL points to something that exists and is not a log."""


class LogMissing(LogError):
    """There is no log at the URL, and this caller may not create one."""


class MissingHead(LogError):
    """The first record of a shard is not the one that opens it: the log was cut at its head."""


class LogDiverged(LogError):
    """An admitted record breaks the hash chain, or the log ends before a known position."""


class CorruptRecord(LogError):
    """Bytes that are not a record. `position` says where."""

    def __init__(self, message: str, *, position: str = "") -> None:
        super().__init__(f"{message} (at {position})" if position else message)
        self.position = position


class UnknownSchema(CorruptRecord):
    """A record of a schema this release does not know: upgrade the reader."""


class NewerFormat(LogError):
    """The log was written by a later release: upgrade."""


class LogBusy(LogError):
    """Another process kept the log locked for longer than the time-out."""

    retryable = True


class LogFull(LogError):
    """No space left where the log lives; nothing was half-written."""

    retryable = True


class LogReadOnly(LogError):
    """The log cannot be written to from here."""


class LogUnavailable(LogError):
    """No broker answered in time; the call may be made again."""

    retryable = True


class NotAuthorised(LogError):
    """The broker refuses our credentials or our permissions; the message names the setting or the ACL."""


class RefusedByBroker(LogError):
    """The broker will never take this message, because of its size; nothing was appended."""


class ContentMissing(LogError):
    """A body is gone (redacted or collected), or its hash is not the one on the log."""
