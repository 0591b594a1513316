"""The release of Kafka that a broker runs, derived from the requests that it serves.

`ccs-stream doctor` uses it.

Guarantees: works wherever the client library learns which requests the broker serves, which is before authentication;
returns a range of releases, not a guess. Does not: know the patch release; brokers do not tell it.

Source: what each release serves is in its protocol guide, and in the proposals named below.
"""

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException

from ccs_stream.log.kafka.clients import Clients

ServedRequests = Mapping[int, tuple[int, int]]
"""Lowest and highest version served of each request, by its number in the protocol."""

_LINE: Final = re.compile(r"ApiKey \S+ \((\d+)\) Versions (\d+)\.\.(\d+)")
_LOG: Final = logging.getLogger("ccs_stream.what-brokers-serve")
_LOG.setLevel(logging.DEBUG)
_LOG.propagate = False  # a hundred lines for each broker, only for the handler below
_POLL_S: Final = 0.2
"""Time for the handler to receive the lines that the client library logs."""
_FETCH, _DESCRIBE_CLUSTER, _LIST_TRANSACTIONS, _STREAMS_HEARTBEAT = 1, 60, 66, 88


def served_requests(clients: Clients) -> ServedRequests:
    """The requests that the first broker to answer serves; empty if none answers.

    The client library writes them to its debug log only, so a client is made for that and dropped.
    """
    found: dict[int, tuple[int, int]] = {}

    class _RequestLogHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found_line = _LINE.search(record.getMessage())
            if found_line is not None:
                number, lowest, highest = map(int, found_line.groups())
                found[number] = (lowest, highest)

    handler = _RequestLogHandler()
    _LOG.addHandler(handler)
    try:
        client = clients.listening_admin(_LOG)
        with contextlib.suppress(KafkaException):  # the rights of this user are another check
            client.list_topics(timeout=clients.settings.timeout_s)
        client.poll(_POLL_S)
    finally:
        _LOG.removeHandler(handler)
    return found


def broker_release(served: ServedRequests) -> str | None:
    """The releases that serve these requests, such as "4.1 or newer"; None if nothing is known."""
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


def is_unsupported(release: str) -> bool:
    """True if ccs-stream is not meant for this release: brokers before 3.0 are not maintained any more."""
    return release.endswith("2.8")
