"""Freshness: how much of the log must be folded before a read is answered.

Guarantees: a copy served is valid up to a log position that satisfies the freshness. Does not: wait for other writers;
freshness concerns what they have appended already.
"""

import contextlib
import enum

from ccs_stream.log.port import Position
from ccs_stream.protocol.deliveries import DeliveryFreshness
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import shown


class Freshness(enum.StrEnum):
    """The part of the log that is folded before a read is answered."""

    LOCAL = "local"
    """Only what this process has folded already."""
    OWN_WRITES = "own_writes"
    """At least this process's own writes."""
    LATEST = "latest"
    """Everything in the log when the read began."""

    @classmethod
    def parse(cls, value: "str | Freshness") -> "Freshness":
        """The freshness of a name. Raises `UsageError`."""
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return cls(value)
        names = ", ".join(each.value for each in cls)
        raise UsageError(f"unknown freshness {shown(value)}: use one of {names}, or at_least=POSITION")


def delivery_freshness(freshness: Freshness | str | None, at_least: Position | str | None) -> DeliveryFreshness | None:
    """The freshness that a delivery records; None for the default."""
    if at_least is not None:
        return DeliveryFreshness.AT_LEAST
    return None if freshness is None else DeliveryFreshness(str(Freshness.parse(freshness)))
