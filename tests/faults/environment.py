"""The environment of a fault: a broker it may hurt, a size, a seed.

Guarantees: the seed is printed, and CCS_TEST_SEED runs it again (times and signals still fall where they fall).
"""

import contextlib
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ccs_stream.testing.broker import Broker, start_broker
from tests.faults.cluster import Cluster

SEED_VARIABLE: Final = "CCS_TEST_SEED"
SIZE_VARIABLE: Final = "CCS_FAULTS"
BROKER_SETTINGS: Final = {"group.min.session.timeout.ms": "1000"}
"""So that small runs need not wait for 6 s until a dead coordinator is replaced."""


@dataclass(slots=True)
class Environment:
    """See the module's docstring."""

    broker: Broker
    folder: Path
    full: bool = False
    seed: str = ""
    choose: random.Random = field(default_factory=random.Random)

    @property
    def session_s(self) -> float:
        """Session time-out of coordinators: in full runs what is shipped."""
        return 6.0 if self.full else 2.0

    @property
    def workspaces(self) -> list[str]:
        return ["w0", "w1", "w2"][: 3 if self.full else 2]

    def size(self, small: int, full: int) -> int:
        """One of two sizes."""
        return full if self.full else small

    @contextmanager
    def cluster(self, *, broker: Broker | None = None, partitions: int = 1, **options: float) -> Iterator[Cluster]:
        """A log of its own, and its processes."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with Cluster(broker or self.broker, folder, seed=self.seed, partitions=partitions, **options) as cluster:
            yield cluster


def is_full() -> bool:
    """True if the environment asks for full sizes."""
    return os.environ.get(SIZE_VARIABLE) == "full"


def make(broker: Broker, folder: Path, name: str, *, full: bool) -> Environment:
    """The environment of one fault; prints its seed."""
    seed = os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().randrange(10**9))
    print(f"{name}: {SEED_VARIABLE}={seed}")  # noqa: T201  # pytest shows it when the test fails
    return Environment(broker, folder, full, seed, random.Random(f"{seed}/{name}"))


def own_broker(nodes: int = 1, **settings: str) -> Broker:
    """A broker that may be hurt."""
    return start_broker(nodes=nodes, settings={**BROKER_SETTINGS, **settings})


def heal(broker: Broker) -> None:
    """See that the broker serves, whatever the fault before left behind."""
    if _serves(broker):
        return
    with contextlib.suppress(Exception):  # what a broker says that does not stand still depends on what it runs on
        broker.resume(1)
    if not _serves(broker):
        broker.restart(1)


def _serves(broker: Broker) -> bool:
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    try:
        client.list_topics(timeout=10)
    except KafkaException:
        return False
    return True
