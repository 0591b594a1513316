"""Runs one command on behalf of a process, and ends it when that process has ended, for whatever reason.

    python broker_watch.py OWNER FOLDER COMMAND...

Guarantees: soon after the process OWNER has ended, the command is killed and FOLDER is deleted; if this process is
killed itself, the command dies with it (on Linux). Its exit status is that of the command. Does not: import anything
but the standard library, so that it starts quickly; restart anything.

It is a process of its own because the kernel's signal at a parent's death means the death of the *thread* that started
the child, and because a Java process cannot be asked to watch its parent.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Final

_POLL_S: Final = 0.05
"""A death goes unnoticed for so long; looking twenty times a second costs a thousandth of a processor."""

_PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h."""


def main(owner: int, folder: str, command: list[str]) -> int:
    child = subprocess.Popen(  # noqa: S603  # the command is our owner's
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # there are no threads here
    )
    # The owner reads which process to signal.
    os.write(1, b"%d\n" % child.pid)
    os.close(1)
    while os.getppid() == owner:
        status = child.poll()
        if status is not None:
            return status if status >= 0 else 128 - status
        time.sleep(_POLL_S)
    child.kill()
    child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
