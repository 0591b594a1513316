"""Removes a container when the process that started it has ended, for whatever reason.

    python broker_container_watch.py OWNER FOLDER CONTAINER

Guarantees: soon after the process OWNER has ended, the container and FOLDER are removed. Does not: end by itself while
OWNER lives; OWNER ends it after removing the container itself.
"""

import os
import shutil
import sys
import time
from typing import Final

_POLL_S: Final = 0.2


def main(owner: int, folder: str, container: str) -> None:
    while os.getppid() == owner:
        time.sleep(_POLL_S)
    shutil.rmtree(folder, ignore_errors=True)
    import docker  # noqa: PLC0415  # only now, as most watches never need it

    docker.from_env().containers.get(container).remove(force=True, v=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
