"""The values that are put and got.

Guarantees: the same values for every store: dicts with a few fields and a list of sections of about 300 bytes, as
agents' findings are. Does not: compress well or badly on purpose.
"""

from typing import Any, Final

import orjson

SIZES: Final = {"1 KB": 1_000, "4 KB": 4_000, "64 KB": 64_000}


def value_of(size: int) -> dict[str, Any]:
    """A value of about `size` bytes as JSON."""
    value: dict[str, Any] = {
        "title": "findings of the security review",
        "author": "reviewer-2",
        "round": 3,
        "confidence": 0.82,
        "final": False,
        "parent": None,
        "sections": [],
    }
    number = 0
    while (missing := size - len(orjson.dumps(value))) > 60:
        words = f"the input reaches the query unescaped ({number}); " * 6
        value["sections"].append(
            {
                "path": f"service/handlers/module_{number:04d}.py",
                "line": 17 * number + 3,
                "severity": ("low", "medium", "high")[number % 3],
                "score": number / 7,
                "text": words[: min(180, missing)],
            }
        )
        number += 1
    return value
