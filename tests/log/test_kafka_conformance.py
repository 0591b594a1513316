"""The log on Kafka through the suite that every store passes, on a real broker."""

from pathlib import Path

import pytest

from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.names import murmur2, partition_of
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.port import LogStore
from ccs_stream.testing.broker import Broker
from ccs_stream.testing.conformance import LogStoreConformance


@pytest.mark.kafka
class TestKafkaLog(LogStoreConformance):
    """Topics of their own for each test."""

    turns_are_transactions = False
    opens_shards = False

    @pytest.fixture(autouse=True)
    def _settings(self, kafka_broker: Broker, kafka_prefix: str) -> None:
        url = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}"
        self.settings = KafkaSettings.parse(url)
        topics.create(Clients(self.settings), partitions=3)

    def open_store(self, folder: Path) -> LogStore:
        """Another connection to the topics of this test."""
        return KafkaLog(self.settings)


def test_the_golden_partitions_are_those_of_kafka() -> None:
    # Kafka's own vectors, as signed numbers in its sources.
    vectors: dict[bytes, int] = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) - (murmur2(key) >> 31 << 32) for key in vectors} == vectors
    assert [partition_of(name, 12) for name in ("default", "release-42", "ü")] == [7, 3, 2]
