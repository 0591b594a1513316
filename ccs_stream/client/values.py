"""Values, and the bytes that the log holds for them.

Guarantees: what is read equals what was written, or the write is refused with the path to the part that would not
survive (a NaN, a set, an object), before anything is appended; every read gets its own copy. Bytes travel as they are.
Does not: compress or encrypt; `content_encoding` is there for whoever does.
"""

import hashlib
import math
from typing import Any, Final

import orjson

from ccs_stream.protocol.commands import Content
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Hash

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"

# Without these orjson would turn dataclasses, dates and subclasses into something else without saying so.
_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_INT_BITS: Final = 64


def encode(value: object) -> tuple[str, bytes]:
    """Content type and body of a value: bytes as they are, anything else as JSON.

    Raises `UsageError` naming the path to the offending part, such as `$.plan[2].when`.
    """
    if type(value) is bytes:
        return BYTES, value
    return JSON, encode_json(value)


def encode_json(value: object) -> bytes:
    """The JSON of a value that survives it. Tuples become lists, which is JSON's word for them. Raises `UsageError`."""
    try:
        body = orjson.dumps(value, option=_STRICT)
    except (TypeError, RecursionError) as error:
        raise UsageError(explain(value) or f"the value is not JSON: {error}") from error
    # orjson returns its buffer cut to size, and kept for long such buffers leave holes all over the heap: keep a copy.
    body = bytes(memoryview(body))
    if orjson.loads(body) != value:
        # Equal values need no walk; tuples, and what orjson converts by itself (NaN, UUID, enums), do.
        offence = explain(value)
        if offence is not None:
            raise UsageError(offence)
    return body


def decode(content_type: str, body: bytes) -> Any:
    """A fresh value from a body."""
    return orjson.loads(body) if content_type == JSON else body


def content_of(content_type: str, body: bytes) -> Content:
    """A body on its way into a write."""
    return Content(
        content_type=content_type,
        content_encoding="",
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=len(body),
        body=body,
    )


def explain(value: object) -> str | None:
    """Where and why a value is not JSON; None when it is."""
    found = _offence(value, "$", 0)
    return None if found is None else f"the value is not JSON at {found[0]}: {found[1]}"


_DEPTH_MAX: Final = 250
"""orjson stops at 254 levels; deeper values are refused with their path."""


def _offence(value: object, path: str, depth: int) -> tuple[str, str] | None:
    kind = type(value)
    if value is None or kind is bool:
        return None
    if depth > _DEPTH_MAX:
        return path[:80] + "...", f"nested deeper than {_DEPTH_MAX} levels (or in a circle)"
    if isinstance(value, str):
        return _text_offence(value, kind, path)
    if kind is int:
        if value.bit_length() > _INT_BITS - (value < 0):  # type: ignore[attr-defined,operator]
            return path, "an integer beyond 64 bits: put it as a string"
        return None
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            return path, f"{value} is no JSON number: put None or a string"
        return None
    if kind is list or kind is tuple:
        for index, part in enumerate(value):  # type: ignore[arg-type,var-annotated]
            found = _offence(part, f"{path}[{index}]", depth + 1)
            if found is not None:
                return found
        return None
    if kind is dict:
        return _dict_offence(value, path, depth)  # type: ignore[arg-type]
    return path, f"a {kind.__module__}.{kind.__qualname__}; only dict, list, tuple, str, int, float, bool and None are"


def _text_offence(value: str, kind: type, path: str) -> tuple[str, str] | None:
    if kind is not str:
        return path, f"a {kind.__qualname__}, which would come back as plain text: put str(value) or its .value"
    try:
        value.encode()
    except UnicodeEncodeError:
        return path, "text with a lone surrogate has no UTF-8 form"
    return None


def _dict_offence(value: dict[object, object], path: str, depth: int) -> tuple[str, str] | None:
    for key, part in value.items():
        if type(key) is not str:
            return path, f"the key {key!r} is a {type(key).__qualname__}; JSON keys are text"
        found = _text_offence(key, str, f"{path}.<key>") or _offence(part, f"{path}.{key}", depth + 1)
        if found is not None:
            return found
    return None
