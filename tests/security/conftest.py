"""One broker with listeners for every way to say who one is, for all tests of this room."""

from collections.abc import Iterator

import pytest

from ccs_stream.testing.broker import Broker
from tests.security.secured import Certificates, make_certificates, start_secured


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured(certificates: Certificates) -> Iterator[Broker]:
    with start_secured(certificates) as broker:
        yield broker
