"""Upcasters: from the fields of a superseded schema to today's.

Guarantees: pure, one step each, on plain fields, before an event is built; no rule of the protocol lives here.
Does not: add optional fields with defaults; Avro's schema resolution does that, and is always the first choice.

No schema has been superseded in a way that needs a step, so the table is empty; a step is keyed by the prefix of the
schema it upgrades.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Fields = dict[str, Any]
Step = Callable[[Fields], Fields]
STEPS: Final[Mapping[tuple[str, bytes], Step]] = {}


def upcast(
    name: str,
    prefix: bytes,
    fields: Fields,
    steps: Mapping[tuple[str, bytes], Step] = STEPS,
) -> Fields:
    """The fields of a record `name`, written under the schema that `prefix` names, as today's schema has them."""
    step = steps.get((name, prefix))
    return fields if step is None else step(fields)
