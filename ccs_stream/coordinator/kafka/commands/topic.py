"""The commands topic, as a process sends commands into it, for the leader to decide.

Guarantees: commands of one process are sent in the order given; a failure is reported by `poll`. Does not: wait, or try
again; `InFlightCommands` sends a command again, under its number.
"""

import collections
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.errors import BrokerRefusal, broker_refusal_of, translated
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.errors import CcsError, Closed

LOG = logging.getLogger(__name__)

_CLIENT_ID: Final = "ccs-commands"
FLUSH_ON_CLOSE_S: Final = 1.0
"""How long closing waits for commands that are on their way."""

OnNotSent = Callable[[Command, BrokerRefusal, CcsError], None]
"""Called with a command that could not be sent, how certain that is, and the error."""


class CommandsTopic:
    """One process's way into the commands topic; usable from every thread."""

    def __init__(self, store: KafkaLog) -> None:
        self._store = store
        # Made at once: a producer takes half a second to be given its id, in which other things are waited for as well.
        self._producer: Producer | None = store.clients.producer(only_errors=True, client_id=_CLIENT_ID)
        self._lock = threading.Lock()
        self._failures: collections.deque[tuple[Command, KafkaError]] = collections.deque()
        self.on_failure: OnNotSent | None = None
        """Called in the thread that polls."""

    def send(self, workspace: str, command: Command) -> None:
        """Send a command of a workspace."""
        value = encode_command(workspace, command)
        partition = self._store.partition(workspace)
        on_delivery = functools.partial(self._delivered, command)
        try:
            with self._lock:
                if self._producer is None:
                    raise Closed(f"{self._store.display_url} was closed: connect again")
                self._producer.produce(self._store.names.commands, value, workspace.encode(), partition, on_delivery)
        except KafkaException as error:
            first: Any = error.args[0]
            self._failures.append((command, first))
        except BufferError:
            self._failures.append((command, KafkaError(KafkaError._QUEUE_FULL)))  # noqa: SLF001  # its only name

    def poll(self) -> None:
        """Report failures to `on_failure`."""
        producer = self._producer
        if producer is not None:
            producer.poll(0)
        while self._failures:
            command, error = self._failures.popleft()
            doing = f"appending to {self._store.names.commands}"
            said = translated(error, doing, self._store.clients.connection)
            LOG.warning("%s", said)
            if self.on_failure is not None:
                self.on_failure(command, broker_refusal_of(error), said)

    def close(self) -> None:
        """Let go of the producer, after a moment for the commands that are on their way."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(FLUSH_ON_CLOSE_S)

    def _delivered(self, command: Command, error: KafkaError | None, message: Message) -> None:
        del message
        if error is not None:
            self._failures.append((command, error))
