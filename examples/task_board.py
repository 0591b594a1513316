"""Several worker processes share one task board, and no task is done twice: `python -m examples.task_board [URL]`.

The board is one item of a LangGraph store. Workers take tasks by a guarded put: a worker that has read the current
board gets the task; one that has read an older board is refused, reads again, and takes another task. The same program
runs on one laptop (`sqlite:///board.db`, the default) and across hosts (`kafka://HOST:9092`); nothing in it changes.
"""

import argparse
import collections
import random
import subprocess
import sys
import time
import uuid

from ccs_stream import VersionConflict
from ccs_stream.adapters.langgraph import CoherentStore

BOARD = ("team", "board")
OPEN, DONE = "open", "done by "


def work(url: str, workspace: str, name: str) -> int:
    """Take tasks until none is left; returns how often another worker was faster."""
    refused = 0
    with CoherentStore(
        url, workspace=workspace, writes="guarded", identity=lambda namespace: (name, namespace)
    ) as store:
        while True:
            # The newest board: what this process has read last may be older than what others have written.
            seen = store.get_all([(BOARD, "tasks")])[0]
            if seen is None:
                raise SystemExit("there is no board")
            left = [task for task, state in seen.value.items() if state == OPEN]
            if not left:
                return refused
            task = random.choice(left)
            try:
                store.put(BOARD, "tasks", {**seen.value, task: DONE + name})
            except VersionConflict:
                refused += 1
                continue
            time.sleep(random.uniform(0, 0.005))  # the work itself


def run(url: str, workers: int, tasks: int) -> bool:
    """Fill a board, let the workers empty it, and print who did what. Returns whether each task was done once."""
    workspace = f"board-{uuid.uuid4().hex[:8]}"
    with CoherentStore(url, workspace=workspace) as store:
        store.put(BOARD, "tasks", {f"task-{number}": OPEN for number in range(tasks)})
        command = [sys.executable, "-m", "examples.task_board", url, "--workspace", workspace, "--as"]
        started = time.monotonic()
        running = [
            subprocess.Popen([*command, f"worker-{number}"], stdout=subprocess.PIPE, text=True)
            for number in range(1, workers + 1)
        ]
        refused = sum(int(each.communicate()[0] or 0) for each in running)
        seconds = time.monotonic() - started
        if any(each.returncode for each in running):
            return False
        history = store.history(BOARD, "tasks", values=False)
        final = store.get_all([(BOARD, "tasks")])[0]
        done = collections.Counter(final.value.values()) if final is not None else collections.Counter()
    print(f"{tasks} tasks, {workers} worker processes, {seconds:.1f} s, on {url}")
    for name, count in sorted(done.items()):
        print(f"  {count:>4}  {name}")
    print(f"{refused} times a worker was refused because another was faster; it read again and took another task")
    exactly_once = len(history) == tasks + 1 and OPEN not in done
    print("every task was done exactly once" if exactly_once else "SOMETHING IS WRONG: a task was lost or done twice")
    return exactly_once


def main() -> int:
    """The command line: 0 when every task was done exactly once."""
    parser = argparse.ArgumentParser(prog="python -m examples.task_board", description=__doc__)
    parser.add_argument("url", nargs="?", default="sqlite:///board.db", help="the log (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--workspace", help=argparse.SUPPRESS)
    parser.add_argument("--as", dest="name", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.name is not None:
        print(work(chosen.url, chosen.workspace, chosen.name))
        return 0
    return 0 if run(chosen.url, chosen.workers, chosen.tasks) else 1


if __name__ == "__main__":
    sys.exit(main())
