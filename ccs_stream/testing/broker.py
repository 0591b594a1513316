"""A real Apache Kafka for tests and benchmarks, with one call.

    with start_broker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})

Guarantees: the broker is a real Kafka; `how` says which source it came from, and `NoBroker` what each source lacks.
Does not: keep any data when it stops.

Sources, in this order:

1. the address in the environment variable `CCS_TEST_KAFKA`; if it is set, no other source is tried;
2. a container, if a Docker engine answers and the image can be pulled;
3. Java and, the first time, Maven.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ccs_stream.testing import broker_container, broker_java
from ccs_stream.testing.broker_base import (
    KAFKA_VERSION,
    PLAINTEXT,
    BorrowedBroker,
    Broker,
    BrokerFailed,
    BrokerOptions,
    NoBroker,
)
from ccs_stream.testing.broker_config import QUICK_FAILOVER

__all__ = ["KAFKA_VERSION", "QUICK_FAILOVER", "Broker", "BrokerFailed", "NoBroker", "prepare", "start_broker"]

ADDRESS_VARIABLE: Final = "CCS_TEST_KAFKA"

_ANSWER_TIMEOUT_S: Final = 5

_SILENT: Final = 0
"""The client would print each attempt to connect; the error says it once."""


class _BrokerSource(Protocol):
    def prepare(self) -> None: ...

    def start(self, options: BrokerOptions) -> Broker: ...


_SOURCES: Final[Mapping[str, _BrokerSource]] = {"A container": broker_container, "Java": broker_java}


def start_broker(
    *,
    nodes: int = 1,
    settings: Mapping[str, str] | None = None,
    listeners: Mapping[str, str] | None = None,
    format_arguments: Sequence[str] = (),
) -> Broker:
    """A running broker, from the first source that can start one.

    `settings` are lines of server.properties; they win over those of the kit. `listeners` adds listeners: a name in
    capital letters, and its protocol; `Broker.listener` has the address. `format_arguments` go to the tool that formats
    the storage: `["--add-scram", "SCRAM-SHA-512=[name=admin,password=secret]"]`.

    Raises `NoBroker` if no source can start one, and `BrokerFailed` with the node's log if a broker does not start.
    """
    options = BrokerOptions(
        nodes=nodes, settings=settings or {}, listeners=listeners or {}, format_arguments=format_arguments
    )
    address = os.environ.get(ADDRESS_VARIABLE)
    if address:
        return _at(address, options)
    lacking = []
    for name, source in _SOURCES.items():
        try:
            return source.start(options)
        except NoBroker as error:
            lacking.append(f"{name}: {error}")
    raise NoBroker(f"no Kafka broker can be had. {ADDRESS_VARIABLE} is not set. {'. '.join(lacking)}")


def prepare() -> None:
    """Download what `start_broker()` would download. Raises nothing: `start_broker` reports if there is no broker."""
    if os.environ.get(ADDRESS_VARIABLE):
        return
    for source in _SOURCES.values():
        with contextlib.suppress(NoBroker):
            source.prepare()
            return


def _at(address: str, options: BrokerOptions) -> Broker:
    refusal = NoBroker(f"{ADDRESS_VARIABLE} names a broker that is not ours to set up, hurt or stop: unset it for this")
    if not options.is_plain:
        raise refusal
    client = AdminClient({"bootstrap.servers": address, "log_level": _SILENT})
    try:
        client.list_topics(timeout=_ANSWER_TIMEOUT_S)
    except KafkaException as error:
        reason = error.args[0].str()
        raise NoBroker(f"{ADDRESS_VARIABLE} names {address}, where no broker answers ({reason})") from error
    how = f"the broker at {address}, as {ADDRESS_VARIABLE} says"
    return BorrowedBroker(how=how, addresses={PLAINTEXT: address}, refusal=refusal)
