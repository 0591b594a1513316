"""What holds for every test.

Guarantees: a failing property prints a blob that runs the same example again (`@reproduce_failure`).
Does not: hold fixtures of single rooms; those live beside their tests, and what users may want in `ccs_stream.testing`.
"""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings

from ccs_stream.testing.broker import Broker
from tests.kafka import coordinated_log

# No deadline: examples share their machine with other work, and a slow second says nothing about the property.
settings.register_profile("ccs-stream", deadline=None, print_blob=True)
settings.load_profile("ccs-stream")

pytest_plugins = ["ccs_stream.testing.pytest_plugin"]


@pytest.fixture(scope="session")
def kafka_log(kafka_broker: Broker) -> Iterator[str]:
    """A log on Kafka with a coordinator in a process of its own."""
    with coordinated_log(kafka_broker.bootstrap_servers, f"store-{uuid.uuid4().hex[:12]}") as url:
        yield f"{url}&coordinator=remote"
