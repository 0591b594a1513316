"""librdkafka's error codes, translated into errors of this package. The only file that knows the codes.

Everything that uses a Kafka client translates its errors here.

Guarantees: a message says what to do and names the setting or topic concerned, never a secret. Does not: decide whether
to try again; the error's `retryable` tells.
"""

import enum
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from ccs_stream.protocol.errors import (
    CcsError,
    LogDiverged,
    LogError,
    LogMissing,
    LogUnavailable,
    NotAuthorised,
    RefusedByBroker,
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
        KafkaError.NOT_COORDINATOR,
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
        getattr(KafkaError, "_DESTROY_BROKER", -137),  # the client has just learnt that a broker has left
    }
)
_UNKNOWN_TO_BROKER: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
"""The broker does not accept the credentials."""
_NOT_ALLOWED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "on this topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "on this log's groups (Describe on PREFIX.readers to read, Read on PREFIX.coordinators to coordinate)"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "on the cluster (a producer: Write on at least one topic)",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "on transactional ids",
}
"""The broker knows the user, and an ACL is missing."""
_DENIED: Final = _UNKNOWN_TO_BROKER | _NOT_ALLOWED.keys()
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
_OTHERS_ANSWER_S: Final = 1.0
"""One of several brokers may refuse for a reason of its own: wait so long for the others."""
_NEVER_ANSWERED_S: Final = 6.0
"""A broker that starts, or starts again, listens within so long; an address that is wrong is not waited for longer."""
_STILL_AWAY_S: Final = 2.0
"""Brokers that are all away are reported at each attempt to connect, once a second."""


class BrokerRefusal(enum.StrEnum):
    """Meaning of a failed produce for its message."""

    TOO_LARGE = "too_large"
    """The broker will never take this message, because of its size."""
    DENIED = "denied"
    """The broker takes no message from this user."""
    UNKNOWN = "unknown"
    """The message may be in the topic, or may still get there."""


def broker_refusal_of(error: KafkaError) -> BrokerRefusal:
    """The refusal in the error of a failed produce."""
    code = error.code()
    if code in _TOO_LARGE:
        return BrokerRefusal.TOO_LARGE
    return BrokerRefusal.DENIED if code in _DENIED or code in _MISSING else BrokerRefusal.UNKNOWN


def transient(error: KafkaError | KafkaException) -> bool:
    """True if the error passes by itself, as while a partition's leader moves."""
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        return isinstance(first, KafkaError) and transient(first)
    return error.code() in _PASSING or bool(error.retriable())


def timed_out(error: KafkaException) -> bool:
    """True if no answer came in time."""
    first = error.args[0] if error.args else None
    return isinstance(first, KafkaError) and first.code() == KafkaError._TIMED_OUT


def all_away(error: KafkaException) -> bool:
    """True if no broker could be reached."""
    first = error.args[0] if error.args else None
    return isinstance(first, KafkaError) and first.code() == KafkaError._ALL_BROKERS_DOWN


def unknown_topic(error: KafkaException) -> bool:
    """True if the broker does not know the topic: it does not exist, or the broker has only just started."""
    first = error.args[0] if error.args else None
    return isinstance(first, KafkaError) and first.code() in _MISSING


def moved(error: KafkaError) -> bool:
    """True if an offset is not in the topic any more, because the topic was made anew or cut."""
    return error.code() in _MOVED


def translated(error: KafkaError | KafkaException, doing: str, health: "ConnectionHealth | None" = None) -> CcsError:
    """Our error for one of librdkafka's, met while `doing` something."""
    if isinstance(error, KafkaException):
        first = error.args[0] if error.args else None
        if not isinstance(first, KafkaError):
            return LogError(f"{doing}: {error}")
        error = first
    code, said = error.code(), error.str()
    known = health.last_error if health is not None else None
    if code in _UNAVAILABLE and known is not None:
        # The error callback heard before why no broker answers.
        code, said = known.code(), known.str()
    if code in _UNKNOWN_TO_BROKER:
        return NotAuthorised(f"{doing}: the broker does not accept the credentials ({said}): {_credentials(said)}")
    if code in _NOT_ALLOWED:
        lacking = _NOT_ALLOWED[code].replace("PREFIX", "PREFIX" if health is None else health.prefix)
        return NotAuthorised(
            f"{doing}: this user may not ({said}): it lacks an ACL {lacking}; `ccs-stream doctor URL` says what each "
            "role needs"
        )
    if code in _TLS or _is_tls_failure(said):
        return NotAuthorised(f"{doing}: TLS failed ({said}): {_certificates(said)}")
    if code in _TOO_LARGE:
        return RefusedByBroker(
            f"{doing}: no message of this size is taken ({said}): raise max.message.bytes of the topic and, above "
            "1 MB, message.max.bytes of librdkafka, or send less"
        )
    if code in _MISSING:
        return LogMissing(f"{doing}: {said}: make the topics with `ccs-stream topics create URL`")
    if code == KafkaError.GROUP_ID_NOT_FOUND:
        return LogMissing(f"{doing}: no coordinator has ever joined this group ({said})")
    if code in _MOVED:
        return LogDiverged(
            f"{doing}: {said}: what was read before is gone; the topic was made anew or its head was deleted. "
            "Look with `ccs-stream topics check URL`, and restore it from a copy"
        )
    if code in _UNAVAILABLE or code in _PASSING or code == KafkaError._BAD_MSG:
        return LogUnavailable(f"{doing}: no broker answers ({said}): {_address(code, said)}")
    if code in (KafkaError._INVALID_ARG, KafkaError._CONFLICT):
        return UsageError(f"{doing}: {_without_values(said)}")
    return LogError(f"{doing}: {said}")


def _credentials(said: str) -> str:
    if "OAuth" in said:
        return "check oauth_cb: it must return a token and when that expires, in seconds since 1970"
    if "handshake failed" in said:
        return "check sasl.mechanism, and whether the listener at this port asks for SASL at all (security.protocol)"
    return "check sasl.mechanism, sasl.username and sasl.password"


def _is_tls_failure(said: str) -> bool:
    """True if TLS broke the connection. Some failures show that only in their text."""
    return "SSL " in said


def _certificates(said: str) -> str:
    if "PLAINTEXT broker" in said:
        return "the listener at this port speaks no TLS; check the port, or security.protocol"
    if "closed by peer" in said:  # librdkafka uses both texts for one cause
        return (
            "the broker hung up: the listener at this port speaks no TLS (check the port, or security.protocol), or "
            "wants a certificate of ours (ssl.certificate.location)"
        )
    if "alert" in said:
        return "the broker does not take our certificate; check ssl.certificate.location and ssl.key.location"
    return "check ssl.ca.location, which must hold the authority that signed the broker's certificate, and the port"


def _address(code: int, said: str) -> str:
    if code == KafkaError._BAD_MSG:
        return "what answers at this port is no Kafka, or speaks TLS; check the port, and security.protocol"
    if code == KafkaError._RESOLVE:
        return "there is no host of this name; check the address in the URL"
    if code == KafkaError._ALL_BROKERS_DOWN and "refused" not in said:
        return (
            "it takes connections and closes them, as a listener does that asks for TLS or SASL; check "
            "security.protocol, which is PLAINTEXT unless set, and the port"
        )
    return "check that it runs, and the address in the URL"


def _without_values(said: str) -> str:
    """A complaint about a setting, without the value it was given: that may be a secret in the wrong place."""
    said = re.sub(r'Invalid value "[^"]*"', "invalid value", said)
    said = re.sub(r"(Unsupported SASL mechanism): .*", r"\1 in sasl.mechanism", said)
    if "No such configuration property" in said:
        said += ". It was read from config=FILE, kafka={...}, or the environment (CCS_KAFKA_...)"
    return said.removeprefix("Failed to create producer: ").removeprefix("Failed to create consumer: ")


class ConnectionHealth:
    """Health of the connection to the brokers, fed by the error callbacks: why no broker answers, and since when."""

    __slots__ = ("_all_away", "_answered", "_lock", "_now", "_permanent_since", "last_error", "prefix")

    def __init__(self, prefix: str, now: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known yet. Tests hand in a `now`, in seconds, that they move by hand."""
        self._now = now
        self.prefix = prefix
        """Prefix of this log's topics and groups, for messages."""
        self._lock = threading.Lock()
        self.last_error: KafkaError | None = None
        """The most telling error since the broker last answered."""
        self._permanent_since = 0.0
        self._answered = False
        """True once any broker has answered."""
        self._all_away: tuple[float, float] | None = None
        """When it was first and last reported that no broker can be reached; None while one can."""

    def failed(self, error: KafkaError) -> None:
        """The error callback of every client. A reason (a bad password) is kept over its consequence (all down)."""
        with self._lock:
            last = self.last_error
            if last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
                self.last_error = error
            if not self._permanent_since and _waiting_does_not_help(error):
                self._permanent_since = self._now()
            if error.code() == KafkaError._ALL_BROKERS_DOWN:
                now = self._now()
                self._all_away = (now if self._all_away is None else self._all_away[0], now)

    def recovered(self) -> None:
        """The broker has answered."""
        self.last_error, self._permanent_since = None, 0.0
        self._answered, self._all_away = True, None

    @property
    def is_permanent(self) -> bool:
        """True if waiting is in vain.

        Brokers have refused the client for so long that another one would have answered by now, or no broker has ever
        been there.
        """
        since, now = self._permanent_since, self._now()
        return (bool(since) and now - since > _OTHERS_ANSWER_S) or self._was_never_there(now)

    def _was_never_there(self, now: float) -> bool:
        away = self._all_away
        return (
            not self._answered
            and away is not None
            and now - away[0] > _NEVER_ANSWERED_S
            and now - away[1] < _STILL_AWAY_S
        )


def _waiting_does_not_help(error: KafkaError) -> bool:
    code = error.code()
    return code in _UNKNOWN_TO_BROKER or code in _TLS or code == KafkaError._BAD_MSG or _is_tls_failure(error.str())
