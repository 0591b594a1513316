"""Shares one broker between all processes of a test run.

`pytest_plugin` uses it: the main process has a `BrokerHost`, each worker of pytest-xdist a `BrokerGuest`.

Guarantees: the broker is started once, at the first request, and belongs to the process of the `BrokerHost`; it
survives the processes that ask for it. Does not: let them stop or kill it; tests that want to do so start a broker of
their own.

How: a thread of the host answers one request at a time over a local socket, and may block on starting the broker.
"""

import contextlib
import secrets
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from typing import Final, NotRequired, TypedDict

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing.broker import start_broker
from ccs_stream.testing.broker_base import BorrowedBroker, Broker, BrokerFailed, NoBroker

_WAITING: Final = 64
"""Workers that may ask at once; each waits while the broker starts."""

_REFUSAL: Final = UsageError("this broker is shared with other tests: one that hurts its broker starts its own")


class Invitation(TypedDict):
    """The port and key for another process to ask with. The values are plain, so that any channel carries them."""

    port: int
    key: bytes


class _BrokerAnswer(TypedDict):
    how: NotRequired[str]
    addresses: NotRequired[dict[str, str]]
    logs: NotRequired[list[str]]
    missing: NotRequired[str]
    failed: NotRequired[str]


class BrokerHost:
    """Owns the broker of a test run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._answer: _BrokerAnswer | None = None
        self._listener: Listener | None = None
        self._key = secrets.token_bytes(16)
        self._closing = False

    @property
    def how(self) -> str | None:
        """Where the broker came from; None if nobody asked for it or it could not be started."""
        return (self._answer or {}).get("how")

    def get(self) -> Broker:
        """The broker, started at the first call. Raises `NoBroker`, `BrokerFailed`."""
        return _borrowed(self._ask())

    def invite(self) -> Invitation:
        """Let other processes ask for the broker."""
        with self._lock:
            if self._listener is None:
                self._listener = Listener(("127.0.0.1", 0), backlog=_WAITING, authkey=self._key)
                threading.Thread(
                    target=self._serve, args=[self._listener], name="kafka-broker-host", daemon=True
                ).start()
            port: int = self._listener.address[1]
        return Invitation(port=port, key=self._key)

    def stop(self) -> None:
        """End the broker."""
        with self._lock:
            self._closing = True
            broker, self._broker = self._broker, None
            listener, self._listener = self._listener, None
        if broker is not None:
            broker.stop()
        if listener is not None:
            with contextlib.suppress(OSError, EOFError, AuthenticationError):
                Client(listener.address, authkey=self._key).close()  # ends the wait in _serve
            listener.close()

    def _ask(self) -> _BrokerAnswer:
        with self._lock:
            if self._answer is None:
                self._answer = self._start()
            return self._answer

    def _start(self) -> _BrokerAnswer:
        if self._closing:
            return _BrokerAnswer(missing="the run is over")
        try:
            broker = self._broker = start_broker()
        except NoBroker as error:
            return _BrokerAnswer(missing=str(error))
        except Exception as error:  # noqa: BLE001  # raised again in whichever process asked
            return _BrokerAnswer(failed=f"{type(error).__name__}: {error}")
        logs = [str(broker.log_of(node)) for node in broker.nodes]
        return _BrokerAnswer(how=broker.how, addresses=dict(broker.listeners), logs=logs)

    def _serve(self, listener: Listener) -> None:
        while not self._closing:
            # An error of one process, or its death while it waits, must not cost the others their broker.
            with contextlib.suppress(OSError, EOFError, AuthenticationError), listener.accept() as connection:
                connection.send(self._ask())


class BrokerGuest:
    """Asks the host in another process for its broker."""

    def __init__(self, invitation: Invitation) -> None:
        self._invitation = invitation

    def get(self) -> Broker:
        """The broker. Raises `NoBroker`, `BrokerFailed`."""
        address = ("127.0.0.1", self._invitation["port"])
        with Client(address, authkey=self._invitation["key"]) as connection:
            answer: _BrokerAnswer = connection.recv()
        return _borrowed(answer)


def _borrowed(answer: _BrokerAnswer) -> Broker:
    if "missing" in answer:
        raise NoBroker(answer["missing"])
    if "failed" in answer:
        raise BrokerFailed(answer["failed"])
    return BorrowedBroker(how=answer["how"], addresses=answer["addresses"], logs=answer["logs"], refusal=_REFUSAL)
