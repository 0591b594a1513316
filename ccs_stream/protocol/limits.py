"""The limits of every value that enters a command, and the checks of values against them.

The client and the adapters check here what a caller gives; `decide` checks here what a command carries.

Guarantees: one constant for each limit, which `docs/limits.md` lists. What passes a check can be encoded, decoded by
the code that readers use, and shown. A check raises `UsageError`, which names the argument and the limit. Does not:
know settings of a workspace; those are limits that its users choose, within these.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros, Scope

SECOND_US: Final = 1_000_000
INT64_MAX: Final = 2**63 - 1
"""Versions, fences, sizes, generations, sequences, offsets: the largest number that the format of the log holds."""
NAME_BYTES_MAX: Final = 4_096
"""UTF-8 bytes of a name, which is repeated in records, messages and tables."""
SCOPE_PARTS_MAX: Final = 64
"""Parts of a scope; with `NAME_BYTES_MAX`, an address always fits into one record."""
REASON_BYTES_MAX: Final = 16_384
"""UTF-8 bytes of a reason: a paragraph, not a document."""
INDEX_PATHS_MAX: Final = 100
"""Paths of one value that are embedded for semantic search."""
CONVERSATION_BYTES_MAX: Final = 4_096
"""UTF-8 bytes of the name of a conversation, which every delivery repeats."""
MEDIA_BYTES_MAX: Final = 256
"""UTF-8 bytes of a content type or a content encoding."""
TRACE_PARENT_BYTES_MAX: Final = 65_536
"""UTF-8 bytes of a trace parent. W3C Trace Context has 55; room for what other tracers put there."""
LOCATOR_BYTES_MAX: Final = 4_096
"""Bytes of a locator, by which a store finds a body."""
DURATION_US_MAX: Final = Micros(1_000 * 366 * 86_400 * SECOND_US)
"""A thousand years. A longer time is a mistaken unit, or means "for ever", which is written as None."""
TIME_US_MAX: Final = Micros(253_370_764_800 * SECOND_US - 1)
"""The last microsecond of the year 9998: what ends later cannot be shown in every time zone."""
COUNT_MAX: Final = 1_000_000
"""Changes of one commit, numbers of a session's window, sessions of a workspace."""
BODY_BYTES_MAX: Final = 2**31 - 1
"""Bytes of one body: what every supported store takes as one value."""
CACHE_BYTES_MAX: Final = 2**50
"""Bytes of contents that one process keeps; more is a mistaken unit."""
PROCESS_TEXT_BYTES_MAX: Final = 1_024
"""UTF-8 bytes of a host, a program or a release: room for any path that is worth showing."""
LABELS_MAX: Final = 32
"""Labels of one process."""
LABEL_BYTES_MAX: Final = 256
"""UTF-8 bytes of the name or the value of a label; with `LABELS_MAX`, an identity stays below 20 KB."""
PARTICIPANTS_MAX: Final = 100_000
"""Agents of one session: what its end takes back at once."""
PID_MAX: Final = 2**31 - 1
POSITION_CHARACTERS_MAX: Final = 16_384
"""Characters of a position as text."""
QUERY_BYTES_MAX: Final = 1_048_576
"""UTF-8 bytes of the query of a semantic search."""
FILTER_DEPTH_MAX: Final = 100
"""Levels of a search's filter."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_SHOWN: Final = 40
"""Characters of a value that an error repeats."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """One row of `docs/limits.md`."""

    what: str
    least: int | None
    most: int
    unit: str
    constant: str
    note: str = ""


LIMITS: Final = (
    Limit("name of an agent", 1, NAME_BYTES_MAX, "bytes", "NAME_BYTES_MAX", "UTF-8; no lone surrogates"),
    Limit("name of a workspace", 1, NAME_BYTES_MAX, "bytes", "NAME_BYTES_MAX", "UTF-8; no lone surrogates"),
    Limit("key of an artifact", 0, NAME_BYTES_MAX, "bytes", "NAME_BYTES_MAX", "UTF-8; no lone surrogates"),
    Limit("part of a scope or namespace", 0, NAME_BYTES_MAX, "bytes", "NAME_BYTES_MAX", "UTF-8; see LangGraph's rules"),
    Limit("parts of a scope or namespace", 0, SCOPE_PARTS_MAX, "parts", "SCOPE_PARTS_MAX", "a tuple of texts"),
    Limit("reason of a change", 0, REASON_BYTES_MAX, "bytes", "REASON_BYTES_MAX", "UTF-8; no lone surrogates"),
    Limit("path to embed (`index=`)", 0, NAME_BYTES_MAX, "bytes", "NAME_BYTES_MAX", "UTF-8; no lone surrogates"),
    Limit("paths to embed (`index=`)", 0, INDEX_PATHS_MAX, "paths", "INDEX_PATHS_MAX"),
    Limit("conversation of a delivery", 0, CONVERSATION_BYTES_MAX, "bytes", "CONVERSATION_BYTES_MAX", "UTF-8"),
    Limit("generation of a conversation", 0, INT64_MAX, "", "INT64_MAX", "an int"),
    Limit("`expected=`, `limit=`, fence, sequence, offset", 0, INT64_MAX, "", "INT64_MAX", "an int, and no bool"),
    Limit("duration (`ttl`, `limit_s`, ...)", 1, DURATION_US_MAX, "microseconds", "DURATION_US_MAX", "1,000 years"),
    Limit("end of a life or a reservation", None, TIME_US_MAX, "microseconds", "TIME_US_MAX", "the year 9998"),
    Limit("waiting time (`wait_s`)", 0, DURATION_US_MAX, "microseconds", "DURATION_US_MAX", "1,000 years"),
    Limit("setting that counts", 1, COUNT_MAX, "", "COUNT_MAX", "an int"),
    Limit("setting that is a size", 1, BODY_BYTES_MAX, "bytes", "BODY_BYTES_MAX", "bodies, decisions"),
    Limit("`body_cache_bytes`", 0, CACHE_BYTES_MAX, "bytes", "CACHE_BYTES_MAX"),
    Limit("content type, content encoding", 0, MEDIA_BYTES_MAX, "bytes", "MEDIA_BYTES_MAX", "UTF-8"),
    Limit("trace parent", 0, TRACE_PARENT_BYTES_MAX, "bytes", "TRACE_PARENT_BYTES_MAX", "UTF-8"),
    Limit("host, program, release", 0, PROCESS_TEXT_BYTES_MAX, "bytes", "PROCESS_TEXT_BYTES_MAX", "UTF-8"),
    Limit("process number", 0, PID_MAX, "", "PID_MAX"),
    Limit("`labels`", 0, LABELS_MAX, "labels", "LABELS_MAX"),
    Limit("name or value of a label", 0, LABEL_BYTES_MAX, "bytes", "LABEL_BYTES_MAX", "UTF-8"),
    Limit("agents of one session", 0, PARTICIPANTS_MAX, "agents", "PARTICIPANTS_MAX", "then it goes on in a new one"),
    Limit("position as text", 1, POSITION_CHARACTERS_MAX, "characters", "POSITION_CHARACTERS_MAX"),
    Limit("query of a search", 0, QUERY_BYTES_MAX, "bytes", "QUERY_BYTES_MAX", "UTF-8"),
    Limit("levels of a search's filter", 0, FILTER_DEPTH_MAX, "levels", "FILTER_DEPTH_MAX"),
)  # fmt: skip
"""Every limit, in the order of the page."""


def instant_of(micros: int) -> dt.datetime:
    """The instant of a number of microseconds, exact, in UTC; the nearest one for what is beyond the calendar.

    A log of an earlier release may hold such a time. It must not keep readers from the rest.
    """
    try:
        return _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return _LAST if micros > 0 else _FIRST


def shown(value: object) -> str:
    """A value for the message of an error: short, and never itself an error."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # whatever it is, the message is about the value
        # A number of more digits than Python converts, or an object whose own `__repr__` fails.
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN * 2 else f"{text[:_SHOWN]}..."


def check_text(text: object, what: str, bytes_max: int = NAME_BYTES_MAX, *, least: int = 0) -> str:
    """A text that the log can hold. Raises `UsageError`."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is text (a str), got {shown(text)}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {shown(text)} has a lone surrogate, which has no UTF-8 form") from error
    if size > bytes_max:
        raise UsageError(f"{what} has {size} bytes, at most {bytes_max} are taken: {text[:_SHOWN]!r}...")
    if size < least:
        raise UsageError(f"{what} is a non-empty text, got {text!r}")
    return text


def check_reason(reason: object) -> str | None:
    """The reason of a change, or None. Raises `UsageError`."""
    return None if reason is None else check_text(reason, "reason", REASON_BYTES_MAX)


def check_whole_number(number: object, what: str, *, least: int = 0, most: int = INT64_MAX) -> int:
    """A whole number of type int, and no bool. Raises `UsageError`."""
    if type(number) is not int or not least <= number <= most:
        raise UsageError(f"{what} is a whole number from {least} to {most}, got {shown(number)}")
    return number


def check_flag(flag: object, what: str) -> bool:
    """A truth value. Raises `UsageError`."""
    if type(flag) is not bool:
        raise UsageError(f"{what} is True or False, got {shown(flag)}")
    return flag


def check_duration_us(micros: object, what: str) -> Micros:
    """A duration in microseconds: positive, at most `DURATION_US_MAX`. Raises `UsageError`."""
    return Micros(check_whole_number(micros, what, least=1, most=DURATION_US_MAX))


def seconds_to_us(seconds: object, what: str, *, unit: str = "seconds", unit_us: int = SECOND_US) -> Micros:
    """A duration, given in seconds or another `unit`, in microseconds. Raises `UsageError` unless it is positive."""
    micros = _scaled(seconds, what, unit, unit_us)
    if not micros > 0:
        raise UsageError(f"{what} must be more than 0 {unit}, got {shown(seconds)}")
    return Micros(max(round(micros), 1))


def check_wait_s(seconds: object, what: str) -> float:
    """Seconds to wait, 0 among them. Raises `UsageError`."""
    if _scaled(seconds, what, "seconds", SECOND_US) < 0:
        raise UsageError(f"{what} must not be negative, got {shown(seconds)}")
    return float(seconds)  # type: ignore[arg-type]


def _scaled(amount: object, what: str, unit: str, unit_us: int) -> float:
    """An amount of time in microseconds, not longer than any duration. Raises `UsageError`."""
    if isinstance(amount, bool) or not hasattr(type(amount), "__float__") or isinstance(amount, str | complex):
        raise UsageError(f"{what} is a number of {unit}, got {shown(amount)}")
    try:
        number = float(amount)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    except Exception as error:
        raise UsageError(f"{what} is a number of {unit}, got {shown(amount)}") from error
    if math.isnan(number):
        raise UsageError(f"{what} is a number of {unit}, got nan")
    most = DURATION_US_MAX / unit_us
    if number > most:
        raise UsageError(f"{what} is at most {most:,.0f} {unit} (1,000 years), got {shown(amount)}; for ever is None")
    return number * unit_us


def check_scope(scope: object, what: str = "scope") -> Scope:
    """A scope: a tuple of texts. Raises `UsageError`, also for a text, which is a sequence of letters."""
    if type(scope) is not tuple:
        hint = f"; for one part write ({shown(scope)},)" if isinstance(scope, str) else ""
        raise UsageError(f"{what} is a tuple of texts, got {shown(scope)}{hint}")
    if len(scope) > SCOPE_PARTS_MAX:
        raise UsageError(f"{what} has {len(scope)} parts, at most {SCOPE_PARTS_MAX} are taken")
    for part in scope:
        check_text(part, f"a part of {what}")
    return scope


def as_scope(scope: object, what: str = "scope") -> Scope:
    """A scope as callers give it, a tuple or a list, whose texts are checked later. Raises `UsageError`."""
    if type(scope) is tuple:
        return scope
    return tuple(scope) if isinstance(scope, list) else check_scope(scope, what)


def storable(text: str, bytes_max: int) -> str:
    """A text that others chose, as UTF-8 can hold it, cut to so many bytes; for what is recorded and not refused."""
    return text.encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")


def check_index_paths(paths: object, what: str = "index") -> tuple[str, ...]:
    """Paths to embed, a list or a tuple. Raises `UsageError`."""
    if not isinstance(paths, list | tuple):
        raise UsageError(f"{what} is None, False or a list of paths, got {shown(paths)}")
    if len(paths) > INDEX_PATHS_MAX:
        raise UsageError(f"{what} has {len(paths)} paths, at most {INDEX_PATHS_MAX} are taken")
    for path in paths:
        check_text(path, f"a path of {what}")
    return tuple(paths)


def check_labels(labels: object) -> Mapping[str, str]:
    """The labels of a process. Raises `UsageError`."""
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels is a mapping from texts to texts, such as {{'run': '7'}}, got {shown(labels)}")
    if len(labels) > LABELS_MAX:
        raise UsageError(f"a process has at most {LABELS_MAX} labels, got {len(labels)}")
    for name, value in labels.items():
        check_text(name, "the name of a label", LABEL_BYTES_MAX)
        check_text(value, f"the label {name!r}", LABEL_BYTES_MAX)
    return labels
