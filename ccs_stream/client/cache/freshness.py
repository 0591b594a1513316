"""How fresh a read must be.

Guarantees: a copy served is valid up to a log position that satisfies what was asked. Does not: wait for other writers;
freshness is about what they have already appended.
"""

import enum

from ccs_stream.log.port import Position
from ccs_stream.protocol.deliveries import DeliveryFreshness
from ccs_stream.protocol.errors import UsageError


class Freshness(enum.StrEnum):
    """What a read must have folded before it answers."""

    LOCAL = "local"
    """What this process has folded."""
    OWN_WRITES = "own_writes"
    """At least this process's own writes."""
    LATEST = "latest"
    """Everything in the log when the read began."""

    @classmethod
    def parse(cls, value: "str | Freshness") -> "Freshness":
        """The freshness of a name. Raises `UsageError`."""
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(each.value for each in cls)
            raise UsageError(f"unknown freshness {value!r}: use one of {names}, or at_least=POSITION") from None


def delivery_freshness(freshness: Freshness | str | None, at_least: Position | str | None) -> DeliveryFreshness | None:
    """What a delivery says was asked for; None for the default."""
    if at_least is not None:
        return DeliveryFreshness.AT_LEAST
    return None if freshness is None else DeliveryFreshness(str(Freshness.parse(freshness)))
