"""The parts of the demo in separate processes: a race without and with guard, a stopped holder, killed writers.

Guarantees: the processes and signals are real; a child that hangs is ended and reported; no child outlives the demo.
Does not: run on systems without such signals (Windows).
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

from ccs_stream.cli.demo.children import KILLED, RACE, RESERVED
from ccs_stream.cli.demo.evidence import Evidence
from ccs_stream.cli.demo.result import KilledWriters, RaceResult, RebuiltState, StoppedHolder, UnseenOverwrite
from ccs_stream.client.workspace import Workspace
from ccs_stream.log.bodies import fetch_body
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.ids import SequenceNumber

TURNS: Final = 10
"""Entries that each writer of a race adds."""
LIMIT_S: Final = 1.0
"""Time limit of the reservation whose holder is stopped."""
KILLS: Final = 3
CHILD_LIFE_S: Final = 60.0
"""A child that takes longer is taken to hang."""


class ChildFailed(CcsError):
    """A child process of the demo failed."""


class Child:
    """A process that does one job of `children` and talks in JSON lines."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._what = arguments[0]
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, with this package's own module
            # -P: the folder it is called from must not get in the way of the imports.
            [sys.executable, "-P", "-m", "ccs_stream.cli.demo.children", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._limit = threading.Timer(CHILD_LIFE_S, self._process.kill)
        self._limit.daemon = True
        self._limit.start()

    def receive(self) -> dict[str, Any]:
        """The next line of the child. Raises `ChildFailed` if there is none."""
        stream = self._process.stdout
        line = stream.readline() if stream is not None else ""
        if not line.endswith("\n"):
            raise self._failed(self._process.communicate()[1])
        line_data: dict[str, Any] = json.loads(line)
        self.lines.append(line_data)
        return line_data

    def send(self, line: str) -> None:
        """Send the child a line."""
        stream = self._process.stdin
        if stream is not None:
            stream.write(f"{line}\n")
            stream.flush()

    def stop(self) -> None:
        """Send SIGSTOP, and wait until the child has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Send SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL, and read what the child had still written; a line that the kill cut short is dropped."""
        self._process.send_signal(signal.SIGKILL)
        output, _ = self._process.communicate()
        self.lines.extend(json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("}\n"))

    def finish(self) -> None:
        """Read the rest. Raises `ChildFailed` if the child ended with an error."""
        output, errors = self._process.communicate()
        if self._process.returncode:
            raise self._failed(errors)
        self.lines.extend(json.loads(line) for line in output.splitlines())

    def _failed(self, errors: str) -> ChildFailed:
        return ChildFailed(f"the child {self._what!r} ended with {self._process.returncode}: {errors.strip()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limit.cancel()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def race(url: str, workspace: Workspace, *, guarded: bool) -> RaceResult:
    """Two processes add entries to one list."""
    began = time.perf_counter()
    key = "guarded" if guarded else "unguarded"
    names = ("writer-a", "writer-b")
    with Child("append", url, workspace.name, names[0], key, str(TURNS)) as one:
        with Child("append", url, workspace.name, names[1], key, str(TURNS)) as other:
            for child in (one, other):
                child.receive()
            for child in (one, other):
                child.send("go")
            for child in (one, other):
                child.finish()
        lines = [*one.lines, *other.lines]
    acknowledged = [each["wrote"] for each in lines if "wrote" in each]
    reading = workspace.agent("demo").read(key, scope=RACE)
    kept = set(reading.value) if reading is not None else set()
    return RaceResult(
        guarded=guarded,
        acknowledged=len(acknowledged),
        kept=len(kept),
        lost=[each for each in acknowledged if each not in kept],
        refused=sum(each.get("refused", 0) for each in lines),
        overwrites=overwrites(workspace, key),
        seconds=round(time.perf_counter() - began, 3),
    )


def overwrites(workspace: Workspace, key: str) -> list[UnseenOverwrite]:
    """The writes over versions that their author had not read, from the history of the artifact."""
    changes = list(reversed(workspace.agent("demo").history(key, scope=RACE, values=False)))
    found: list[UnseenOverwrite] = []
    for index, change in enumerate(changes):
        unseen = [each for each in changes[:index] if each.version > (change.base_version or 0)]
        if unseen:
            found.append(
                UnseenOverwrite(
                    version=change.version,
                    by=change.agent,
                    had_read=change.base_version,
                    unseen=[f"version {each.version} of {each.agent}" for each in unseen],
                )
            )
    return found


def stopped_holder(url: str, workspace: Workspace) -> StoppedHolder:
    """A process is stopped while it holds a reservation; another takes over; the first writes too late."""
    began = time.perf_counter()
    with Child("hold", url, workspace.name, "holder", "plan", str(LIMIT_S)) as holder:
        fence = holder.receive()["fence"]
        holder.stop()
        stopped_at = time.perf_counter()
        holder.send("write")  # it reads this when it goes on
        with Child("take_over", url, workspace.name, "successor", "plan", str(CHILD_LIFE_S)) as successor:
            after = successor.receive()
            successor.finish()
        stopped_s = time.perf_counter() - stopped_at
        holder.go_on()
        late = holder.receive()
        holder.finish()
    history = workspace.agent("demo").history("plan", scope=RESERVED, values=False)
    return StoppedHolder(
        limit_s=LIMIT_S,
        stopped_s=round(stopped_s, 3),
        waited_s=after["waited_s"],
        fence=fence,
        fence_after=after["fence"],
        late_write=late.get("refused", ""),
        detail=late.get("detail", ""),
        versions=[each.agent for each in reversed(history)],
        seconds=round(time.perf_counter() - began, 3),
    )


def killed_writers(url: str, workspace: Workspace) -> KilledWriters:
    """Writers are killed at random moments; then the log is checked."""
    began = time.perf_counter()
    asked: list[str] = []
    acknowledged: dict[str, int] = {}
    for number in range(KILLS):
        with Child("write", url, workspace.name, f"victim-{number + 1}") as victim:
            for _ in range(8):
                victim.receive()
            time.sleep(random.uniform(0, 0.02))  # noqa: S311  # nothing is secret here
            victim.kill()
        asked += [each["asked"] for each in victim.lines if "asked" in each]
        acknowledged |= {each["acknowledged"]: each["sequence"] for each in victim.lines if "acknowledged" in each}
    places = _marks(url, workspace.name)
    in_flight = [each for each in asked if each not in acknowledged]
    return KilledWriters(
        kills=KILLS,
        in_flight=len(in_flight),
        in_flight_kept=sum(each in places for each in in_flight),
        acknowledged=len(acknowledged),
        missing=sum(places.get(mark) != [sequence, sequence] for mark, sequence in acknowledged.items()),
        halves=sum(len(each) != 2 or each[0] != each[1] for each in places.values()),
        seconds=round(time.perf_counter() - began, 3),
    )


def _marks(url: str, workspace: str) -> dict[str, list[int]]:
    """By mark, the decisions in which it was written: twice the same decision, for the two values of a write."""
    places: dict[str, list[int]] = {}
    evidence = Evidence.read(url, workspace)
    store = open_log(url, create=False, read_only=True)
    try:
        for logged, event in evidence.writes(KILLED):
            sequence = SequenceNumber(logged.sequence)
            body = fetch_body(store, workspace, sequence, event, f"sequence {sequence}")
            places.setdefault(json.loads(body)["mark"], []).append(logged.decision)
    finally:
        store.close()
    return places


def rebuilt_elsewhere(url: str, workspace: Workspace) -> RebuiltState:
    """Another process folds the log from its first record; its state must be the live one."""
    live = workspace.state_hash()
    with Child("rebuild", url, workspace.name) as child:
        found = child.receive()
        child.finish()
    return RebuiltState(
        live_hash=live,
        rebuilt_hash=found["state_hash"],
        sequence=found["sequence"],
        records=found["records"],
        gap_free=found["gap_free"],
        seconds=found["seconds"],
    )
