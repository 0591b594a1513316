"""The nodes of a broker as Java processes of this machine, in KRaft's combined mode.

Guarantees: nodes listen on 127.0.0.1 only; they end, and their data is deleted, when the broker is stopped, when the
process that started it exits, and when that process is killed. A terminal's Ctrl-C does not reach them. Does not: look
for Java or jars (`broker_java` does), or run on Windows.
"""

import atexit
import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.testing import broker_watch
from ccs_stream.testing.broker_base import PLAINTEXT, STARTED, Broker, BrokerFailed, BrokerOptions, telling_lines
from ccs_stream.testing.broker_config import layout, server_settings, write_properties

_START_TIMEOUT_S: Final = 90
"""It takes one to three seconds on an idle machine."""

_END_TIMEOUT_S: Final = 60
"""A node that is told to end tries for a while to hand over what it leads."""

_POLL_S: Final = 0.05

_LOG4J: Final = {
    "rootLogger.level": "INFO",
    "rootLogger.appenderRef.out.ref": "out",
    "appender.out.type": "Console",
    "appender.out.name": "out",
    "appender.out.layout.type": "PatternLayout",
    "appender.out.layout.pattern": "[%d] %p %m (%c)%n",
}


class JavaBroker(Broker):
    """A broker of one or three nodes, each a Java process."""

    def __init__(self, options: BrokerOptions, *, java: Sequence[str], how: str) -> None:
        ports = layout(options)
        names = [PLAINTEXT, *options.listeners]
        super().__init__(how=how, addresses={name: ports.addresses(name) for name in names}, nodes=options.nodes)
        self._owner = os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="ccs-kafka-"))
        self._java = [*java, f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"]
        self._format_arguments = list(options.format_arguments)
        self._running: dict[int, _Process] = {}
        write_properties(self._folder / "log4j2.properties", _LOG4J)
        for node in self.nodes:
            self._home(node).mkdir()
            settings = server_settings(options, ports, node, str(self._home(node) / "data"))
            write_properties(self._home(node) / "server.properties", settings)
        atexit.register(self._stop_at_exit)

    def start(self) -> None:
        """Format the storage and start every node."""
        # An id that began with "-" would be taken for an option.
        cluster = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, *self._format_arguments, "-c"]
        for node in self.nodes:
            self._running[node] = self._run(node, [*tool, self._properties(node)])
        for node in self.nodes:
            if self._running[node].wait(_START_TIMEOUT_S) != 0:
                raise BrokerFailed(f"the storage of node {node} cannot be formatted:\n{self._end_of_log(node)}")
        marks = {node: self._launch(node) for node in self.nodes}
        for node, mark in marks.items():
            self._await_started(node, mark)

    def stop(self) -> None:
        for process in self._running.values():
            process.signal(signal.SIGKILL)
        for process in self._running.values():
            process.wait(_END_TIMEOUT_S)
        self._running.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self._stop_at_exit)

    def kill(self, node: int) -> None:
        self._end(node, signal.SIGKILL)

    def terminate(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)  # one that stands still would not hear it
        self._end(node, signal.SIGTERM)

    def pause(self, node: int) -> None:
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)

    def restart(self, node: int, *, wait: bool = True) -> None:
        if node in self._running and self._running[node].is_running:
            self.terminate(node)
        mark = self._launch(node)
        if wait:
            self._await_started(node, mark)

    def log_of(self, node: int) -> Path:
        return self._home(node) / "broker.log"

    def _home(self, node: int) -> Path:
        if node not in self.nodes:
            raise UsageError(f"there is no node {node}: nodes are numbered from 1 to {len(self.nodes)}")
        return self._folder / f"node-{node}"

    def _properties(self, node: int) -> str:
        return str(self._home(node) / "server.properties")

    def _launch(self, node: int) -> int:
        """Start a node; returns where its log of this run begins."""
        log = self.log_of(node)
        mark = log.stat().st_size if log.exists() else 0
        self._running[node] = self._run(node, ["kafka.Kafka", self._properties(node)])
        return mark

    def _run(self, node: int, arguments: list[str]) -> "_Process":
        return _Process([*self._java, *arguments], log=self.log_of(node), folder=self._folder)

    def _await_started(self, node: int, mark: int) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while STARTED not in self.log_of(node).read_bytes()[mark:]:
            if not self._running[node].is_running or time.monotonic() > deadline:
                raise BrokerFailed(f"node {node} did not start:\n{self._end_of_log(node)}")
            time.sleep(_POLL_S)

    def _end_of_log(self, node: int) -> str:
        return telling_lines(self.log_of(node).read_bytes())

    def _signal(self, node: int, number: signal.Signals) -> None:
        self._home(node)
        process = self._running.get(node)
        if process is None or not process.is_running:
            raise UsageError(f"node {node} is not running: restart it first")
        process.signal(number)

    def _end(self, node: int, number: signal.Signals) -> None:
        self._signal(node, number)
        self._running[node].wait(_END_TIMEOUT_S)

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child's exit is not the broker's end
            self.stop()


class _Process:
    """A Java process beside a watch, which ends it when this process has ended."""

    def __init__(self, command: list[str], *, log: Path, folder: Path) -> None:
        watch = [sys.executable, "-I", "-S", broker_watch.__file__, str(os.getpid()), str(folder)]
        with log.open("ab") as out:
            self._watch = subprocess.Popen(  # noqa: S603  # the command is our own
                [*watch, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )
        assert self._watch.stdout is not None
        with self._watch.stdout as answer:
            line = answer.readline()
        if not line:
            raise BrokerFailed(f"{command[0]} cannot be run; {log} says why")
        self._pid = int(line)

    @property
    def is_running(self) -> bool:
        return self._watch.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Signal the Java process; the watch follows it."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def wait(self, timeout_s: float) -> int:
        return self._watch.wait(timeout_s)
