"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable


def until(what: str, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until something holds. Raises `AssertionError` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"after {timeout_s:g} s, still not: {what}"
        time.sleep(0.02)
