"""The coordinators' consumer group as a look at it from outside shows it.

`ccs-stream doctor` and the candidacy of embedded coordinators use it. Guarantees: looking joins nothing and commits
nothing. Does not: say who leads; the group suggests and the log says so.
"""

import dataclasses
import warnings

from confluent_kafka import KafkaException

from ccs_stream.coordinator.kafka.group.member import DEDICATED_CLIENT
from ccs_stream.log.kafka.errors import translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.errors import LogMissing

warnings.filterwarnings("ignore", message="list_groups", category=DeprecationWarning)  # see `count_members`


@dataclasses.dataclass(slots=True)
class CoordinatorGroup:
    """The members of the group when it was looked at."""

    name: str
    members: list[tuple[str, frozenset[int]]] = dataclasses.field(default_factory=list)
    """Client id and host of each, and the partitions that the group suggests it lead."""
    dedicated: int = 0
    """How many of them are dedicated coordinators, not embedded in a client."""

    def suggested_for(self, partition: int) -> list[str]:
        """The members that the group suggests for a partition."""
        return [who for who, partitions in self.members if partition in partitions]


def describe_group(store: KafkaLog) -> CoordinatorGroup:
    """The group of a log's coordinators. Raises `LogUnavailable`, `NotAuthorised`."""
    found = CoordinatorGroup(store.names.coordinators)
    clients = store.clients
    described = clients.admin.describe_consumer_groups([found.name], request_timeout=clients.settings.timeout_s)
    try:
        group = clients.wait_for(f"asking who coordinates {store.display_url}", described[found.name])
    except LogMissing:  # it never had a member
        return found
    for member in group.members:
        assigned = () if member.assignment is None else member.assignment.topic_partitions
        partitions = frozenset(each.partition for each in assigned if each.topic == store.names.commands)
        found.members.append((f"{member.client_id} at {member.host}", partitions))
        found.dedicated += str(member.client_id).startswith(DEDICATED_CLIENT)
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class GroupSize:
    """How many members the group has."""

    members: int
    dedicated: int
    """Those that are dedicated coordinators."""


def count_members(store: KafkaLog) -> GroupSize:
    """How many coordinators are in the group. Raises `LogUnavailable`, `NotAuthorised`.

    For callers that look again and again, also while brokers go and come: librdkafka 2.16 ends the whole process where
    `describe_consumer_groups` waits for a broker that comes back (an assertion about a reference count fails). The
    older call, which asks each broker there is, does not; it is deprecated, and goes on where that is no error.
    """
    clients, name = store.clients, store.names.coordinators
    doing = f"asking who coordinates {store.display_url}"
    try:
        groups = clients.admin.list_groups(name, timeout=clients.settings.timeout_s)
    except KafkaException as error:
        raise translated(error, doing, clients.connection) from error
    except (AttributeError, DeprecationWarning, ImportError):
        # Gone, or its deprecation is made an error, which its C code turns into another. Only a broker that has just
        # answered is asked the dangerous way.
        try:
            clients.admin.list_topics(timeout=clients.settings.timeout_s)
        except KafkaException as error:
            raise translated(error, doing, clients.connection) from error
        described = describe_group(store)
        return GroupSize(len(described.members), described.dedicated)
    clients.connection.recovered()
    members = [member for group in groups if str(group.id) == name for member in group.members]
    dedicated = sum(str(member.client_id).startswith(DEDICATED_CLIENT) for member in members)
    return GroupSize(len(members), dedicated)
