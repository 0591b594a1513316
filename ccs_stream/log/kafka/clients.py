"""Producers, consumers and admin clients of a Kafka log, each with the settings that the log's promises rest on.

The Kafka store, the coordinators and the command-line tools take their clients from here.

Guarantees: clients are made when first needed, and refused in a forked child; the settings that users cannot choose
(`settings.FIXED`) are set here. Does not: share one client between two owners.

How: librdkafka has threads of its own; the error callback of each client runs in the thread that polls the client.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from ccs_stream.background import ForkGuard
from ccs_stream.log.kafka.errors import ConnectionHealth, translated
from ccs_stream.log.kafka.names import TopicNames
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.protocol.errors import LogMissing, LogUnavailable, NotAuthorised, UsageError

T = TypeVar("T")

LOG = logging.getLogger(__name__)
CLIENT_LOG: Final = logging.getLogger("ccs_stream.librdkafka")
# librdkafka logs each attempt to connect, and an error of this package reports it once. Only users who configure this
# logger see the lines.
CLIENT_LOG.addHandler(logging.NullHandler())
BATCH_BYTES: Final = 1_000_000
"""librdkafka's own default of `batch.size`."""
_FETCH_WAIT_MS: Final = 100
"""A fetch waits at the broker for so long if there are no records; some brokers do not wake it earlier."""
_HEARTBEAT_MS: Final = 300
"""A member learns with its next heartbeat that another one has left; so this bounds how long a hand-over takes."""
_RECONNECT_MAX_MS: Final = 1_000
"""A broker that comes back is noticed within a second."""
_CHECK_S: Final = 0.1
"""While an answer is awaited, the connection is checked for a permanent failure this often."""
_REFRESH_MAX_S: Final = 1.0
"""Longest pause between two requests for the list of brokers, while an answer is awaited."""

DeliveryCallback = Callable[[KafkaError | None, Message], None]


class Clients:
    """Makes the clients of one log for one process."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.names = TopicNames(settings.prefix)
        self.connection = ConnectionHealth(settings.prefix)
        self._guard = ForkGuard(settings.display_url)
        self._admin: AdminClient | None = None

    def check_process(self) -> None:
        """Raises `ForkedProcess` in a forked child."""
        self._guard.check()

    def producer(
        self, *, only_errors: bool = False, client_id: str = "ccs-producer", batch_bytes: int = BATCH_BYTES
    ) -> Producer:
        """An idempotent producer. Its callbacks get the outcome of every message, with `only_errors` of failed ones.

        Brokers measure batches, not messages, against their largest message: `batch_bytes` must be below that.
        """
        made: Producer = self._make(
            Producer,
            {
                "client.id": client_id,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.timeout.ms": round(self.settings.delivery_timeout_s * 1_000),
                "delivery.report.only.error": only_errors,
                "batch.size": max(min(batch_bytes, BATCH_BYTES), 1),
                # A leader must be able to append the refusal of the largest command, which is larger than the command.
                "message.max.bytes": max(batch_bytes, BATCH_BYTES),
            },
        )
        return made

    def reader(self, *, client_id: str = "ccs-reader", fetch_wait_ms: int = _FETCH_WAIT_MS) -> Consumer:
        """A consumer to be assigned by hand: in no group, committing nothing.

        `fetch_wait_ms` bounds how long a new assignment waits behind a fetch of the old one.
        """
        made: Consumer = self._make(
            Consumer,
            {
                "client.id": client_id,
                "group.id": self.names.readers,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": fetch_wait_ms,
                "fetch.error.backoff.ms": 50,
                "allow.auto.create.topics": False,
            },
        )
        return made

    def member(self, *, client_id: str) -> Consumer:
        """A member of the coordinators' group."""
        timeout_ms = round(self.settings.session_timeout_s * 1_000)
        made: Consumer = self._make(
            Consumer,
            {
                "client.id": client_id,
                "group.id": self.names.coordinators,
                "session.timeout.ms": timeout_ms,
                "max.poll.interval.ms": timeout_ms,
                "heartbeat.interval.ms": max(min(timeout_ms // 4, _HEARTBEAT_MS), 100),
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": _FETCH_WAIT_MS,
                "fetch.error.backoff.ms": 50,
                "allow.auto.create.topics": False,
            },
        )
        return made

    @property
    def admin(self) -> AdminClient:
        """The one admin client. Wait for the futures that it returns with `wait_for`."""
        if self._admin is None:
            self._admin = self._make(AdminClient, {"client.id": "ccs-admin"})
        return self._admin

    def listening_admin(self, log: logging.Logger) -> AdminClient:
        """Another admin client, which writes to `log` which requests the brokers serve."""
        made: AdminClient = self._make(AdminClient, {"client.id": "ccs-admin"}, debug="feature", log=log)
        return made

    def wait_for(self, doing: str, future: "Future[T]") -> T:
        """Wait for an answer of the admin client. Raises as soon as waiting is in vain, before the time is over.

        If a broker has gone, librdkafka polls for it without a pause, with a whole core, until it learns that another
        broker has taken over. So, while the answer is missing, the client is made to ask for the list of brokers.

        Raises `LogUnavailable`, `NotAuthorised`, `LogMissing`, ...
        """
        now = time.monotonic()
        deadline = (
            now + self.settings.timeout_s + 1.0
        )  # the admin client has a time-out of its own, and its error tells more
        pause = _CHECK_S
        ask_at = now + pause
        while True:
            try:
                answer = future.result(_CHECK_S)
            except KafkaException as error:
                self.admin.poll(0)
                raise translated(error, doing, self.connection) from error
            except TimeoutError:
                self.admin.poll(0)
                self.raise_if_permanent(doing)
                now = time.monotonic()
                if now > deadline:
                    raise LogUnavailable(f"{doing}: no broker answers: check that it runs, and its address") from None
                if now >= ask_at:
                    # Repeated, because a broker that answers may not know yet which one has taken over.
                    with contextlib.suppress(KafkaException):
                        self.admin.list_topics(timeout=_CHECK_S)
                    pause = min(2 * pause, _REFRESH_MAX_S)
                    ask_at = time.monotonic() + pause
            else:
                self.connection.recovered()
                return answer

    def has_topic(self, topic: str, timeout_s: float) -> bool:
        """False if the brokers say that there is no such topic; true if none answers, because then it may exist."""
        doing = f"asking whether there is {topic}"
        try:
            self.wait_for(doing, self.admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic])
        except LogMissing:
            return False
        except LogUnavailable:
            return True
        return True

    def raise_if_permanent(self, doing: str) -> None:
        """Raise why no broker will answer, where that is known."""
        known = self.connection.last_error
        if known is not None and self.connection.is_permanent:
            raise translated(known, doing, self.connection)

    def _make(
        self, kind: Callable[..., Any], own: dict[str, Any], *, debug: str = "", log: logging.Logger = CLIENT_LOG
    ) -> Any:
        self.check_process()
        # A user's choice wins where it is allowed: what is not was refused when the settings were read.
        chosen = self.settings.librdkafka()
        if "client.id" in chosen:
            chosen["client.id"] = f"{own['client.id']}.{chosen['client.id']}"  # dedicated coordinators are known by it
        if "oauth_cb" in chosen:
            chosen["oauth_cb"] = self._token_ahead(chosen["oauth_cb"], chosen.get("sasl.oauthbearer.config", ""))
        settings = {
            "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
            **own,
            **chosen,
            "error_cb": self._on_error,
        }
        if debug:
            settings["debug"] = debug
        if kind is not Consumer:
            del settings["allow.auto.create.topics"]
        try:
            return kind(settings, logger=log)
        except KafkaException as error:
            raise translated(error, f"the settings of {self.settings.display_url}") from None
        except (TypeError, ValueError) as error:
            raise UsageError(f"the settings of {self.settings.display_url}: {error}") from None
        finally:
            # Tools that record the variables of a failed call must find no password here.
            settings.clear()
            chosen.clear()

    def _token_ahead(self, give: Callable[[str], object], config: str) -> Callable[[str], object]:
        """A user's `oauth_cb`, called once ahead: inside librdkafka, a failure would be ten seconds of silence."""
        try:
            first = [give(config)]
        except Exception as error:
            what = f"oauth_cb raised {type(error).__name__}"
            raise NotAuthorised(f"the settings of {self.settings.display_url}: {what}; no token, no way in") from error

        def given(config: str) -> object:
            return first.pop() if first else give(config)

        return given

    def _on_error(self, error: KafkaError) -> None:
        LOG.debug("librdkafka: %s", error)
        self.connection.failed(error)
        theirs = self.settings.client.get("error_cb")
        if theirs is not None:
            theirs(error)
