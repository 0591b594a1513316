"""The plugin in test runs of their own: one broker for all workers, and loud words when there is none."""

import re
import sys
from pathlib import Path

import pytest

from ccs_stream.testing.broker import Broker
from ccs_stream.testing.broker_jars import jars_folder
from tests.testing.test_broker_owner import answers

pytest_plugins = ["pytester"]

CACHE = jars_folder().parents[1]
"""Known before `pytester` moves the home directory."""

TWO_TESTS = """
    import pytest

    def test_with_the_fixture(kafka_broker, kafka_prefix):
        assert kafka_broker.bootstrap_servers

    @pytest.mark.kafka
    def test_with_a_broker_of_its_own():
        from ccs_stream.testing.broker import start_broker
        with start_broker() as broker:
            assert broker.bootstrap_servers

    def test_without():
        pass
"""


class Runs:
    """Runs pytest on tests that have the plugin and nothing else of ours."""

    def __init__(self, pytester: pytest.Pytester, environment: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.environment = environment
        environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        environment.setenv("XDG_CACHE_HOME", str(CACHE))
        for name in ("CCS_TEST_KAFKA", "CCS_REQUIRE_KAFKA", "PYTEST_ADDOPTS"):
            environment.delenv(name, raising=False)
        pytester.makeconftest('pytest_plugins = ["ccs_stream.testing.pytest_plugin"]')

    def have_no_broker(self) -> None:
        """Take away every source of brokers."""
        for name in ("PATH", "JAVA_HOME"):
            self.environment.setenv(name, str(self.pytester.path / "nothing"))
        self.environment.setenv("DOCKER_HOST", f"unix://{self.pytester.path}/nothing")

    def run(self, tests: str, *arguments: str) -> pytest.RunResult:
        """Run these tests."""
        self.pytester.makepyfile(tests)
        plugins = ["-p", "xdist", "-p", "no:cacheprovider"]
        return self.pytester.run(
            sys.executable, "-m", "pytest", "--strict-markers", "-W", "error", *plugins, *arguments, timeout=60
        )


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(pytester, monkeypatch)


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_tests_without_a_broker_are_skipped_aloud(runs: Runs, workers: str) -> None:
    runs.have_no_broker()
    result = runs.run(TWO_TESTS, workers)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "=* Kafka =*",
            "2 KAFKA TESTS DID NOT RUN: no Kafka broker can be had. CCS_TEST_KAFKA is not set. A container: *. Java: *",
        ]
    )


def test_tests_without_a_broker_fail_where_one_is_required(runs: Runs) -> None:
    runs.have_no_broker()
    runs.environment.setenv("CCS_REQUIRE_KAFKA", "1")
    result = runs.run(TWO_TESTS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, errors=1, failed=1)
    result.stdout.fnmatch_lines(["*CCS_REQUIRE_KAFKA is set, and no Kafka broker can be had*"])
    result.stdout.fnmatch_lines(["2 KAFKA TESTS DID NOT RUN: *"])


def test_a_run_without_tests_for_kafka_says_nothing(runs: Runs) -> None:
    runs.have_no_broker()
    result = runs.run(TWO_TESTS, "-m", "not kafka")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.no_fnmatch_line("*KAFKA*")
    result.stdout.no_fnmatch_line("*Kafka*")


def test_a_marker_that_is_registered_keeps_its_words(runs: Runs) -> None:
    runs.pytester.makeini("[pytest]\nmarkers =\n    kafka: as it was")
    result = runs.run("", "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.kafka: as it was"])
    result.stdout.no_fnmatch_line("@pytest.mark.kafka: needs a Kafka broker*")


@pytest.mark.kafka
def test_the_summary_says_which_broker_it_was(runs: Runs, kafka_broker: Broker) -> None:
    runs.environment.setenv("CCS_TEST_KAFKA", kafka_broker.bootstrap_servers)
    tests = (
        TWO_TESTS
        + """
    def test_that_needs_settings():
        from ccs_stream.testing.broker import start_broker
        start_broker(settings={"message.max.bytes": "1000"})

    @pytest.mark.kafka
    def test_skipped():
        pytest.skip("for the weather")
    """
    )
    result = runs.run(tests, "-n2")
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(
        [
            f"2 tests marked kafka ran, on the broker at {kafka_broker.bootstrap_servers}, as CCS_TEST_KAFKA says",
            "1 test marked kafka did not run, for reasons of their own",
            "1 KAFKA TEST DID NOT RUN: CCS_TEST_KAFKA names a broker that is not ours to set up, hurt or stop*",
        ]
    )


@pytest.mark.kafka
def test_one_broker_serves_all_workers_and_survives_each(runs: Runs, kafka_broker: Broker) -> None:
    # given a run that has a broker, and one of whose workers is killed
    tests = """
    import os, pathlib, pytest

    @pytest.mark.parametrize("number", range(6))
    def test_each(kafka_broker, number):
        from tests.testing.kafka_io import create_topic
        create_topic(kafka_broker.bootstrap_servers, f"t{number}")
        pathlib.Path(f"seen-{os.getpid()}").write_text(kafka_broker.bootstrap_servers)
        if number == 2:
            os.kill(os.getpid(), 9)
    """
    runs.environment.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    # when
    result = runs.run(tests, "-n2")
    # then
    result.assert_outcomes(passed=5, failed=1)
    seen = [path.read_text("utf-8") for path in runs.pytester.path.glob("seen-*")]
    assert len(seen) >= 2
    (address,) = set(seen)
    assert address != kafka_broker.bootstrap_servers
    assert not answers(address)


@pytest.mark.kafka
def test_the_blocks_of_the_page_are_tests_that_run(runs: Runs, kafka_broker: Broker) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")
    plugin, *blocks = re.findall(r"~~~python\n(.*?)~~~", page, re.DOTALL)
    runs.pytester.makeconftest(plugin)
    runs.pytester.makepyfile(**{f"test_block_{number}": block for number, block in enumerate(blocks)})
    runs.environment.setenv("CCS_TEST_KAFKA", kafka_broker.bootstrap_servers)
    result = runs.run("")
    result.stdout.fnmatch_lines(["1 KAFKA TEST DID NOT RUN: *"])  # the one with three nodes of its own
    assert result.parseoutcomes()["passed"] > 10
