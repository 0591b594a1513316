"""A pytest plugin: a real Kafka broker as a fixture, and a summary of what ran on it.

    pytest_plugins = ["ccs_stream.testing.pytest_plugin"]

This line in the topmost conftest.py gives the fixtures `kafka_broker` and `kafka_prefix`, and the marker `kafka`, which
every test that uses `kafka_broker` gets by itself.

Guarantees: all workers of pytest-xdist share one broker. The process that runs the workers owns it, so it survives each
of them and ends with the run. A test without a broker is skipped, counted and explained at the end of the run, or fails
if `CCS_REQUIRE_KAFKA=1` is set. That holds for `start_broker()` inside a test, too. Does not: start a broker before a
test asks for one. Downloads are made before the first test, so that no test's time limit includes them.
"""

import contextlib
import os
import re
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest

from ccs_stream.testing.broker import Broker, NoBroker, prepare
from ccs_stream.testing.broker_share import BrokerGuest, BrokerHost

REQUIRE_VARIABLE: Final = "CCS_REQUIRE_KAFKA"

MARKER: Final = "kafka"

_MARKER_LINE: Final = f"{MARKER}: needs a Kafka broker; skipped, and counted as skipped, where none can be had"

_INVITATION: Final = "ccs_kafka_invitation"

_SOURCE: Final = pytest.StashKey[BrokerHost | BrokerGuest]()

_MISSING: Final = pytest.StashKey[str]()

_LONGEST_NAME: Final = 80
"""Kafka allows names of 249 characters; the rest is for what a test appends to the prefix."""


@pytest.fixture(scope="session")
def kafka_broker(pytestconfig: pytest.Config) -> Broker:
    """The broker that all tests of a run share. It cannot be stopped or killed."""
    return pytestconfig.stash[_SOURCE].get()


@pytest.fixture
def kafka_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for topics and groups that no other test has, made of letters, digits, dots and dashes."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[:_LONGEST_NAME].strip("-")
    return f"{name}-{uuid.uuid4().hex[:12]}"


def pytest_configure(config: pytest.Config) -> None:
    if not any(line.partition(":")[0].strip() == MARKER for line in config.getini("markers")):
        config.addinivalue_line("markers", _MARKER_LINE)
    invitation = getattr(config, "workerinput", {}).get(_INVITATION)
    if invitation is not None:
        config.stash[_SOURCE] = BrokerGuest(invitation)
        return
    host = BrokerHost()
    config.stash[_SOURCE] = host
    config.add_cleanup(host.stop)
    config.pluginmanager.register(_Summary(host), "ccs-stream-kafka-summary")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A hook of pytest-xdist, called in the process that runs the workers, before each starts."""
    host = node.config.stash[_SOURCE]
    assert isinstance(host, BrokerHost)
    node.workerinput[_INVITATION] = host.invite()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka_broker" in getattr(item, "fixturenames", ()) and item.get_closest_marker(MARKER) is None:
            item.add_marker(MARKER)


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(item.get_closest_marker(MARKER) for item in session.items)
    if wanted and not session.config.getoption("collectonly"):
        prepare()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    with _explained(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with _explained(item):
        yield


@contextlib.contextmanager
def _explained(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    except NoBroker as error:
        item.stash[_MISSING] = str(error)
        if os.environ.get(REQUIRE_VARIABLE, "") not in ("", "0"):
            pytest.fail(f"{REQUIRE_VARIABLE} is set, and {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker(MARKER) is not None or _MISSING in item.stash:
        # Attributes of a report travel from a worker of pytest-xdist to the process that prints.
        vars(report)["ccs_kafka_missing"] = item.stash.get(_MISSING, "")
    return report


class _Summary:
    """Counts the tests, in the process that prints."""

    def __init__(self, host: BrokerHost) -> None:
        self._host = host
        self._ran: set[str] = set()
        self._otherwise: set[str] = set()
        self._missing: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        missing = getattr(report, "ccs_kafka_missing", None)
        if missing is None:
            return
        if missing and report.when != "teardown":
            self._missing[missing] += 1
        elif report.when == "call" and (not report.skipped or hasattr(report, "wasxfail")):
            self._ran.add(report.nodeid)
        elif not report.passed:
            self._otherwise.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = list(self._lines())
        if lines:
            terminalreporter.write_sep("=", "Kafka")
        for line, is_bad in lines:
            terminalreporter.write_line(line, red=is_bad, bold=is_bad)

    def _lines(self) -> Iterator[tuple[str, bool]]:
        if self._ran:
            where = self._host.how or "brokers of their own"
            yield f"{_tests(len(self._ran))} marked {MARKER} ran, on {where}", False
        others = self._otherwise - self._ran
        if others:
            yield f"{_tests(len(others))} marked {MARKER} did not run, for reasons of their own", False
        for reason, count in self._missing.items():
            yield f"{count} KAFKA {'TEST' if count == 1 else 'TESTS'} DID NOT RUN: {reason}", True


def _tests(count: int) -> str:
    return f"{count} {'test' if count == 1 else 'tests'}"
