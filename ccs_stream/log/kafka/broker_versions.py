"""Which release of Kafka a broker is of, as far as what it serves tells.

Guarantees: works wherever the client library comes to be told what the broker serves, which is before anybody
authenticates; says a range, not a guess. Does not: know a patch release; brokers tell nobody theirs.

Source: what each release serves is in its protocol guide, and in the proposals named below.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException

from ccs_stream.log.kafka.clients import Clients

Served = Mapping[int, tuple[int, int]]
"""Lowest and highest version served of each request, by its number in the protocol."""

_LINE: Final = re.compile(r"ApiKey \S+ \((\d+)\) Versions (\d+)\.\.(\d+)")
_LOG: Final = logging.getLogger("ccs_stream.what-brokers-serve")
_LOG.setLevel(logging.DEBUG)
_LOG.propagate = False  # a hundred lines for each broker, for nobody but us
_TOLD_S: Final = 0.2
_FETCH, _DESCRIBE_CLUSTER, _LIST_TRANSACTIONS, _STREAMS_HEARTBEAT = 1, 60, 66, 88


def served(clients: Clients) -> Served:
    """What the first broker that answers serves; nothing where none does.

    The client library tells it to its log alone, so a client is made for that and dropped.
    """
    found: dict[int, tuple[int, int]] = {}

    class _Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told = _LINE.search(record.getMessage())
            if told is not None:
                number, lowest, highest = map(int, told.groups())
                found[number] = (lowest, highest)

    listening = _Listening()
    _LOG.addHandler(listening)
    try:
        client = clients.listening_admin(_LOG)
        with contextlib.suppress(KafkaException):  # whether this user may look is another check
            client.list_topics(timeout=clients.settings.timeout_s)
        client.poll(_TOLD_S)
    finally:
        _LOG.removeHandler(listening)
    return found


def release(served: Served) -> str | None:
    """The releases that serve this, such as "4.1 or newer"; None where nothing is known."""
    if _FETCH not in served:
        return None
    absent = (-1, -1)
    if _STREAMS_HEARTBEAT in served:  # KIP-1071
        return "4.1 or newer"
    if served[_FETCH][0] >= 4:  # KIP-896: older versions are not served any more
        return "4.0 or newer"
    if served.get(_DESCRIBE_CLUSTER, absent)[1] >= 1:  # KIP-919
        return "3.7 to 3.9"
    if _LIST_TRANSACTIONS in served:  # KIP-664
        return "3.0 to 3.6"
    if _DESCRIBE_CLUSTER in served:  # KIP-700
        return "2.8"
    return "older than 2.8"


def is_old(release: str) -> bool:
    """Whether ccs-stream is not meant for it: brokers before 3.0 are not maintained by anybody."""
    return release.endswith("2.8")
