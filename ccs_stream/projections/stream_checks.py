"""Checks that a file of JSON lines is complete: a state log, a content audit, or metric events.

`ccs-stream validate` uses it. Guarantees: each stream of each instance is checked by itself, so that one file may hold
several; a line that is missing, there twice, garbled, or not of the form of its schema is found, with its number in the
file; so is a lost tail, where the number of lines written is known. Memory is bounded by the streams in the file and a
few examples of each kind of finding. Does not: read files, or compare lines with the log.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ccs_stream.projections.metric_events import SCHEMA_VERSION as METRIC_SCHEMA
from ccs_stream.projections.state_log import CONTENT_AUDIT_SCHEMA, STATE_LOG_SCHEMA, STATE_NAMES
from ccs_stream.projections.transitions import TransitionTrigger

EXAMPLES_KEPT: Final = 20
"""Findings of one kind that are kept as examples; the rest are counted."""
_SHOWN_MAX: Final = 60
"""Characters of a wrong value that are shown."""

Types = tuple[type, ...]
Values = frozenset[str]

_INT: Final[Types] = (int,)
_TEXT: Final[Types] = (str,)
_TEXT_OR_NONE: Final[Types] = (str, type(None))
_STATES: Final = frozenset(STATE_NAMES.values())
_STREAM: Final[dict[str, Types | Values]] = {"sequence_number": _INT, "instance_id": _TEXT, "schema_version": _TEXT}

SCHEMAS: Final[Mapping[str, Mapping[str, Types | Values]]] = {
    STATE_LOG_SCHEMA: {
        "tick": _INT,
        "artifact_id": _TEXT,
        "agent_id": _TEXT,
        "agent_name": _TEXT_OR_NONE,
        "from_state": _STATES,
        "to_state": _STATES,
        "trigger": frozenset(trigger.value for trigger in TransitionTrigger),
        "version": _INT,
        "content_hash": _TEXT_OR_NONE,
        **_STREAM,
    },
    CONTENT_AUDIT_SCHEMA: {
        "tick": _INT,
        "agent_id": _TEXT_OR_NONE,
        "agent_name": _TEXT_OR_NONE,
        "artifact_id": _TEXT,
        "version": (int, type(None)),
        "content_hash": _TEXT_OR_NONE,
        "source": frozenset({"cache_hit", "fetch", "broadcast", "write", "search"}),
        "outcome": frozenset({"content", "empty", "error"}),
        **_STREAM,
    },
    METRIC_SCHEMA: {
        "operation": frozenset({"get", "put", "search.hit", "degraded"}),
        "namespace": (list,),
        "key": _TEXT,
        "agent_name": _TEXT,
        "tokens_consumed": _INT,
        "cache_hit": (bool,),
        "tick": _INT,
        "tokens_saved_estimate": _INT,
        **_STREAM,
    },
}
"""The values that each key of a line may have: one of these types, or one of these texts."""


class StreamKind(enum.StrEnum):
    """The kinds of findings in a stream."""

    MALFORMED = "malformed"
    UNKNOWN_SCHEMA = "unknown_schema"
    MISSING_KEY = "missing_key"
    EXTRA_KEY = "extra_key"
    WRONG_TYPE = "wrong_type"
    LATE_START = "late_start"
    GAP = "gap"
    DUPLICATE = "duplicate"
    CUT_TAIL = "cut_tail"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamFinding:
    """One defect of a stream."""

    kind: StreamKind
    line: int
    """Number of the line in the file, from 1; for a cut tail, of the stream's last line, or 0 where it has none."""
    stream: str
    """Without its version, such as `ccs.state_log`; empty where the line does not say."""
    instance_id: str
    detail: str


@dataclasses.dataclass(slots=True)
class StreamProgress:
    """One stream of one instance, as far as the file was read."""

    lines: int = 0
    first: int = 0
    last: int = 0
    """Highest number so far."""
    last_line: int = 0


def stream_of(schema_version: str) -> str:
    """The stream a line belongs to, in whatever version: `ccs.state_log` of `ccs.state_log.v2`."""
    return schema_version.rpartition(".v")[0] or schema_version


_KNOWN: Final = {stream_of(schema): schema for schema in SCHEMAS}


class StreamChecks:
    """Call `line` for every line of a file in order, then `tail`; then read `counts` and `examples`."""

    def __init__(self) -> None:
        self.lines = 0
        """Lines that are not blank."""
        self.seen: dict[tuple[str, str], StreamProgress] = {}
        """By stream and instance."""
        self.counts: dict[StreamKind, int] = {}
        self.examples: dict[StreamKind, list[StreamFinding]] = {}

    def line(self, number: int, text: bytes) -> None:
        """Check line `number`, counted from 1. Blank lines are passed over."""
        if not text.strip():
            return
        self.lines += 1
        try:
            entry = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self._find(StreamKind.MALFORMED, number, f"no JSON: {error}")
            return
        if type(entry) is not dict:
            self._find(StreamKind.MALFORMED, number, f"a JSON {type(entry).__name__}, not an object")
            return
        self._entry(number, entry)

    def tail(self, ends: Mapping[str, Mapping[str, int]]) -> None:
        """Check that the file goes on to where it is known to have ended: by instance and stream, the last number."""
        for instance_id, streams in sorted(ends.items()):
            for stream, end in sorted(streams.items()):
                seen = self.seen.get((stream, instance_id), StreamProgress())
                if seen.last < end:
                    missing = "1 is" if end == seen.last + 1 else f"{end - seen.last} are"
                    detail = f"lines to {end} were written, and the file ends at {seen.last}: {missing} missing"
                    self._find(StreamKind.CUT_TAIL, seen.last_line, detail, (stream, instance_id))

    def _entry(self, number: int, entry: dict[str, Any]) -> None:
        schema, instance_id = entry.get("schema_version"), entry.get("instance_id")
        stream = stream_of(schema) if type(schema) is str else ""
        where = (stream, instance_id if type(instance_id) is str else "")
        fields = SCHEMAS.get(schema) if type(schema) is str else None
        if fields is not None:
            self._fields(number, entry, fields, where)
        elif "schema_version" not in entry:
            self._find(StreamKind.MISSING_KEY, number, "schema_version is missing", where)
        else:
            known = f"this release knows {_KNOWN[stream]}" if stream in _KNOWN else f"known are {', '.join(SCHEMAS)}"
            self._find(StreamKind.UNKNOWN_SCHEMA, number, f"schema_version is {_shown(schema)}; {known}", where)
        sequence = entry.get("sequence_number")
        if stream in _KNOWN and type(instance_id) is str and type(sequence) is int:
            self._sequence(number, where, sequence)

    def _fields(
        self, number: int, entry: dict[str, Any], fields: Mapping[str, Types | Values], where: tuple[str, str]
    ) -> None:
        for key, allowed in fields.items():
            if key not in entry:
                self._find(StreamKind.MISSING_KEY, number, f"{key} is missing", where)
                continue
            value = entry[key]
            if isinstance(allowed, frozenset):
                if type(value) is not str or value not in allowed:
                    detail = f"{key} is {_shown(value)}, not one of {', '.join(sorted(allowed))}"
                    self._find(StreamKind.WRONG_TYPE, number, detail, where)
            elif type(value) not in allowed:  # the very type: True is no number
                names = " or ".join(_type_name(each) for each in allowed)
                self._find(StreamKind.WRONG_TYPE, number, f"{key} is {_shown(value)}, not {names}", where)
        if len(entry) > len(fields) or not entry.keys() <= fields.keys():
            extra = ", ".join(sorted(map(_shown, entry.keys() - fields.keys())))
            self._find(StreamKind.EXTRA_KEY, number, f"keys that the schema does not have: {extra}", where)

    def _sequence(self, number: int, where: tuple[str, str], sequence: int) -> None:
        seen = self.seen.get(where)
        if seen is None:
            seen = self.seen[where] = StreamProgress(first=sequence)
            if sequence != 1:
                detail = f"the stream begins at {sequence}, not at 1: its head is missing"
                self._find(StreamKind.LATE_START, number, detail, where)
        elif sequence <= seen.last:
            detail = f"{sequence} comes after {seen.last}: it is there twice, or out of order"
            self._find(StreamKind.DUPLICATE, number, detail, where)
        elif sequence != seen.last + 1:
            missing = f"{seen.last + 1} to {sequence - 1} are" if sequence > seen.last + 2 else f"{sequence - 1} is"
            self._find(StreamKind.GAP, number, f"{missing} missing before {sequence}", where)
        seen.lines += 1
        seen.last = max(seen.last, sequence)
        seen.last_line = number

    def _find(self, kind: StreamKind, line: int, detail: str, where: tuple[str, str] = ("", "")) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_KEPT:
            stream, instance_id = where
            examples.append(StreamFinding(kind=kind, line=line, stream=stream, instance_id=instance_id, detail=detail))


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def _type_name(each: type) -> str:
    names = {int: "a whole number", str: "text", bool: "true or false", list: "a list", type(None): "null"}
    return names[each]
