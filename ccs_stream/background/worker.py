"""Common parts of the workers: the count of failures, the health they report, and a job that is done once.

Guarantees: counting a failure never raises, whatever its `on_failure` does.
"""

import dataclasses
import logging
import threading
from collections.abc import Callable
from typing import Final

LOG: Final = logging.getLogger(__name__)

OnFailure = Callable[[BaseException], object]
"""Called in the worker's thread with the first failure of each row, instead of logging the first of all."""


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerHealth:
    """The state of one background worker."""

    name: str
    alive: bool
    """True if its thread runs. A worker that was not needed yet has no thread."""
    waiting: int
    """Items that wait or are being handled; 0 for a periodic task."""
    handled: int
    """Items handled, or rounds that ended well."""
    dropped: int
    """Items that will never be handled: the queue was full or closed."""
    failures: int
    """Batches or rounds that raised."""
    last_failure: str | None
    """The last error, as text."""


class Failures:
    """Counts the failures of one worker, and reports the first of each row."""

    def __init__(self, name: str, on_failure: OnFailure | None) -> None:
        self.count = 0
        self.row = 0
        """How many in a row; set to 0 by work that ends well."""
        self.last: str | None = None
        self._name = name
        self._on_failure = on_failure
        self._logged = False

    def add(self, error: BaseException) -> None:
        """Count `error`, and report it where it is the first of its row. Never raises."""
        self.count += 1
        self.row += 1
        self.last = f"{type(error).__name__}: {error}"
        if self.row > 1:
            return
        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except BaseException:
                LOG.exception("telling of a failure of %s failed", self._name)
        elif not self._logged:
            self._logged = True
            LOG.error("%s failed, and goes on; later failures are counted", self._name, exc_info=error)


def run_in_background(name: str, job: Callable[[], object]) -> None:
    """Do `job` once, in a daemon thread named `ccs-{name}`; an error that it raises is logged."""

    def supervised() -> None:
        try:
            job()
        except BaseException:
            LOG.exception("%s failed", name)

    threading.Thread(target=supervised, name=f"ccs-{name}", daemon=True).start()
