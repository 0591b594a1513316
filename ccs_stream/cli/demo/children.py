"""The child processes of the demo, which talk in JSON lines: `python -m ccs_stream.cli.demo.children JOB URL ...`.

Guarantees: each line is written whole and at once, so that a killed child has reported everything up to the kill. Does
not: import an agent framework; the children are plain clients of the store.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import ccs_stream
from ccs_stream import Reclaimed, Refused, VersionConflict, Workspace
from ccs_stream.cli.demo.evidence import Evidence

RACE: Final = ("race",)
RESERVED: Final = ("reserved",)
KILLED: Final = ("killed",)
PAUSE_S: Final = 0.004
"""Pause before reading and before writing, where a real agent would ask its model for seconds."""
PAD: Final = "." * 3_000
"""Makes a write of two values large, so that a kill could catch it half-way if that were possible."""


def send_line(**fields: Any) -> None:
    """Send one line to the parent, at once."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def receive_line() -> str:
    """The next line from the parent."""
    return sys.stdin.readline().strip()


def pause() -> None:
    """Wait for a moment, as if working on something else."""
    time.sleep(random.uniform(0, PAUSE_S))  # noqa: S311  # nothing is secret here


def append(workspace: Workspace, name: str, key: str, turns: str) -> None:
    """Add entries to a shared list: read, think, write. `key` says whether the writes are guarded."""
    agent = workspace.agent(name)
    guarded = key == "guarded"
    refused = 0
    for turn in range(int(turns)):
        entry = f"{name} {turn + 1}"
        if turn:
            pause()
        seen = agent.read(key, scope=RACE)
        if turn == 0:
            send_line(has_read=0 if seen is None else seen.version)
            receive_line()  # both have read the same version before either writes
        pause()
        entries, version = (seen.value, int(seen.version)) if seen is not None else ([], None)
        while True:
            try:
                if guarded:
                    written = agent.compare_and_set(key, [*entries, entry], expected=version, scope=RACE)
                else:
                    written = agent.write(key, [*entries, entry], scope=RACE)
                send_line(wrote=entry, version=written.version, overwrote_unseen=written.overwrote_unseen)
                break
            except VersionConflict as conflict:
                refused += 1
                current: Any = conflict.current_value or []
                entries, version = current, conflict.current_version
    send_line(done=True, refused=refused)


def hold(workspace: Workspace, name: str, key: str, limit_s: str) -> None:
    """Take a reservation, wait for a line of the parent, and write; when refused, read again and write once more."""
    agent = workspace.agent(name)
    try:
        with agent.acquire(key, scope=RESERVED, limit_s=float(limit_s)) as reservation:
            send_line(fence=reservation.fence)
            receive_line()
            try:
                late = agent.write(key, {"by": name, "note": "late"}, scope=RESERVED)
                send_line(accepted=late.version)
            except Refused as refusal:
                send_line(refused=refusal.reason, detail=str(refusal))
    except Reclaimed:
        pass  # the write above has said so already
    seen = agent.read(key, scope=RESERVED)
    by = seen.value["by"] if seen is not None else ""
    expected = seen.version if seen is not None else None
    note = f"after reading what {by} wrote"
    written = agent.compare_and_set(key, {"by": name, "note": note}, expected=expected, scope=RESERVED)
    send_line(version=written.version, after=by)


def take_over(workspace: Workspace, name: str, key: str, wait_s: str) -> None:
    """Wait until another's reservation runs out, and write."""
    agent = workspace.agent(name)
    began = time.monotonic()
    with agent.acquire(key, scope=RESERVED, wait_s=float(wait_s)) as reservation:
        waited = time.monotonic() - began
        agent.read(key, scope=RESERVED)
        written = agent.write(key, {"by": name, "note": "in time"}, scope=RESERVED)
        send_line(fence=reservation.fence, waited_s=round(waited, 3), version=written.version)


def write(workspace: Workspace, name: str) -> None:
    """Write two values at once, again and again, until killed; report each attempt and each acknowledgement."""
    agent = workspace.agent(name)
    for key in ("left", "right"):
        agent.read(key, scope=KILLED)
    for number in itertools.count(1):
        mark = f"{name} {number}"
        body = {"mark": mark, "pad": PAD}
        send_line(asked=mark)
        written = workspace.write_all(
            [ccs_stream.Put("left", body, scope=KILLED), ccs_stream.Put("right", body, scope=KILLED)], agent=name
        )
        send_line(acknowledged=mark, sequence=written[0].position.sequence)


def rebuild(url: str, workspace: str) -> None:
    """Fold the log from its first record, and report the result."""
    began = time.perf_counter()
    evidence = Evidence.read(url, workspace)
    send_line(
        state_hash=evidence.state_hash(),
        sequence=len(evidence.events),
        records=evidence.records,
        gap_free=evidence.gap_free,
        seconds=round(time.perf_counter() - began, 3),
    )


JOBS: Final[dict[str, Callable[..., None]]] = {"append": append, "hold": hold, "take_over": take_over, "write": write}


def main(arguments: list[str]) -> None:
    """Do one job."""
    job, url, name, *rest = arguments
    if job == "rebuild":
        rebuild(url, name)
        return
    with ccs_stream.connect(url, workspace=name) as workspace:
        JOBS[job](workspace, *rest)


if __name__ == "__main__":
    main(sys.argv[1:])
