"""The faults, in the order in which they are run and printed."""

from collections.abc import Callable
from typing import Final

from tests.faults import brokers, clients, leaders, records, topics
from tests.faults.environment import Environment
from tests.faults.table import Row

FAULTS: Final[tuple[Callable[[Environment], Row], ...]] = (
    leaders.killed,
    leaders.embedded_killed,
    leaders.stopped,
    leaders.frozen,
    records.lost,
    records.refused,
    topics.changed,
    leaders.racing,
    clients.killed,
    brokers.killed,
    brokers.away,
    records.garbled,
    records.snapshots,
    brokers.silent,
)


def name_of(fault: Callable[[Environment], Row]) -> str:
    """`leaders.killed`, for `--only`."""
    return f"{fault.__module__.rpartition('.')[2]}.{fault.__name__}"
