"""A log on Kafka for tests: topics of its own, and a coordinator in a process of its own.

Guarantees: one log a test run and worker, made when first needed; tests keep apart by workspace. Does not: stand in for
anything; broker, topics and coordinator are real.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

from ccs_stream import Workspace
from ccs_stream.coordinator.kafka.remote import RemoteCoordinator
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings

READY_S = 30.0


def make_topics(url: str, partitions: int = 3) -> None:
    """The topics of a log."""
    topics.create(Clients(KafkaSettings.parse(url)), partitions=partitions)


def as_another_host(url: str) -> str:
    """A URL whose connections share nothing with those of `url` in this process, as if they were on another host."""
    return f"{url}&timeout_s=29"


def coordinator_of(workspace: Workspace) -> RemoteCoordinator:
    """The coordinator of a workspace on Kafka."""
    found = workspace.coordinator
    assert isinstance(found, RemoteCoordinator)
    return found


class CoordinatorProcess:
    """`ccs-stream coordinator` as its operators run it."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "ccs_stream.cli", "coordinator", url]
        handle, name = tempfile.mkstemp(prefix="ccs-coordinator-", suffix=".log")
        self._output = Path(name)
        with os.fdopen(handle, "w") as output:
            self.process = subprocess.Popen(command, stderr=output)
        deadline = monotonic() + READY_S
        while "/readyz" not in self.said:
            assert self.process.poll() is None, self.said
            assert monotonic() < deadline, self.said
            sleep(0.02)
        self.health = self.said.partition("health at ")[2].partition("/readyz")[0]

    @property
    def said(self) -> str:
        """Its output on stderr so far."""
        return self._output.read_text()

    def ready(self) -> bool:
        """True if it says so."""
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{self.health}/readyz") as answer,
        ):
            return bool(answer.status == 200)
        return False

    def wait_ready(self) -> "CoordinatorProcess":
        """Wait until it says that it is ready."""
        return self._wait(self.ready, "become ready")

    def wait_leading(self) -> "CoordinatorProcess":
        """Wait until it leads a partition; that it is ready says only that it follows all of them."""
        return self._wait(self.leads, "come to lead")

    def leads(self) -> bool:
        """True if it says that it leads a partition."""
        return '"role": "leading"' in self.get("/status")

    def _wait(self, holds: Callable[[], bool], what: str) -> "CoordinatorProcess":
        deadline = monotonic() + READY_S
        while not holds():
            assert self.process.poll() is None, "the coordinator ended"
            assert monotonic() < deadline, f"the coordinator does not {what}"
            sleep(0.05)
        return self

    def get(self, path: str) -> str:
        """Its answer under a path."""
        with urllib.request.urlopen(f"{self.health}{path}") as answer:
            return str(answer.read().decode())

    def stop(self) -> int:
        """Stop it gracefully; its exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._output.unlink(missing_ok=True)
        return code


@contextlib.contextmanager
def coordinated_log(bootstrap_servers: str, prefix: str, *, partitions: int = 3) -> Iterator[str]:
    """The URL of a log that a dedicated coordinator serves."""
    url = f"kafka://{bootstrap_servers}?prefix={prefix}"
    make_topics(url, partitions)
    coordinator = CoordinatorProcess(url).wait_ready()
    try:
        yield url
    finally:
        coordinator.stop()
