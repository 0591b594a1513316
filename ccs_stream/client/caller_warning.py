"""Warnings that point at the caller's own line, however deep in the package they arise.

Guarantees: the line that a warning names is the innermost one that belongs neither to this package nor to the base
classes of a framework that called it. Does not: find the line of a coroutine's author once the coroutine runs in a task
of its own; the innermost frame of the event loop is named then.
"""

import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Final

_PACKAGE: Final = str(Path(__file__).resolve().parent.parent)
_LINKED: Final = tuple(str(folder.resolve()) for folder in Path(_PACKAGE).iterdir() if folder.is_symlink())
"""In a checkout, rooms such as `adapters` are links to folders outside the package."""
_OWN: Final = (_PACKAGE, *_LINKED)
_FRAMEWORK_BASES: Final = ("langgraph.store",)
"""Modules whose classes the adapters extend: their methods call ours on behalf of the user."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """Issue a warning that names the line of the user's program which led here."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # as the warnings module itself does
    innermost = frame
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    found = frame or innermost
    if found is None:
        raise AssertionError("a running function has a frame")
    warnings.warn_explicit(
        message,
        category,
        filename=found.f_code.co_filename,
        lineno=found.f_lineno,
        module=found.f_globals.get("__name__", "<unknown>"),
        registry=found.f_globals.setdefault("__warningregistry__", {}),
        source=None,
    )


def _is_ours(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    if name.startswith(_FRAMEWORK_BASES):
        return True
    path = frame.f_code.co_filename
    return path.startswith(_OWN) or (path.startswith("<") and name.startswith("ccs_stream."))
