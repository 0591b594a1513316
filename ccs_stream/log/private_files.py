"""Files that hold what agents wrote are made for their owner only.

The SQLite log, the outbox, archives and the files of streams are made here. Guarantees: a new file has mode 0600,
unless its maker asks for another mode; a file that exists keeps its mode. Does not: change what exists. Systems without
such modes ignore them.
"""

import contextlib
import os
from pathlib import Path
from typing import IO, Any, Final

PRIVATE_MODE: Final = 0o600


def create_private(path: Path, mode: int = PRIVATE_MODE) -> None:
    """Make an empty file, if there is none. Where that fails, whoever opens it next says why."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))


def open_private(path: Path, mode: str, *, buffering: int = -1) -> IO[Any]:
    """Open a file as `open` does; one that is made is private. Raises `OSError`."""
    return open(path, mode, buffering=buffering, opener=_opener)  # Path.open takes no opener


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_MODE)
