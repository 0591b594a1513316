"""librdkafka's error codes, in this project's words. The only file that knows them.

Guarantees: a message says what to do and names the setting or topic concerned, never a secret. Does not: decide whether
to try again; `retryable` of the error does.
"""

import enum
import threading
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from ccs_stream.protocol.errors import (
    CcsError,
    LogDiverged,
    LogError,
    LogMissing,
    LogUnavailable,
    NotAuthorised,
    UsageError,
)

_UNAVAILABLE: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)
_PASSING: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)
_DENIED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_MISSING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
_MOVED: Final = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
_TOO_LARGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
)
_TLS: Final = frozenset({KafkaError._SSL})


class Refusal(enum.StrEnum):
    """How certain a failed produce is."""

    TOO_LARGE = "too_large"
    """The broker will never take this message."""
    DENIED = "denied"
    """The broker takes no message from us."""
    UNKNOWN = "unknown"
    """It may be there, or come to be there."""


def refusal_of(error: KafkaError) -> Refusal:
    """What a failed produce means for the message."""
    code = error.code()
    if code in _TOO_LARGE:
        return Refusal.TOO_LARGE
    return Refusal.DENIED if code in _DENIED or code in _MISSING else Refusal.UNKNOWN


def transient(error: KafkaError | KafkaException) -> bool:
    """Whether it passes by itself, as while a partition's leader moves."""
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        return isinstance(first, KafkaError) and transient(first)
    return error.code() in _PASSING or bool(error.retriable())


def end_of_partition(error: KafkaError) -> bool:
    """Whether it is no error, but the end of a partition."""
    return bool(error.code() == KafkaError._PARTITION_EOF)


def translated(error: KafkaError | KafkaException, doing: str, trouble: "Trouble | None" = None) -> CcsError:
    """Our error for one of librdkafka's, met while `doing` something."""
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        if not isinstance(first, KafkaError):
            return LogError(f"{doing}: {error}")
        error = first
    code, said = error.code(), error.str()
    known = trouble.last if trouble is not None else None
    if code in _UNAVAILABLE and known is not None:
        # Why nobody answers was said before, to the error callback.
        code, said = known.code(), f"{said}; {known.str()}"
    if code in _DENIED:
        return NotAuthorised(
            f"{doing}: the broker refuses ({said}): check sasl.* and security.protocol, and the ACLs of this user"
        )
    if code in _TLS:
        return NotAuthorised(f"{doing}: TLS failed ({said}): check security.protocol, ssl.ca.location and the port")
    if code in _MISSING:
        return LogMissing(f"{doing}: {said}: make the topics with `ccs-stream topics create URL`")
    if code in _MOVED:
        return LogDiverged(
            f"{doing}: {said}: what was read before is gone; the topic was made anew or its head was deleted. "
            "Look with `ccs-stream topics check URL`, and restore it from a copy"
        )
    if code in _UNAVAILABLE:
        return LogUnavailable(f"{doing}: no broker answers ({said}): check that it runs, and the address in the URL")
    if code in (KafkaError._INVALID_ARG, KafkaError._CONFLICT):
        return UsageError(f"{doing}: {said}")
    return LogError(f"{doing}: {said}")


class Trouble:
    """What librdkafka says of the connection, between calls: why nobody answers, and since when."""

    __slots__ = ("_lock", "last")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last: KafkaError | None = None
        """The most telling error since the broker last answered."""

    def heard(self, error: KafkaError) -> None:
        """The error callback of every client. A reason (a bad password) is kept over its consequence (all down)."""
        with self._lock:
            last = self.last
            if last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
                self.last = error

    def over(self) -> None:
        """The broker has answered."""
        self.last = None
