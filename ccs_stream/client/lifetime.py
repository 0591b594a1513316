"""The end of a workspace: by `close()`, by being dropped, or with the program.

A `Workspace` puts all that it has opened into a `ClosingChain`.

Guarantees: every link of the chain is closed, whatever the links before it raise, and for a bounded time. A workspace
that nobody refers to any more is closed in the background, with one `ResourceWarning`. At a normal end of the program
every open workspace is closed: sessions leave, queues are flushed, an embedded leader resigns. Does not: help after a
kill; then the log takes back what the session holds when its time is over.

How: `atexit` closes what is open at the end of the program, one workspace after the other, for `EXIT_TIMEOUT_S` in all.
What was dropped is closed by a thread `ccs-close-dropped`, because the garbage collector may run in the middle of
anything.
"""

import atexit
import logging
import math
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Final

from ccs_stream.background import run_in_background, when_forked
from ccs_stream.clock import Deadline

LOG = logging.getLogger(__name__)

EXIT_TIMEOUT_S: Final = 10.0
"""How long the end of the program waits for all workspaces that were not closed."""

Link = Callable[[float], object]
"""Closes one thing, for at most so many seconds."""

_OPEN: Final[weakref.WeakSet["ClosingChain"]] = weakref.WeakSet()


class ClosingChain:
    """The things that a workspace has open, in the order in which they were opened. Closed in the reverse order."""

    def __init__(self, what: str) -> None:
        """`what` names the owner in messages."""
        self._what = what
        self._links: list[Link] = []
        self._last: Link | None = None
        self._closes_last_when_dropped = False
        self._lock = threading.Lock()
        self._finalizer: weakref.finalize[..., object] | None = None
        _OPEN.add(self)

    def add(self, link: Link) -> None:
        """Have `link` closed before those that were added earlier."""
        self._links.append(link)

    def close_last(self, link: Link, *, when_dropped: bool) -> None:
        """Have `link` closed after all others; where the owner is dropped, only if `when_dropped`."""
        self._last, self._closes_last_when_dropped = link, when_dropped

    def close_when_dropped(self, owner: object) -> None:
        """Close, with a warning, once nothing refers to `owner` any more. No link may refer to it."""
        self._finalizer = weakref.finalize(owner, self._dropped)
        self._finalizer.atexit = False

    def close(self, timeout_s: float | None = None) -> None:
        """Close every link, once, for at most `timeout_s` in all where given. Raises the first error of a link."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._close(timeout_s, dropped=False)

    def _close(self, timeout_s: float | None, *, dropped: bool) -> None:
        with self._lock:  # a second closer finds nothing left to do, and does not wait for the first
            links, self._links = self._links, []
            last, self._last = self._last, None
        if last is not None and (not dropped or self._closes_last_when_dropped):
            links.insert(0, last)
        deadline = Deadline(math.inf if timeout_s is None else timeout_s)
        first: BaseException | None = None
        for link in reversed(links):
            try:
                link(deadline.left_s)
            except BaseException as error:  # noqa: BLE001  # an interrupt, too, must not keep the other links open
                if first is None:
                    first = error
                else:
                    LOG.warning("closing %s raised once more: %r", self._what, error)
        _OPEN.discard(self)
        if first is not None:
            raise first

    def _dropped(self) -> None:
        if not self._links:
            return
        warnings.warn(
            f"{self._what} was dropped without close(): close it, or open it in a `with` block", ResourceWarning, 1
        )
        run_in_background("close-dropped", self._close_dropped)

    def _close_dropped(self) -> None:
        self._close(None, dropped=True)


def _close_all() -> None:
    """At the end of the program."""
    deadline = Deadline(EXIT_TIMEOUT_S)
    for chain in tuple(_OPEN):
        try:
            chain.close(deadline.left_s)
        except Exception:
            LOG.exception("an open workspace could not be closed at the end of the program")


atexit.register(_close_all)
when_forked(_OPEN.clear)  # they are the parent's
