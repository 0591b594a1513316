"""A log of one partition, so that all of its workspaces have it in common."""

import pytest

from ccs_stream.testing.broker import Broker
from tests.kafka import make_topics


@pytest.fixture
def log(kafka_broker: Broker, kafka_prefix: str) -> str:
    url = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}"
    make_topics(url, 1)
    return url
