"""The child process of tests that need several: `python worker.py JOB URL ...`, which prints JSON lines."""

import json
import sys
import uuid
from typing import Any

import ccs_stream
from ccs_stream import VersionConflict


def say(**fields: Any) -> None:
    """One line to the parent, at once."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def count(url: str, name: str, times: str) -> None:
    """Increment a shared counter so many times, guarded; report the refusals."""
    refused = 0
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent(name)
        for _ in range(int(times)):
            while True:
                seen = agent.read("n")
                try:
                    agent.compare_and_set("n", (seen.value if seen else 0) + 1, expected=seen.version if seen else None)
                    break
                except VersionConflict:
                    refused += 1
        say(refused=refused, state_hash=workspace.state_hash())


def write_for_ever(url: str) -> None:
    """Write numbered values until killed, saying each version only when it is acknowledged."""
    with ccs_stream.connect(url, workspace="w") as workspace:
        agent = workspace.agent("writer")
        say(ready=True)
        number = 0
        while True:
            number += 1
            mark = uuid.uuid4().hex
            say(asked=mark)
            if number % 5:
                written = agent.write(f"k{number % 3}", {"mark": mark, "pad": "x" * (number % 7) * 500})
                say(acknowledged=mark, version=written.version, sequence=written.position.sequence)
            else:
                both = workspace.write_all(
                    [ccs_stream.Put("a", {"mark": mark}), ccs_stream.Put("b", {"mark": mark})], agent="writer"
                )
                say(acknowledged=mark, version=both[0].version, sequence=both[0].position.sequence)


if __name__ == "__main__":
    if sys.argv[1] == "count":
        count(*sys.argv[2:])
    else:
        write_for_ever(*sys.argv[2:])
