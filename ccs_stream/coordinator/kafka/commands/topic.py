"""Putting commands into the commands topic, for whoever leads.

Guarantees: commands of one process are sent in the order given; a failure is told by `poll`. Does not: wait, or try
again; whoever waits for the command's decision sends it again under its number.
"""

import collections
import functools
import logging
import threading
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ccs_stream.coordinator.kafka.shard.leader_log import Failed
from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.errors import refusal_of, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.errors import Closed

_CLIENT_ID: Final = "ccs-commands"
LOG = logging.getLogger(__name__)


class CommandsTopic:
    """One process's way into the commands topic; usable from every thread."""

    def __init__(self, store: KafkaLog) -> None:
        self._store = store
        # Made at once: it takes half a second to be given its id, in which others things are still waited for.
        self._producer: Producer | None = store.clients.producer(only_errors=True, client_id=_CLIENT_ID)
        self._lock = threading.Lock()
        self._failures: collections.deque[tuple[object, KafkaError]] = collections.deque()
        self.failed: Failed | None = None
        """Told, in the thread that polls, what could not be sent."""

    def send(self, workspace: str, command: Command) -> None:
        """Send a command of a workspace."""
        value = encode_command(workspace, command)
        partition = self._store.partition(workspace)
        told = functools.partial(self._told, command)
        try:
            with self._lock:
                if self._producer is None:
                    raise Closed(f"{self._store.display_url} was closed: connect again")
                self._producer.produce(self._store.names.commands, value, workspace.encode(), partition, told)
        except KafkaException as error:
            first: Any = error.args[0]
            self._failures.append((command, first))
        except BufferError:
            self._failures.append((command, KafkaError(KafkaError._QUEUE_FULL)))  # noqa: SLF001  # its only name

    def poll(self) -> None:
        """Tell of failures."""
        producer = self._producer
        if producer is not None:
            producer.poll(0)
        while self._failures:
            command, error = self._failures.popleft()
            doing = f"appending to {self._store.names.commands}"
            said = translated(error, doing, self._store.clients.trouble)
            LOG.warning("%s", said)
            if self.failed is not None:
                self.failed(command, refusal_of(error), said)

    def close(self) -> None:
        """Let go of the producer, after a moment for what is on its way."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(1.0)

    def _told(self, command: Command, error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            self._failures.append((command, error))
