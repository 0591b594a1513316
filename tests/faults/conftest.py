"""A broker that these tests may hurt, and what a fault is given."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_stream.testing.broker import Broker
from tests.faults.environment import Environment, heal, is_full, make, own_broker


@pytest.fixture(scope="package")
def own() -> Iterator[Broker]:
    with own_broker() as broker:
        yield broker


@pytest.fixture
def env(own: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Environment:
    heal(own)
    return make(own, tmp_path, request.node.name, full=is_full())
