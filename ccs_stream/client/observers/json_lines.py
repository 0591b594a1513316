"""JSON lines: a file of numbered lines that people and their tools read while a workspace appends to it.

The state log and the content audit write such files; `ccs-stream validate` reads them.

Guarantees: a file stays readable over crashes, and may be appended to by several processes (where the system has
`flock`). A second file beside it says where it ends, so that a lost tail shows. Does not: outlive a power cut to the
last line. Lines are handed to the system, not forced to the disk; the log is.
"""

import contextlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from ccs_stream.log.private_files import open_private
from ccs_stream.projections.stream_checks import stream_of
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.limits import shown

try:
    import fcntl as _fcntl

    fcntl: Any = _fcntl
except ImportError:  # pragma: no cover  # Windows: one process to a file
    fcntl = None

END_SUFFIX: Final = ".end"
"""Added to a file's name for the file that says where it ends."""
LINES_MAX: Final = 1_000
"""Lines in one append to a file, about 400 kB; what is read at a time, too."""

Line = dict[str, Any]
LineFunction = Callable[[Line], object]
Ends = dict[str, dict[str, int]]
"""By instance and stream, the number of the last line."""

_IN_PROCESS: Final = threading.Lock()
"""Stands for `flock` where there is none."""


def parse_sink(option: Any, what: str) -> LineFunction | Path:
    """The sink that a user gave: a function or a file. `what` names the option. Raises `UsageError`."""
    usage = f'{what} is a function that takes a dict, or the path of a file to append to, as in {what}="lines.jsonl"'
    if isinstance(option, str | os.PathLike) and str(option):
        path = Path(option)
        if path.is_dir():
            raise UsageError(f"{what}: {path} is a folder; name a file in it, as in {str(path / 'lines.jsonl')!r}")
        if not path.parent.is_dir():
            raise UsageError(f"{what}: the folder {path.parent} does not exist; make it first: mkdir -p {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{what}: {path} cannot be written to; choose another file, or change its permissions")
        return path
    if not callable(option):
        raise UsageError(f"{usage}; got {shown(option)}")
    if inspect.iscoroutinefunction(option):
        raise UsageError(f"{usage}; got the async function {option!r}, which nobody would await: put into a queue")
    function: LineFunction = option
    return function


class JsonLines:
    """A file of JSON lines, and beside it where it ends. It is open only while something is appended."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, lines: Sequence[Line]) -> None:
        """Append all lines, or none. Each has `schema_version`, `instance_id` and `sequence_number`. Raises `OSError`.

        What a crash has left half written is ended with a newline first: it stays a line of its own, which a check of
        the file reports, and does not take the next one with it.
        """
        if not lines:
            return
        data = b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
        with open_private(self.path, "a+b", buffering=0) as file, _alone(file):
            size = file.seek(0, os.SEEK_END)
            try:
                _write_all(file, data if _ends_whole(file, size) else b"\n" + data)
                self._keep_ends(lines)
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(size)  # or the same lines would be there twice, when they are appended again
                raise

    def _keep_ends(self, lines: Sequence[Line]) -> None:
        path = ends_path(self.path)
        ends = read_ends(path) or {}
        for line in lines:
            of_instance = ends.setdefault(line["instance_id"], {})
            stream = stream_of(line["schema_version"])
            of_instance[stream] = max(of_instance.get(stream, 0), line["sequence_number"])
        made = path.with_name(path.name + ".new")
        with open_private(made, "wb") as file:
            file.write(orjson.dumps(ends, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS))
        made.replace(path)


def ends_path(path: Path) -> Path:
    """The file that says where the file of lines ends."""
    return path.with_name(path.name + END_SUFFIX)


def read_ends(path: Path) -> Ends | None:
    """The contents of the file of ends; None where it is missing or damaged."""
    try:
        found = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    if type(found) is not dict or not all(
        type(streams) is dict and all(type(last) is int for last in streams.values()) for streams in found.values()
    ):
        return None
    return found


@contextlib.contextmanager
def lines_and_ends(path: Path) -> Iterator[tuple[Iterator[bytes], Ends | None]]:
    """The lines of a file and where they should end, both as of one moment, while others may append. Raises `OSError`.

    Lines come without their newlines.
    """
    with path.open("rb") as file:
        with _alone(file, shared=True):
            size = file.seek(0, os.SEEK_END)
            ends = read_ends(ends_path(path))
        file.seek(0)
        yield _lines_to(file, size), ends


def _lines_to(file: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left > 0 and (line := file.readline(left)):
        left -= len(line)
        yield line.rstrip(b"\n")


@contextlib.contextmanager
def _alone(file: Any, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes from appending meanwhile. Closing the file unlocks it, so a crash locks no one out."""
    if fcntl is None:  # pragma: no cover
        with _IN_PROCESS:
            yield
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _ends_whole(file: Any, size: int) -> bool:
    if not size:
        return True
    file.seek(size - 1)
    return bool(file.read(1) == b"\n")


def _write_all(file: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
