"""Noticing that this process is a fork of the one that made an object.

Guarantees: after `os.fork()`, every guarded object of the parent refuses to work in the child, before it touches a
lock or a file; the check costs an attribute read. Does not: concern `spawn`, which starts afresh.
"""

import os
import weakref

from ccs_stream.protocol.errors import ForkedProcess

_GUARDS: "weakref.WeakSet[ForkGuard]" = weakref.WeakSet()


class ForkGuard:
    """Belongs to one object; `check` raises in a forked child."""

    __slots__ = ("__weakref__", "_what", "forked")

    def __init__(self, what: str) -> None:
        self._what = what
        self.forked = False
        _GUARDS.add(self)

    def check(self) -> None:
        """Raises `ForkedProcess` in a forked child."""
        if self.forked:
            raise ForkedProcess(
                f"{self._what} was opened before this process was forked; locks and file handles do not survive that: "
                "open it in the child (or start processes with the 'spawn' method)"
            )


def _mark_forked() -> None:
    for guard in tuple(_GUARDS):
        guard.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
