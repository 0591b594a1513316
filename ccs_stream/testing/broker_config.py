"""The settings of a broker's nodes: ports and server.properties.

Guarantees: each node fits into 256 MB of heap and forms groups at once; settings of the caller come last and win. Does
not: resemble production in speed or durability.
"""

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing.broker_base import PLAINTEXT, BrokerOptions, NoBroker

CONTROLLER: Final = "CONTROLLER"

_PORTS: Final = range(20_000, 32_000)
"""These lie below the ports that systems give to outgoing connections. Otherwise, while a node is down, a client's
connection could take the node's port, even one to that very port, and the node could not come back.
"""

_ATTEMPTS_PER_PORT: Final = 100

_SMALL: Final = {
    "auto.create.topics.enable": "false",  # a misspelt topic must fail
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # Its default is 128 MB, taken from the heap at once.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

QUICK_FAILOVER: Final[Mapping[str, str]] = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}
"""For tests that kill a node: its partitions move after 3 s. With Kafka's 9 s such a test takes longer; with less than
3 s a busy machine declares nodes dead that only had to wait for a processor.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The port of each listener of each node."""

    ports: Mapping[int, Mapping[str, int]]

    def addresses(self, name: str, node: int | None = None) -> str:
        """The addresses of a listener on one node or on all."""
        chosen = self.ports if node is None else [node]
        return ",".join(f"127.0.0.1:{self.ports[number][name]}" for number in chosen)


def layout(options: BrokerOptions) -> Layout:
    """Choose free ports for every listener of every node."""
    if options.nodes not in (1, 3):
        raise UsageError(f"a test broker has 1 or 3 nodes, not {options.nodes}")
    for name in options.listeners:
        if name in (PLAINTEXT, CONTROLLER) or not name.isalpha() or not name.isupper():
            raise UsageError(f"a listener's name is of capital letters, and not one of the two built in: {name!r}")
    names = [PLAINTEXT, CONTROLLER, *options.listeners]
    ports = _free_ports()
    return Layout(ports={node: {name: next(ports) for name in names} for node in range(1, options.nodes + 1)})


def _free_ports() -> Iterator[int]:
    chooser = random.SystemRandom()  # processes that start together must not look at the same ports
    taken: set[int] = set()
    for _ in range(_ATTEMPTS_PER_PORT * 10):
        port = chooser.choice(_PORTS)
        if port not in taken and _is_free(port):
            taken.add(port)
            yield port
    raise NoBroker(f"no free port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def server_settings(
    options: BrokerOptions, ports: Layout, node: int, data: str, *, bind: str = "127.0.0.1"
) -> dict[str, str]:
    """The settings of one node. It listens at `bind` and advertises 127.0.0.1."""
    own = ports.ports[node]
    protocols = {PLAINTEXT: PLAINTEXT, CONTROLLER: PLAINTEXT, **options.listeners}
    clients = [name for name in own if name != CONTROLLER]
    in_sync = str((options.nodes + 1) // 2)
    replicas = str(options.nodes)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{each}@{ports.addresses(CONTROLLER, each)}" for each in ports.ports),
        "listeners": ",".join(f"{name}://{bind}:{port}" for name, port in own.items()),
        "advertised.listeners": ",".join(f"{name}://{ports.addresses(name, node)}" for name in clients),
        "controller.listener.names": CONTROLLER,
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": PLAINTEXT,
        "log.dirs": data,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        **_SMALL,
        **options.settings,
    }


def write_properties(path: Path, settings: Mapping[str, str]) -> None:
    """Write a Java properties file."""
    lines = (f"{escaped(name)}={escaped(value)}\n" for name, value in settings.items())
    path.write_text("".join(lines), "ascii")


def escaped(text: str) -> str:
    """The text as Java's properties files need it: Latin-1, with backslashes for everything special."""
    special = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    units = "".join(special.get(char, char) for char in text.strip(" "))
    return "".join(char if char.isascii() else _utf16(char) for char in units)


def _utf16(char: str) -> str:
    raw = char.encode("utf-16-be")
    return "".join(f"\\u{raw[at : at + 2].hex()}" for at in range(0, len(raw), 2))
