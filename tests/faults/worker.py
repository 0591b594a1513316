"""One client process of a run: agents that write, count and read, and write down their results.

    python -m tests.faults.worker '{"url": ..., "history": ..., ...}'

Guarantees: a call is written down before it is made, so that what a killed process asked for is known; an error of any
kind is written down, and the agent goes on. Does not: judge. Takes its orders on stdin, a word a line: `stop` ends the
calls, `report` tells where each workspace stands and the hash of its state, `leads` whether this process leads; the end
of the input ends the process.
"""

import json
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ccs_stream
from ccs_stream import CcsError, OutcomeUnknown, VersionConflict
from ccs_stream.client.agent import Agent
from ccs_stream.client.results import Reading, Written
from ccs_stream.client.workspace import Workspace

FRESHNESS = ("local", "own_writes", "own_writes", "latest", "at_least")
BLIND_KEYS = 4


@dataclass(slots=True, kw_only=True)
class Job:
    """The orders of the process."""

    url: str
    history: str
    name: str
    seed: str
    workspaces: list[str]
    agents: int = 2
    pause_s: float = 0.01
    """Between two calls of an agent."""
    kinds: list[str] = field(default_factory=lambda: ["write", "increment", "read", "look"])


class History:
    """The file, written line by line: what is in it survives a SIGKILL."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def put(self, **fields: Any) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")


class Caller:
    """One agent, in a thread of its own."""

    def __init__(self, job: Job, number: int, workspaces: dict[str, Workspace], history: History) -> None:
        self._job = job
        self._name = f"{job.name}-{number}"
        self._workspaces = workspaces
        self._history = history
        self._choose = random.Random(f"{job.seed}/{self._name}")
        self._count = 0
        self._positions: dict[str, tuple[int, str]] = {}
        """By workspace, a position to ask for."""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            name = self._choose.choice(self._job.workspaces)
            kind = self._choose.choice(self._job.kinds)
            getattr(self, f"_{kind}")(name, self._workspaces[name].agent(self._name))
            stop.wait(self._choose.random() * 2 * self._job.pause_s)

    def _write(self, name: str, agent: Agent) -> None:
        key = f"k{self._choose.randrange(BLIND_KEYS)}"
        self._call("write", name, key, lambda value: agent.write(key, value))

    def _increment(self, name: str, agent: Agent) -> None:
        """Read, and write the next number over what was read; read the log's end again where that failed."""
        key, freshness = "counter", "own_writes"
        for _ in range(3):
            seen = self._call("read", name, key, lambda _, f=freshness: agent.read(key, freshness=f), freshness)
            if isinstance(seen, CcsError):
                return
            number = 1 if seen is None else seen.value["n"] + 1
            expected = None if seen is None else seen.version
            done = self._call(
                "increment",
                name,
                key,
                lambda value, e=expected: agent.compare_and_set(key, value, expected=e),
                n=number,
            )
            if not isinstance(done, VersionConflict):
                return
            freshness = "latest"

    def _read(self, name: str, agent: Agent) -> None:
        key = self._choose.choice([f"k{number}" for number in range(BLIND_KEYS)] + ["counter"])
        freshness = self._choose.choice(FRESHNESS)
        asked = self._positions.get(name)
        if freshness != "at_least":
            self._call("read", name, key, lambda _: agent.read(key, freshness=freshness), freshness)
        elif asked is not None:
            sequence, position = asked
            self._call("read", name, key, lambda _: agent.read(key, at_least=position), freshness, asked=sequence)

    def _look(self, name: str, agent: Agent) -> None:
        """Read without taking a copy: no command is needed for it."""
        key, workspace = f"k{self._choose.randrange(BLIND_KEYS)}", self._workspaces[name]
        self._call("read", name, key, lambda _: workspace.read_all([key], freshness="own_writes")[0], "own_writes")

    def _call(self, kind: str, name: str, key: str, do: Any, freshness: str | None = None, **more: Any) -> Any:
        """Make one call and write it down; its result or its error."""
        self._count += 1
        id_ = f"{self._name}/{self._count}"
        value = None
        if kind != "read":
            value = {"op": id_} | ({"n": more.pop("n")} if "n" in more else {})
        call = {"process": self._job.name, "agent": self._name, "workspace": name, "kind": kind, "key": key}
        self._history.put(id=id_, **call, value=value, freshness=freshness, **more, invoked_at=time.monotonic())
        try:
            result = do(value)
        except OutcomeUnknown as error:
            return self._failed(id_, name, "unknown", error)
        except CcsError as error:
            return self._failed(id_, name, "fail", error)
        except Exception as error:  # noqa: BLE001  # it is written down, and is a violation
            return self._failed(id_, name, "bug", error)
        ended_at = time.monotonic()
        result_fields: dict[str, Any] = {"version": 0}
        if isinstance(result, Reading | Written):
            result_fields = {"version": result.version, "sequence": result.position.sequence}
            self._positions[name] = (result.position.sequence, str(result.position))
        if isinstance(result, Reading):
            result_fields["seen"] = result.value
        stale = self._workspaces[name].coordinator.stale
        self._history.put(id=id_, outcome="ok", ended_at=ended_at, stale=stale, **result_fields)
        return result

    def _failed(self, id_: str, name: str, outcome: str, error: Exception) -> Exception:
        self._history.put(
            id=id_,
            outcome=outcome,
            ended_at=time.monotonic(),
            stale=self._workspaces[name].coordinator.stale,
            error=type(error).__name__,
            said=str(error)[:300],
            retryable=bool(getattr(error, "retryable", False)),
        )
        return error


def connected(url: str, name: str, stop: threading.Event) -> Workspace:
    """The workspace, as soon as it can be had."""
    while True:
        try:
            return ccs_stream.connect(url, workspace=name)
        except CcsError as error:
            if not error.retryable or stop.is_set():
                raise
            say(retry=str(error))


def say(**fields: Any) -> None:
    """Print one line for the process that started this one."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def report(workspaces: dict[str, Workspace]) -> dict[str, Any]:
    """Where each workspace stands here."""
    found: dict[str, Any] = {}
    for name, workspace in workspaces.items():
        hashed = workspace.state_hash()
        found[name] = {"sequence": workspace.position.sequence, "hash": hashed, "stale": workspace.coordinator.stale}
        found[name]["void"] = workspace.coordinator.void_records
    return found


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    stop = threading.Event()
    workspaces = {name: connected(job.url, name, stop) for name in job.workspaces}
    history = History(job.history)
    callers = [Caller(job, number, workspaces, history) for number in range(job.agents)]
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in callers]
    say(ready=True)
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        match line.strip():
            case "stop":
                stop.set()
                for thread in threads:
                    thread.join()
                say(stopped=True)
            case "report":
                try:
                    say(report=report(workspaces))
                except CcsError as error:
                    say(report={}, error=f"{type(error).__name__}: {error}")
            case "leads":
                say(leads=any(getattr(each.coordinator, "leads", False) for each in workspaces.values()))
            case _:
                say(unknown=line)
    stop.set()
    for workspace in workspaces.values():
        workspace.close()


if __name__ == "__main__":
    main()
