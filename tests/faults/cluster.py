"""A log on a real broker with coordinators and clients in processes of their own, to be hurt and then judged.

Guarantees: every process ends with the `Cluster`; a run is judged by the independent checker, and every process's
state by a fold of the log from offset zero. Does not: own the broker.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it is public

from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.log.fold import fold_log
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.testing.broker import Broker
from tests.faults.checker import Facts, Raw, Report, check, facts_of, longest_gap_s, read_topic
from tests.faults.history import Operation, load
from tests.kafka import make_topics
from tests.waiting import until

READY_S: Final = 60.0
_SETTLED_S: Final = 0.6
"""A log that has not grown for so long, without any command, is at rest."""


class _Process:
    """A process, what it says on stderr, and signals."""

    def __init__(self, command: list[str], said: Path, **pipes: Any) -> None:
        self._said = said
        self.told_to_end = False
        with said.open("w") as output:
            self.process = subprocess.Popen([sys.executable, *command], stderr=output, text=True, **pipes)

    @property
    def said(self) -> str:
        """Its output on stderr so far."""
        return self._said.read_text()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def fell(self) -> bool:
        """True if it ended without having been asked to."""
        return not self.runs and not self.told_to_end

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGKILL, ..."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.told_to_end = True
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let go of its pipes."""
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Coordinator(_Process):
    """A dedicated coordinator."""

    def __init__(self, url: str, folder: Path) -> None:
        said = folder / f"coordinator-{uuid.uuid4().hex[:6]}.log"
        super().__init__(["-m", "tests.faults.coordinator", url], said)
        self._health = ""

    def wait_ready(self) -> Self:
        """Wait until it is ready."""
        until("a ready coordinator", lambda: self.status().get("ready") or self._fail_if_ended(), READY_S)
        return self

    def status(self) -> dict[str, Any]:
        """Its status; empty where it does not answer within a second."""
        if not self._health:
            self._health = self.said.partition("health at ")[2].partition("/readyz")[0]
        if not self._health or not self.runs:
            return {}
        with (
            contextlib.suppress(urllib.error.URLError, OSError, ValueError),
            urllib.request.urlopen(f"{self._health}/status", timeout=1) as answer,
        ):
            found: dict[str, Any] = json.loads(answer.read())
            return found
        return {}

    def leads(self, partition: int = 0) -> bool:
        """True if it says it leads a partition."""
        return any(
            each["partition"] == partition and each["role"] == "leading" for each in self.status().get("partitions", ())
        )

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; its exit code."""
        self.told_to_end = True
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def _fail_if_ended(self) -> None:
        assert self.runs, self.said


class Worker(_Process):
    """A client process."""

    def __init__(self, folder: Path, **job: Any) -> None:
        name = job["name"]
        self.name: str = name
        self.history = folder / f"history-{name}.jsonl"
        self.history.touch()
        command = ["-m", "tests.faults.worker", json.dumps({"history": str(self.history), **job})]
        super().__init__(command, folder / f"{name}.log", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._read = 0
        self._counts: Counter[str] = Counter()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def expect(self, what: str, timeout_s: float = READY_S) -> dict[str, Any]:
        """The figure of a name in its status."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.2)
                if what in line:
                    return line
            assert self.runs or not self._lines.empty(), f"{self.name} ended: {self.said}"
        raise AssertionError(f"{self.name} did not say {what!r} within {timeout_s:g} s: {self.said}")

    def close(self) -> None:
        self._listener.join(5)
        super().close()

    def order(self, word: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def counts(self) -> Counter[str]:
        """How many calls had which outcome so far: `write ok`, ..."""
        with self.history.open() as file:
            file.seek(self._read)
            new = file.read()
        whole = new.rpartition("\n")[0]
        self._read += len(whole.encode())
        for outcome in ("ok", "unknown", "fail", "bug"):
            self._counts[outcome] += whole.count(f'"outcome": "{outcome}"')
        return self._counts


@dataclass(slots=True)
class Outcome:
    """A run, judged."""

    report: Report
    facts: Facts
    operations: list[Operation]
    log: list[list[Raw]]
    findings: list[str] = field(default_factory=list)

    @property
    def longest_gap_s(self) -> float:
        return longest_gap_s(self.operations)

    def errors(self) -> Counter[str]:
        """Kinds of errors that clients got, but for refused guarded writes."""
        return Counter(each.error for each in self.operations if each.error not in (None, "VersionConflict"))


class Cluster:
    """See the module's docstring."""

    def __init__(self, broker: Broker, folder: Path, *, seed: str, partitions: int = 1, **options: float) -> None:
        self.broker = broker
        self.folder = folder
        self.seed = seed
        self.prefix = f"fault-{uuid.uuid4().hex[:12]}"
        more = "".join(f"&{name}={value}" for name, value in options.items())
        plain = f"kafka://{broker.bootstrap_servers}?prefix={self.prefix}"
        self.url = plain + more
        self.client_url = f"{self.url}&coordinator=remote"
        self.settings = KafkaSettings.parse(self.url)
        self.coordinators: list[Coordinator] = []
        self.workers: list[Worker] = []
        self.histories: list[Path] = []
        self.services: list[CoordinatorService] = []
        """Coordinators in this very process, for faults that need a hand inside."""
        make_topics(plain, partitions)  # whose time-outs are none of the fault's

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self.services:
            service.close()
        for each in (*self.workers, *self.coordinators):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.process.pid, signal.SIGCONT)
            each.kill()
            each.close()

    # Processes.

    def start_coordinators(self, count: int = 2, *, ready: bool = True) -> list[Coordinator]:
        """Start so many at once."""
        started = [Coordinator(self.url, self.folder) for _ in range(count)]
        self.coordinators += started
        if ready:
            for each in started:
                each.wait_ready()
        return started

    def start_workers(self, count: int, workspaces: Sequence[str], *, url: str | None = None, **job: Any) -> None:
        """Start so many client processes, and wait until they call."""
        started = [
            Worker(
                self.folder,
                url=url or self.client_url,
                name=f"p{len(self.workers) + number}",
                seed=self.seed,
                workspaces=list(workspaces),
                **job,
            )
            for number in range(count)
        ]
        self.workers += started
        self.histories += [each.history for each in started]
        for each in started:
            each.expect("ready")

    def start_service(self, url: str | None = None) -> CoordinatorService:
        """Start a coordinator in this process."""
        service = CoordinatorService(KafkaLog(KafkaSettings.parse(url or self.url)))
        self.services.append(service)
        service.start()
        return service

    def leader(self, partition: int = 0) -> Coordinator:
        """The coordinator that leads a partition, as soon as there is one."""
        found: list[Coordinator] = []

        def look() -> bool:
            found[:] = [each for each in self.coordinators if each.runs and each.leads(partition)]
            return bool(found)

        until(f"a leader of partition {partition}", look)
        return found[-1]

    def acknowledged(self) -> int:
        """Calls answered so far."""
        return sum(each.counts()["ok"] for each in self.workers)

    def progress(self, calls: int = 30, timeout_s: float = 60.0) -> None:
        """Wait until every living worker has had so many more calls answered."""
        before = {each: each.counts()["ok"] for each in self.workers if each.runs}

        def made() -> bool:
            return all(each.counts()["ok"] >= count + calls for each, count in before.items())

        until(f"{calls} calls answered to each client", made, timeout_s)

    def operations(self) -> list[Operation]:
        """The history that all clients have written down so far."""
        return load(self.histories)

    # The topics.

    @property
    def log_topic(self) -> str:
        return f"{self.prefix}.log.v1"

    @property
    def commands_topic(self) -> str:
        return f"{self.prefix}.commands.v1"

    def read(self, topic: str | None = None) -> list[list[Raw]]:
        """Every message of a topic, the log's unless another is named."""
        return read_topic(self.broker.bootstrap_servers, topic or self.log_topic)

    def make_anew(self, topic: str, partitions: int = 1) -> None:
        """Delete a topic and make it anew, empty, by hand."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})
        admin.delete_topics([topic])[topic].result()
        until("the topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)

        def made() -> bool:
            with contextlib.suppress(KafkaException):
                admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
                return True
            return False

        until("the topic is made anew", made)
        until("the topic is known", lambda: topic in admin.list_topics(timeout=10).topics)

    def produce(self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]], partition: int = 0) -> None:
        """Put (key, value) pairs into a topic, past all of our code."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 3})
        for key, value in messages:
            producer.produce(topic, value, key, partition)
        assert producer.flush(30) == 0

    # The verdict.

    def finish(self, extra: Iterable[Operation] = ()) -> Outcome:
        """End the calls, let the log come to rest, and judge."""
        self.stop_workers()
        log = self.settled()
        states = self._states()
        operations = sorted([*self.operations(), *extra], key=lambda each: each.invoked_at)
        facts = facts_of(log)
        report = check(facts, operations)
        fell = [
            f"a process ended by itself, with {each.process.returncode}: {each.said[-500:]}"
            for each in (*self.coordinators, *self.workers)
            if each.fell
        ]
        return Outcome(report, facts, operations, log, [*report.violations, *self._compare(states), *fell])

    def stop_workers(self) -> None:
        """End the calls."""
        living = [each for each in self.workers if each.runs]
        for each in living:
            each.order("stop")
        for each in living:
            each.expect("stopped", self.settings.timeout_s * 3 + 30)

    def settled(self) -> list[list[Raw]]:
        """The log, once it has come to rest."""
        log = self.read()
        while True:
            time.sleep(_SETTLED_S)
            again = self.read()
            if [len(each) for each in again] == [len(each) for each in log]:
                return again
            log = again

    def _states(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Who, workspace, where it stands there."""
        found: list[tuple[str, str, dict[str, Any]]] = []
        for each in self.workers:
            if each.runs:
                each.order("report")
                said = each.expect("report")
                assert "error" not in said, said
                found += [(each.name, name, state) for name, state in said["report"].items()]
        for number, coordinator in enumerate(self.coordinators):
            if coordinator.runs:
                states = coordinator.status().get("states")
                assert states is not None, f"coordinator {number} does not answer: {coordinator.said}"
                found += [(f"coordinator {number}", name, state) for name, state in states.items()]
        for number, service in enumerate(self.services):
            for shard in service.follower.shards.values():
                with shard.lock:
                    found += [
                        (f"service {number}", name, {"sequence": state.sequence, "hash": state_hash(state)})
                        for name, state in shard.states.items()
                    ]
        return found

    def _compare(self, states: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
        """Every process's state against a fold of the log from offset zero."""
        findings: list[str] = []
        for workspace in {name for _, name, _ in states}:
            theirs = [(who, state) for who, name, state in states if name == workspace]
            hashes = fold_from_zero(self.url, workspace, {state["sequence"] for _, state in theirs})
            for who, state in theirs:
                if hashes.get(state["sequence"]) != state["hash"]:
                    findings.append(f"{who} has another state of {workspace} at sequence {state['sequence']}")
            if len({state["sequence"] for _, state in theirs}) > 1:
                places = ", ".join(f"{who} at {state['sequence']}" for who, state in theirs)
                findings.append(f"not everybody is at the end of {workspace}: {places}")
        return findings


def fold_from_zero(url: str, workspace: str, sequences: set[int]) -> dict[int, str]:
    """Hashes of a workspace's state at some sequences."""
    store = KafkaLog(KafkaSettings.parse(url), read_only=True)
    try:
        state, hashes = Directory(), {0: state_hash(Directory())}
        for _ in fold_log(ShardReader(store, workspace), state):
            if state.sequence in sequences:
                hashes[state.sequence] = state_hash(state)
        return hashes
    finally:
        store.close()
