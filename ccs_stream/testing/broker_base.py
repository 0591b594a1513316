"""The interface of every test broker, whatever it runs on, and the errors when there is none.

Guarantees: Java processes, containers and borrowed brokers have one interface; a borrowed broker cannot be stopped or
killed. Does not: start anything; `broker` does.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ccs_stream.protocol.errors import CcsError, UsageError

KAFKA_VERSION: Final = "4.3.1"
"""The version of the jars and of the image that everything is tested against."""

PLAINTEXT: Final = "PLAINTEXT"
"""The listener that every broker has. Its clients need no credentials, and are `User:ANONYMOUS`."""


STARTED: Final = b"Kafka Server started"
"""The line in a node's log that says it serves, at each start."""


_COMPLAINTS: Final = 10


class NoBroker(CcsError):
    """No broker can be started, or not with these options; the message names each source and what it lacks."""


class BrokerFailed(CcsError):
    """A node did not start although everything it needs is there; the message ends with the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """The options of `start_broker`."""

    nodes: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    listeners: Mapping[str, str] = field(default_factory=dict)
    format_arguments: Sequence[str] = ()

    @property
    def is_plain(self) -> bool:
        """True if any broker will do."""
        return self.nodes == 1 and not (self.settings or self.listeners or self.format_arguments)


class Broker(ABC):
    """A running Apache Kafka. As a context manager it ends with the block, and its data with it.

    Nodes are numbered from 1. `kill`, `terminate`, `pause` and `restart` return when it has happened.
    """

    def __init__(self, *, how: str, addresses: Mapping[str, str], nodes: int) -> None:
        self.how = how
        """Where this broker came from, in a few words."""
        self.nodes = tuple(range(1, nodes + 1))
        """The numbers of its nodes; empty for a broker at an address that was given."""
        self._addresses = dict(addresses)

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all nodes, for clients without credentials."""
        return self._addresses[PLAINTEXT]

    @property
    def listeners(self) -> Mapping[str, str]:
        """The addresses by the name of the listener."""
        return dict(self._addresses)

    def listener(self, name: str) -> str:
        """The addresses of all nodes at a listener that `start_broker` was asked to add."""
        try:
            return self._addresses[name]
        except KeyError:
            raise UsageError(f"this broker has no listener {name!r}: it has {', '.join(self._addresses)}") from None

    @abstractmethod
    def stop(self) -> None:
        """End all nodes at once and delete their data. Does nothing the second time."""

    @abstractmethod
    def kill(self, node: int) -> None:
        """Send SIGKILL: the node ends without notice."""

    @abstractmethod
    def terminate(self, node: int) -> None:
        """Send SIGTERM: the node hands over what it leads, and ends."""

    @abstractmethod
    def pause(self, node: int) -> None:
        """Send SIGSTOP: the node stands still; its connections stay open."""

    @abstractmethod
    def resume(self, node: int) -> None:
        """Send SIGCONT: the node continues as if no time had passed."""

    @abstractmethod
    def restart(self, node: int, *, wait: bool = True) -> None:
        """Start the node again, with the same data and ports; a running node is terminated first.

        Without `wait`, return before it serves: needed if several nodes must come back to have a majority.
        """

    @abstractmethod
    def log_of(self, node: int) -> Path:
        """The file with the node's own log; deleted with the data."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class BorrowedBroker(Broker):
    """A broker that was started elsewhere: it can be used, and neither stopped nor killed."""

    def __init__(self, *, how: str, addresses: Mapping[str, str], refusal: CcsError, logs: Sequence[str] = ()) -> None:
        super().__init__(how=how, addresses=addresses, nodes=len(logs))
        self._refusal = refusal
        self._logs = [Path(log) for log in logs]

    def stop(self) -> None:
        """Do nothing: the owner stops it."""

    def kill(self, node: int) -> None:  # noqa: ARG002
        raise self._refusal

    def terminate(self, node: int) -> None:  # noqa: ARG002
        raise self._refusal

    def pause(self, node: int) -> None:  # noqa: ARG002
        raise self._refusal

    def resume(self, node: int) -> None:  # noqa: ARG002
        raise self._refusal

    def restart(self, node: int, *, wait: bool = True) -> None:  # noqa: ARG002
        raise self._refusal

    def log_of(self, node: int) -> Path:
        if node not in self.nodes:
            raise self._refusal
        return self._logs[node - 1]


def telling_lines(log: bytes) -> str:
    """The lines of a log that say why a node did not start: its first errors, and its end."""
    lines = log.decode(errors="replace").splitlines()
    complaints = [line for line in lines if "ERROR" in line or "FATAL" in line or "xception" in line]
    return "\n".join([*complaints[:_COMPLAINTS], "...", *lines[-_COMPLAINTS:]])
