"""Counts how often one `put` on SQLite moves from one file of this package to another.

A move is a call that enters another file than the caller's. Few moves mean that a reader can follow a write without
opening half of the package. Runs as a script, and from the tests.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ccs_stream.adapters.langgraph import CoherentStore
from tests.architecture.tree import ROOT

FOLDERS = tuple(f"{ROOT / name}{os.sep}" for name in ("ccs_stream", "adapters"))


def moves_of_a_put() -> list[tuple[str, str]]:
    """The file and function that each move of a put enters; of a key that was written and read before."""
    calls: list[tuple[str, str, str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        path = os.path.realpath(frame.f_code.co_filename)
        if path.startswith(FOLDERS):
            calls.append((event, path, frame.f_code.co_name))

    with tempfile.TemporaryDirectory() as folder, CoherentStore(f"sqlite:///{folder}/log.db", workspace="w") as store:
        for number in range(5):
            store.put(("a",), "k", {"n": number})
            store.get(("a",), "k")
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            store.put(("a",), "k", {"n": 99})
        finally:
            sys.setprofile(before)
    return list(_moves(calls))


def _moves(calls: list[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    stack: list[str] = []
    for event, path, name in calls:
        if event == "call":
            if not stack or stack[-1] != path:
                yield str(Path(path).relative_to(ROOT)), name
            stack.append(path)
        elif event == "return" and stack:
            stack.pop()


if __name__ == "__main__":
    moves = moves_of_a_put()
    for file, function in moves:
        print(f"{file}: {function}")  # noqa: T201 - a script's result
    print(f"{len(moves)} moves")  # noqa: T201 - likewise
