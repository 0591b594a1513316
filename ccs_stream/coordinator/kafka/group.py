"""The coordinators' group, looked at from outside.

Guarantees: joins nothing, commits nothing. Does not: say who leads; the group suggests and the log says so.
"""

import dataclasses

from ccs_stream.coordinator.kafka.member import DEDICATED_CLIENT
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import LogMissing


@dataclasses.dataclass(slots=True)
class Group:
    """Who was in it when it was looked at."""

    name: str
    members: list[tuple[str, frozenset[int]]] = dataclasses.field(default_factory=list)
    """Client id and host of each, and the partitions it is to lead."""
    dedicated: int = 0
    """How many of them are coordinators of their own, and not embedded in a client."""

    def offered_by(self, partition: int) -> list[str]:
        """Who is to lead a partition."""
        return [who for who, partitions in self.members if partition in partitions]


def group_of(store: KafkaLog) -> Group:
    """Who coordinates a log. Raises `LogUnavailable`, `NotAuthorised`."""
    found = Group(store.names.coordinators)
    clients = store.clients
    described = clients.admin.describe_consumer_groups([found.name], request_timeout=clients.settings.timeout_s)
    try:
        group = clients.asked(f"asking who coordinates {store.display_url}", described[found.name])
    except LogMissing:  # nobody ever joined it
        return found
    for member in group.members:
        assigned = () if member.assignment is None else member.assignment.topic_partitions
        partitions = frozenset(each.partition for each in assigned if each.topic == store.names.commands)
        found.members.append((f"{member.client_id} at {member.host}", partitions))
        found.dedicated += str(member.client_id).startswith(DEDICATED_CLIENT)
    return found
