"""Names of topics and groups, and the partition of a workspace.

The Kafka store, the coordinators and the command-line tools use it.

Guarantees: the partition is computed here and nowhere else, in the way of Kafka's own clients, so that every host and
every tool agrees. Does not: ask a broker.

Source: the murmur2 of Apache Kafka's `Utils.murmur2` and its default partitioner, `toPositive(murmur2(key)) % count`.
"""

import dataclasses
from typing import Final

from ccs_stream.protocol.errors import UsageError

PARTITIONER: Final = "murmur2"
"""As recorded in `LogOpened`."""
_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True, slots=True)
class TopicNames:
    """The topics of one log. All but the audit topics are private to this project."""

    prefix: str

    @property
    def commands(self) -> str:
        """Commands of participants."""
        return f"{self.prefix}.commands.v1"

    @property
    def log(self) -> str:
        """The log: decisions and claims, never compacted."""
        return f"{self.prefix}.log.v1"

    @property
    def snapshots(self) -> str:
        """Folded states, compacted."""
        return f"{self.prefix}.snapshots.v1"

    @property
    def content(self) -> str:
        """Bodies too large to travel in their decision, in chunks."""
        return f"{self.prefix}.content.v1"

    @property
    def deliveries(self) -> str:
        """Deliveries: which agent was given which version."""
        return f"{self.prefix}.deliveries.v1"

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic a log needs."""
        return (self.commands, self.log, self.snapshots, self.content, self.deliveries)

    @property
    def coordinators(self) -> str:
        """Group of the coordinators."""
        return f"{self.prefix}.coordinators"

    @property
    def readers(self) -> str:
        """Group named by clients that only read; nothing is ever committed under it."""
        return f"{self.prefix}.readers"


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of a key, as an unsigned number."""
    length = len(data)
    state = (_SEED ^ length) & _MASK
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        state = (state * _MULTIPLIER & _MASK) ^ word
    rest = data[whole:]
    if rest:
        state ^= int.from_bytes(rest, "little")
        state = state * _MULTIPLIER & _MASK
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK
    return state ^ state >> 15


def partition_of(workspace: str, partitions: int) -> int:
    """The partition of a workspace in a log of so many partitions. Raises `UsageError` for a name that is no text."""
    try:
        key = workspace.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{workspace!r} cannot name a workspace: half of a surrogate pair is no character") from None
    return (murmur2(key) & 0x7FFFFFFF) % partitions
