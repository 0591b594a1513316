"""Chooses the files to review: the Python files under a path, within limits, and those that were left out.

Guarantees: it only reads; it reports every file that it leaves out; it follows a link that leads back up once. Does
not: look into environments, caches or hidden folders.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ccs_stream
from ccs_stream.protocol.errors import UsageError

FILES_MAX: Final = 400
FILE_BYTES_MAX: Final = 200_000
ALL_BYTES_MAX: Final = 2_500_000
"""Each reviewer reads all files several times; with so many bytes that takes some ten seconds."""
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "venv"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A file that was not reviewed."""

    path: str
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceFiles:
    """The files to review; their paths begin at the outermost package."""

    root: str
    files: dict[str, str]
    left_out: list[SkippedFile]


def collect(path: Path | None) -> SourceFiles:
    """The Python files under `path`, by default those of this package. Raises `UsageError` when there is none."""
    root = Path(ccs_stream.__file__).parent if path is None else path
    if not root.exists():
        raise UsageError(f"there is nothing at {root}")
    if root.is_file() and root.suffix != ".py":
        raise UsageError(f"{root} is no Python file: name one, or a folder")
    root = root.resolve()
    top = _top(root)
    files: dict[str, str] = {}
    left_out: list[SkippedFile] = []
    room = ALL_BYTES_MAX
    found = [root] if root.is_file() else sorted(_python_files(root), key=lambda each: (len(each.parts), each))
    for each in found:
        name = each.relative_to(top).as_posix()
        text, why = _text(each, room=room, count=len(files))
        if text is None:
            left_out.append(SkippedFile(path=name, why=why))
        else:
            files[name] = text
            room -= len(text)
    if not files:
        why = "".join(f"; {each.path} {each.why}" for each in left_out[:1])
        raise UsageError(f"there is no Python file to review under {root}{why}")
    return SourceFiles(root=str(root), files=dict(sorted(files.items())), left_out=left_out)


def _top(root: Path) -> Path:
    """The folder that shown paths begin at: the parent of the root, or of the outermost package around it."""
    top = root.parent
    while (top / "__init__.py").exists() and top.parent != top:
        top = top.parent
    return top


def _python_files(root: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        if here in seen or "pyvenv.cfg" in names:
            inner.clear()
            continue
        seen.add(here)
        inner[:] = sorted(each for each in inner if each not in _SKIPPED and not each.startswith("."))
        yield from (Path(folder) / each for each in names if each.endswith(".py"))


def _text(path: Path, *, room: int, count: int) -> tuple[str | None, str]:
    if count >= FILES_MAX:
        return None, f"comes after the first {FILES_MAX} files"
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            return None, f"has {size:,} bytes, more than {FILE_BYTES_MAX:,}"
        if size > room:
            return None, f"comes after the first {ALL_BYTES_MAX:,} bytes"
        return path.read_text("utf-8"), ""
    except UnicodeDecodeError:
        return None, "is not UTF-8"
    except OSError as error:
        return None, f"cannot be read ({error.strerror})"
