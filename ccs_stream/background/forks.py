"""The check for forked processes: one hook of the operating system marks everything that a child must not use.

Used by whatever holds locks, threads or open files. Guarantees: in a forked child the hook has run before anything else
does, so that a check costs an attribute read and no system call. Does not: concern `spawn`, which starts afresh.
"""

import os
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from ccs_stream.protocol.errors import ForkedProcess


class ForkAware(Protocol):
    """An object that something must be done with in a forked child."""

    def after_fork(self) -> None:
        """Called by the hook, in the child."""


FORK_AWARE: Final[weakref.WeakSet[ForkAware]] = weakref.WeakSet()
"""The live objects that the hook calls. Holding them here keeps none of them alive."""
_WHEN_FORKED: Final[list[Callable[[], object]]] = []


class ForkGuard:
    """Belongs to one object with locks, threads or open files; in a forked child `check` raises.

    `forked` is an attribute, so that a hot path pays one attribute read.
    """

    __slots__ = ("__weakref__", "_what", "forked")

    def __init__(self, what: str) -> None:
        """`what` names the object in the message."""
        self._what = what
        self.forked = False
        """True if this process is a forked child of the one that made the object."""
        FORK_AWARE.add(self)

    def check(self) -> None:
        """Raises `ForkedProcess` in a forked child."""
        if self.forked:
            raise ForkedProcess(
                f"{self._what} was opened before this process was forked; locks and file handles do not survive that: "
                "open it in the child (or start processes with the 'spawn' method)"
            )

    def after_fork(self) -> None:
        """Called by the fork hook."""
        self.forked = True


def when_forked(callback: Callable[[], object]) -> None:
    """Call `callback` in every forked child, before anything else runs there. For a module's own tables and locks."""
    _WHEN_FORKED.append(callback)


def _after_fork() -> None:
    for each in tuple(FORK_AWARE):
        each.after_fork()
    for callback in _WHEN_FORKED:
        callback()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
