"""Starts a broker in a container, by testcontainers.

Guarantees: the container's ports are open on 127.0.0.1 only; the container is removed when the broker is stopped, when
the process that started it exits, and when that process is killed. Does not: run several nodes, add listeners, or
format the storage otherwise than the image does; `broker_java` can do all of that.
"""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing import broker_container_watch
from ccs_stream.testing.broker_base import (
    KAFKA_VERSION,
    PLAINTEXT,
    STARTED,
    Broker,
    BrokerFailed,
    BrokerOptions,
    NoBroker,
    telling_lines,
)
from ccs_stream.testing.broker_config import Layout, escaped, layout, server_settings

IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"

_DATA: Final = "/tmp/kraft-combined-logs"  # noqa: S108  # in the container, where the image's user may write

_DEFAULT_ENGINE: Final = "unix:///var/run/docker.sock"

_KNOCK_TIMEOUT_S: Final = 3

_COMMAND: Final = (
    "if [ -e /tmp/was-started ]; "
    "then exec /opt/kafka/bin/kafka-server-start.sh /opt/kafka/config/server.properties; "
    "else touch /tmp/was-started; exec /etc/kafka/docker/run; fi"
)
"""The image's own command, which makes settings from the environment and formats the storage, only the first time."""

_JVM: Final = {
    "KAFKA_HEAP_OPTS": "-Xmx256m",
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC",  # instead of another collector, which the image would name here
    "KAFKA_OPTS": "-XX:TieredStopAtLevel=1",
}

_ENGINE_TIMEOUT_S: Final = 120
"""For one answer of the engine; while it pulls an image it answers more often than that."""

_START_TIMEOUT_S: Final = 90
"""It takes some six seconds on an idle machine."""

_END_TIMEOUT_S: Final = 60

_POLL_S: Final = 0.2


def prepare() -> None:
    """Pull the images that the first start would pull. Raises `NoBroker`."""
    with contextlib.closing(_container().get_docker_client().client):
        pass


def start(options: BrokerOptions) -> Broker:
    """Start a broker. Raises `NoBroker` if that is not possible here, `BrokerFailed` if it should have worked."""
    if options.nodes > 1 or options.listeners or options.format_arguments:
        raise NoBroker("it would have one node, no further listeners and no arguments for its storage")
    broker = ContainerBroker(_container(), options, layout(options))
    try:
        broker.start()
    except BaseException:
        broker.stop()
        raise
    return broker


def _container() -> Any:
    """A container that can be started: an engine answers, and the image is there."""
    _knock(os.environ.get("DOCKER_HOST") or _DEFAULT_ENGINE)
    try:
        from docker.errors import DockerException  # noqa: PLC0415  # an extra
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    except ImportError as error:
        raise NoBroker(f"testcontainers is not installed ({error})") from error
    try:
        container = DockerContainer(IMAGE, docker_client_kw={"timeout": _ENGINE_TIMEOUT_S})
    except (DockerException, OSError) as error:
        raise NoBroker(f"no Docker engine answers ({error})") from error
    client = container.get_docker_client().client
    try:
        _pull(client, container.image)
        if not testcontainers_config.ryuk_disabled:
            _pull(client, testcontainers_config.ryuk_image)
    except NoBroker as error:
        if container.image in str(error):
            client.close()
            raise
        # The image that removes containers of dead processes cannot be pulled; our own watch removes this one.
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        testcontainers_config.ryuk_disabled = True
    return container


def _knock(engine: str) -> None:
    """Raise `NoBroker` if nothing listens at the engine's address. Docker's own client would leave a socket open."""
    address = urllib.parse.urlsplit(engine)
    try:
        if address.scheme == "unix":
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
                probe.settimeout(_KNOCK_TIMEOUT_S)
                probe.connect(address.path)
        elif address.scheme in ("tcp", "http", "https") and address.hostname:
            socket.create_connection((address.hostname, address.port or 2375), _KNOCK_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise NoBroker(f"no Docker engine answers at {engine} ({error})") from error


def _pull(client: Any, image: str) -> None:
    from docker.errors import DockerException, ImageNotFound  # noqa: PLC0415  # an extra

    try:
        try:
            client.images.get(image)
        except ImageNotFound:
            client.images.pull(image)
    except (DockerException, OSError) as error:
        raise NoBroker(f"the image {image} cannot be had ({error})") from error


class ContainerBroker(Broker):
    """A broker of one node in a container."""

    def __init__(self, container: Any, options: BrokerOptions, ports: Layout) -> None:
        how = f"Apache Kafka {KAFKA_VERSION}, in a container of {IMAGE}"
        super().__init__(how=how, addresses={PLAINTEXT: ports.addresses(PLAINTEXT)}, nodes=1)
        self._owner = os.getpid()
        self._port = ports.ports[1][PLAINTEXT]
        self._log = Path(tempfile.mkdtemp(prefix="ccs-kafka-")) / "broker.log"
        self._watch: subprocess.Popen[bytes] | None = None
        self._container = container.with_command(["bash", "-c", _COMMAND]).with_envs(**_JVM)
        for name, value in server_settings(options, ports, 1, _DATA, bind="0.0.0.0").items():  # noqa: S104  # in there
            self._container.with_env(_variable(name), escaped(value))
        self._container.ports[str(self._port)] = ("127.0.0.1", self._port)
        self._stopped = False
        atexit.register(self._stop_at_exit)

    def start(self) -> None:
        """Start the container, and wait until its broker serves."""
        from docker.errors import DockerException  # noqa: PLC0415  # an extra

        try:
            self._container.start()
        except (DockerException, OSError) as error:
            raise NoBroker(f"the container cannot be started ({error})") from error
        watch = [sys.executable, broker_container_watch.__file__, str(os.getpid()), str(self._log.parent)]
        watch.append(self._container.get_container_id())
        self._watch = subprocess.Popen(watch, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603  # our own
        self._await_started(1)
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        except OSError as error:
            raise NoBroker(f"the engine does not open ports on this machine's 127.0.0.1 ({error})") from error

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._container.stop()
        if self._watch is not None:
            self._watch.kill()
            self._watch.wait()
        shutil.rmtree(self._log.parent, ignore_errors=True)
        atexit.unregister(self._stop_at_exit)

    def kill(self, node: int) -> None:
        with self._running(node) as container:
            container.kill("SIGKILL")
            container.wait(timeout=_END_TIMEOUT_S)

    def terminate(self, node: int) -> None:
        with self._running(node) as container:
            if container.status == "paused":
                container.unpause()
            container.stop(timeout=_END_TIMEOUT_S)

    def pause(self, node: int) -> None:
        with self._running(node) as container:
            container.pause()

    def resume(self, node: int) -> None:
        with self._running(node) as container:
            container.unpause()

    def restart(self, node: int, *, wait: bool = True) -> None:
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status in ("running", "paused"):
            self.terminate(node)
        before = self._logged().count(STARTED)
        container.start()
        if wait:
            self._await_started(before + 1)

    def log_of(self, node: int) -> Path:
        _check(node)
        self._log.write_bytes(self._logged())
        return self._log

    @contextlib.contextmanager
    def _running(self, node: int) -> Iterator[Any]:
        _check(node)
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status not in ("running", "paused"):
            raise UsageError(f"node {node} is not running: restart it first")
        yield container

    def _logged(self) -> bytes:
        logged: bytes = self._container.get_wrapped_container().logs()
        return logged

    def _await_started(self, times: int) -> None:
        container = self._container.get_wrapped_container()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._logged().count(STARTED) < times:
            container.reload()
            if container.status != "running" or time.monotonic() > deadline:
                raise BrokerFailed(f"the container did not start:\n{telling_lines(self._logged())}")
            time.sleep(_POLL_S)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child's exit is not the broker's end
            self.stop()


def _variable(setting: str) -> str:
    """The environment variable from which the image makes this setting."""
    return "KAFKA_" + setting.replace("_", "__").replace("-", "___").replace(".", "_").upper()


def _check(node: int) -> None:
    if node != 1:
        raise UsageError(f"there is no node {node}: this broker has one, node 1")
