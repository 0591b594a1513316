"""Interrupts at every point of a call: what they may leave behind, counted.

    python -m tests.coordinator.interrupts --count 10000 [--seed N] [--kafka kafka://HOST:PORT]

A signal handler that raises (Ctrl-C, a time-out) is called wherever the interpreter looks for signals: when a function
begins, and when a call returns. `interrupted` raises at one of these points, found by its number, so that every one of
them can be tried, and a failure can be tried again. After each interrupt the store is used by its own process, by a
second connection, and compared with a fold of the log.
"""

import argparse
import collections
import gc
import logging
import random
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import ccs_stream
from ccs_stream.client.options import parse_options
from ccs_stream.client.workspace import Workspace
from ccs_stream.coordinator.local import LocalCoordinator
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.port import LogStore
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import CcsError, LogBusy
from ccs_stream.protocol.statehash import state_hash

CALLS_A_STORE: Final = 250
"""Interrupts in one store: folding its log anew after each of them stays quick."""
FAULTS: Final = ("unusable", "locked", "state wrong")


class TimedOut(Exception):
    """An exception as the signal handler of a time-out raises it."""


def interrupted(call: Callable[[], object], at: int, error: type[BaseException] = KeyboardInterrupt) -> int | None:
    """Call it, and raise `error` at its point number `at`; how many points it had, or None if it was interrupted.

    An error that the call itself raises counts as its end.
    """
    points = 0

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal points
        del argument
        # In a finalizer (that of a weak set) the interpreter swallows it.
        if event in ("call", "c_return") and not frame.f_code.co_filename.endswith("_weakrefset.py"):
            points += 1
            if points == at:
                sys.setprofile(None)
                raise error

    gc.disable()  # in what a collection calls, too: finalizers, and callbacks of the test runner
    try:
        sys.setprofile(look)
        try:
            call()
        finally:
            sys.setprofile(None)
    except error:
        return None
    except CcsError:
        pass
    finally:
        gc.enable()
    return points


class Tried:
    """One store, its second connection, and the calls that are interrupted."""

    def __init__(self, kind: str, folder: Path, kafka: str = "") -> None:
        self.kind = kind
        self._url = f"sqlite:///{folder}/log.db?synchronous=normal&busy_timeout_s=0.3"
        self._name = "w"
        store: LogStore = MemoryLog()
        if kind == "sqlite":
            store = SqliteLog(folder / "log.db", synchronous="normal", busy_timeout_s=0.3)
        if kind == "kafka":
            self._url, self._name = kafka, uuid.uuid4().hex
            self.workspace = ccs_stream.connect(kafka, workspace=self._name, deliveries=False)
            store = self.workspace.coordinator.store
        else:
            self.workspace = Workspace(store, "w", config=parse_options({"deliveries": False}, of="Workspace"))
        self.log = store
        self.author = self.workspace.agent("author")
        self.other = self.workspace.agent("other")
        self.author.write("plan", 0)
        self.other.read("plan")
        self.count = 0

    def calls(self) -> dict[str, Callable[[], object]]:
        """The calls that are interrupted."""
        self.count += 1
        return {
            "write": lambda: self.author.write("plan", self.count),
            "write anew": lambda: self.author.write(f"new-{self.count}", self.count, ttl_s=3_600),
            "read": lambda: self.other.read("plan"),
            "delete": lambda: self.author.delete("plan"),
            "join": lambda: self.workspace.agent(f"agent-{self.count}").write("of others", 1),
            "acquire": self._acquire,
            "sweep": self.workspace.sweep,
        }

    def _acquire(self) -> None:
        with self.author.acquire("mine", limit_s=60):
            self.author.write("mine", self.count)

    def look(self) -> list[str]:
        """What the interrupt left wrong."""
        faults = []
        try:
            self.other.write("probe", self.count)
            found = self.other.read("probe")
            if found is None or found.value != self.count:
                faults.append("unusable")
        except Exception:  # noqa: BLE001  # whatever it is, it counts
            faults.append("unusable")
        try:
            faults += self._look_from_outside()
        except LogBusy:
            faults.append("locked")
        except Exception:  # noqa: BLE001  # as above
            faults.append("unusable")
        return faults

    def _look_from_outside(self) -> list[str]:
        if self.kind == "memory":
            return [] if self._hash() == state_hash(LocalCoordinator(self.log, "w").state) else ["state wrong"]
        with ccs_stream.connect(self._url, workspace=self._name, deliveries=False) as second:
            second.agent("second").write("second", self.count)
            if self.kind == "kafka":
                for workspace in (self.workspace, second):
                    workspace.agent("second").read("second", freshness="latest")
                    workspace.coordinator.catch_up()
            return [] if self._hash() == second.state_hash() else ["state wrong"]

    def _hash(self) -> str:
        try:
            return self.workspace.state_hash()
        except Exception as error:  # noqa: BLE001  # counted as a wrong state
            return repr(error)

    def close(self) -> None:
        """Close both."""
        self.workspace.close()


def every_point(kind: str, call: str, folder: Path, *, step: int = 1) -> tuple[int, dict[int, list[str]]]:
    """Interrupt one call at each of its points (or each `step`th); how many there were, and the faults by point."""
    tried, at, faults = Tried(kind, folder), random.randrange(step), {}
    while True:
        at += step
        error = random.choice((TimedOut, KeyboardInterrupt))
        ended = interrupted(tried.calls()[call], at, error) is not None
        found = tried.look()
        if found:
            faults[at] = found
        if ended or len(faults) > 5:
            tried.close()
            return at - step, faults


def run(count: int, seed: int, kafka: str = "") -> collections.Counter[str]:
    """Interrupt random calls at random points, `count` times; the faults found. With `kafka`, on that log only."""
    chance, found = random.Random(seed), collections.Counter[str]()
    done = 0
    while done < count:
        with tempfile.TemporaryDirectory() as folder:
            kind = "kafka" if kafka else chance.choice(("memory", "sqlite"))
            tried = Tried(kind, Path(folder), kafka)
            for _ in range(min(CALLS_A_STORE, count - done)):
                name, call = chance.choice(list(tried.calls().items()))
                at = int(chance.triangular(1, 600, 100))
                error = chance.choice((KeyboardInterrupt, TimedOut))
                if interrupted(call, at, error) is None:
                    done += 1
                    found[f"interrupts, {kind}"] += 1
                    for fault in tried.look():
                        found[fault] += 1
                        print(f"{kind}: {name} interrupted at {at}: {fault}", file=sys.stderr)
                        tried.close()
                        tried = Tried(kind, Path(tempfile.mkdtemp(dir=folder)), kafka)
                        break
            tried.close()
    return found


def main() -> int:
    """Print the table; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--kafka", metavar="URL", default="", help="a broker whose topics are made")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    print(f"seed {asked.seed}")
    found = run(asked.count, asked.seed, asked.kafka)
    for name in (*sorted(name for name in found if name not in FAULTS), *FAULTS):
        print(f"{name:<20}{found[name]:>8}")
    return 1 if any(found[name] for name in FAULTS) else 0


if __name__ == "__main__":
    sys.exit(main())
