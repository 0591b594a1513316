"""A process that queues changes and replays them until it is killed: `python queueing.py URL OUTBOX FIRST PLANTED`.

It says each number when it is kept. With FIRST `drain` it only replays, and ends. With PLANTED a number it is killed
when it marks so many changes, after the log has them.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from ccs_stream import Workspace
from ccs_stream.client.degraded.outbox import Outbox, OutboxChange
from ccs_stream.client.degraded.outbox_drainer import OutboxDrainer
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.ids import Version, artifact_id

SCOPE = ("s",)


class PlantedOutbox(Outbox):
    """Kills its process."""

    marks_left = -1

    def mark_done(self, number: int, version: Version | None) -> None:
        self.marks_left -= 1
        if self.marks_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().mark_done(number, version)


def queue_for_ever(workspace: Workspace, outbox: Outbox, first: int) -> None:
    """Queue numbers, each over what is known here."""
    number = first
    while True:
        number += 1
        key = f"k{number % 3}"
        known = workspace.coordinator.state.artifacts.get(artifact_id("w", SCOPE, key))
        base = Version(0) if known is None else known.version
        body = str(number).encode()
        outbox.put(
            "ann", OutboxChange(scope=SCOPE, key=key, content_type="application/json", body=body, base_version=base)
        )
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def main(url: str, path: str, first: str, planted: str) -> None:
    """See the module's docstring."""
    workspace = Workspace(open_log(url), "w")
    outbox = PlantedOutbox(Path(path), log_id=workspace.coordinator.store.log_id, workspace="w")
    drainer = OutboxDrainer(outbox, workspace.coordinator)
    if first == "drain":
        drained = drainer.drain()
        assert drained.error is None, drained.error
        assert drained.left == 0
        return
    if planted != "never":
        outbox.marks_left = int(planted)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=queue_for_ever, args=(workspace, outbox, int(first)), daemon=True).start()
    while True:
        drained = drainer.drain()
        assert drained.error is None, drained.error


if __name__ == "__main__":
    main(*sys.argv[1:])
