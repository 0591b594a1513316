import pytest
from confluent_kafka.admin import AdminClient

from ccs_stream.testing.broker import Broker


@pytest.mark.parametrize("n", range(4))
def test_it(kafka_broker: Broker, kafka_prefix: str, n: int) -> None:
    assert len(AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers}).list_topics(timeout=5).brokers) == 1
    print(kafka_prefix)
