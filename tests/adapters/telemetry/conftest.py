"""Telemetry that a test looks into."""

from collections.abc import Iterator

import pytest

from tests.adapters.telemetry.traced import Traced


@pytest.fixture
def traced() -> Iterator[Traced]:
    """The SDK of one process."""
    made = Traced()
    yield made
    made.shut_down()


@pytest.fixture
def elsewhere() -> Iterator[Traced]:
    """That of another, with which it shares nothing."""
    made = Traced()
    yield made
    made.shut_down()
