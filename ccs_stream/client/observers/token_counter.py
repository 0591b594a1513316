"""Counting the tokens of values, with the user's function or the built-in estimate.

Guarantees: where the user's function raises or returns nonsense, the estimate is taken for that value. Such values are
counted, and the first is logged. Does not: count a body again that it has counted lately.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

import orjson

from ccs_stream.projections.tokens import CHARACTERS_PER_TOKEN, estimate_tokens, tokens_of_json
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import shown

LOG = logging.getLogger(__name__)

CountTokens = Callable[[Any], int]
"""Tokens of a value."""
_KNOWN_MAX: Final = 4_096
_KNOWN_BYTES_MAX: Final = 16_384
"""Bodies whose tokens are remembered, and how large they may be: 64 MB at most."""
_PROBE: Final = {"a value": ["like", "this", 1]}


class TokenCounter:
    """Counts the tokens of bodies with one function. For one thread."""

    def __init__(self, count_tokens: CountTokens | None) -> None:
        self.uncounted = 0
        """Values whose tokens `count_tokens` could not tell."""
        self._count_tokens = count_tokens or estimate_tokens
        self._known: dict[bytes, int] = {}
        """Tokens of bodies counted before."""

    def of(self, body: bytes) -> int:
        """Tokens of a body. Hits ask for the same few bodies again and again."""
        tokens = self._known.get(body)
        if tokens is None:
            try:
                value = orjson.loads(body)
            except orjson.JSONDecodeError:  # bytes, which have no value to count: their length stands for it
                tokens = max(1, len(body) // CHARACTERS_PER_TOKEN)
            else:
                tokens = self._counted(value)
            if len(body) <= _KNOWN_BYTES_MAX:
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[body] = tokens
        return tokens

    def _counted(self, value: Any) -> int:
        try:
            tokens = self._count_tokens(value)
            if type(tokens) is int and tokens >= 0:
                return tokens
            problem = f"returned {tokens!r}"
        except Exception as error:  # noqa: BLE001  # a user's function
            problem = f"raised {error!r}"
        self.uncounted += 1
        if self.uncounted == 1:
            LOG.warning("count_tokens %s; the estimate is taken instead. Later ones are counted", problem)
        return _estimate_or_length(value)


def _estimate_or_length(value: Any) -> int:
    try:
        return max(0, estimate_tokens(value))
    except ValueError:
        return tokens_of_json(value)


def check_counter(count_tokens: Any) -> None:
    """Try the function once. Raises `UsageError` for one that cannot count."""
    if not callable(count_tokens):
        raise UsageError(f"count_tokens is a function from a value to its number of tokens, got {shown(count_tokens)}")
    try:
        tokens = count_tokens(_PROBE)
    except Exception as error:
        raise UsageError(
            f"count_tokens raised {error!r} for {_PROBE!r}: it must take any value of the store"
        ) from error
    if type(tokens) is not int or tokens < 0:
        raise UsageError(
            f"count_tokens returned {tokens!r} for {_PROBE!r}: it must return a number of tokens, 0 or more"
        )
