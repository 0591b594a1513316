"""The estimate of a value's tokens, used where the user gives no `count_tokens`.

Guarantees: a value that names its size (`__ccs_size_tokens__`) has that size; any other has a quarter of the characters
of its compact JSON with sorted keys, at least one. Does not: know a tokenizer; text beyond ASCII is overestimated,
because JSON escapes it.

Source of the formula and the key: agent-coherence 0.6, whose savings are compared with ours.
"""

import json
from typing import Any, Final

SIZE_KEY: Final = "__ccs_size_tokens__"
CHARACTERS_PER_TOKEN: Final = 4
SIGNAL_TOKENS: Final = 12
"""Tokens of one invalidation signal: the artifact, its version, its author."""
REFERENCE_TOKENS: Final = 1
"""Tokens of a hit: a word that says "as before"."""


def estimate_tokens(value: Any) -> int:
    """Tokens of a value that JSON can hold. Raises `ValueError` for a size that is no number."""
    if type(value) is dict and SIZE_KEY in value:
        try:
            return int(value[SIZE_KEY])
        except (TypeError, ValueError):
            raise ValueError(f"{SIZE_KEY} is a number of tokens, got {value[SIZE_KEY]!r}") from None
    return tokens_of_json(value)


def tokens_of_json(value: Any) -> int:
    """Tokens of a value by its length alone, even where the value names its size."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return max(1, len(text) // CHARACTERS_PER_TOKEN)
