"""Memory: each figure is that of a process of its own, as the operating system counts it.

Guarantees: the figure is the growth of resident memory from just before to just after, so that interpreters and imports
cancel out. Does not: count what a peer keeps in a database.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.report import Row, at_most, size
from benchmarks.run import Run
from benchmarks.values import value_of

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def rows(run: Run) -> Iterator[Row]:
    """Many artifacts; many participants that hold the same."""
    count = run.count(100_000, 2_000)
    run.now(f"memory of {count:,} artifacts")
    body = len(json.dumps(value_of(1_000), separators=(",", ":")).encode())
    for url in ("memory", "sqlite"):
        grown = _grown(run, "artifacts", url, count)
        what = f"{count:,} artifacts of 1 KB, put and got, {url} log"
        meaning = "x their bytes"
        yield Row(what, size(grown), "their bytes", size(count * body), grown / (count * body), meaning, at_most(3))
    run.now("memory of participants that hold the same")
    # Few and large, so that bodies are what is measured: a grant is a record of its own on the log, which is in memory.
    held = run.count(100, 20)
    one = _grown(run, "holders", "memory", held, 1)
    many = _grown(run, "holders", "memory", held, 100)
    yield Row(
        f"{held} artifacts of 256 KB held by 100 participants",
        size(many),
        "held by one",
        size(one),
        many / one,
        "x the memory",
        at_most(1.5),
    )


def _grown(run: Run, *command: str | int) -> float:
    """Bytes by which a process grew."""
    arguments = [sys.executable, "-m", "benchmarks.children", *map(str, command), str(run.folder)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def resident() -> int:
    """Bytes of this process in memory now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def artifacts(url: str, count: int, folder: str) -> int:
    """Growth with `count` artifacts of 1 KB, each put and got once."""
    namespace = ("team", "shared")

    def fill(store: Any) -> None:
        for number in range(count):
            store.put(namespace, f"finding-{number}", {**value_of(960), "number": number})
            store.get(namespace, f"finding-{number}")

    return _growth(_url(url, folder), fill)


def holders(url: str, count: int, agents: int, folder: str) -> int:
    """Growth with `count` artifacts of 256 KB, read by `agents` agents."""

    def fill(store: Any) -> None:
        value = value_of(256_000)
        for number in range(count):
            store.put(("writer", "shared"), f"file-{number}", {**value, "number": number})
        for agent in range(agents):
            for number in range(count):
                store.get((f"agent-{agent}", "shared"), f"file-{number}")

    return _growth(_url(url, folder), fill)


def _growth(url: str, fill: Callable[[Any], None]) -> int:
    from ccs_stream.adapters.langgraph import CCSStore  # noqa: PLC0415  # only what it keeps shall count

    store = CCSStore(url)
    before = resident()
    fill(store)
    return resident() - before


def _url(url: str, folder: str) -> str:
    return "memory:" if url == "memory" else f"sqlite:///{folder}/memory.db?synchronous=normal"
