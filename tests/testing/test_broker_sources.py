"""Where a broker comes from, and what is said when it comes from nowhere. No broker is started here.

The environment is all that these tests change: commands are found on a PATH of their own making.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from ccs_stream.testing.broker import KAFKA_VERSION, Broker, NoBroker, start_broker


class Machine:
    """A machine that has what was put on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = root / "bin"
        self.bin.mkdir()
        self.cache = root / "cache"
        self.environment = monkeypatch
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.cache))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{root}/no-engine.sock")
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.delenv("CCS_TEST_KAFKA", raising=False)

    def has(self, command: str, script: str) -> None:
        """Put a command on the PATH."""
        path = self.bin / command
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)

    def has_java(self, version: str = "17.0.1") -> None:
        """Put a Java on the PATH that knows its version and nothing else."""
        self.has("java", f"echo 'openjdk version \"{version}\"' >&2; exit 1")

    def refusal(self) -> str:
        """Why there is no broker."""
        with pytest.raises(NoBroker) as raised:
            start_broker()
        return str(raised.value)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_machine_without_any_source_names_what_each_lacks(machine: Machine) -> None:
    refusal = machine.refusal()
    assert "CCS_TEST_KAFKA is not set" in refusal
    assert "no Docker engine answers at unix://" in refusal
    assert "Java (java, 17 or newer) is neither in JAVA_HOME nor on the PATH" in refusal


def test_an_old_java_is_named_with_its_version(machine: Machine) -> None:
    machine.has_java("11.0.2")
    assert f"{machine.bin}/java is Java 11.0.2; Kafka {KAFKA_VERSION} needs 17 or newer" in machine.refusal()


def test_java_home_comes_before_the_path(machine: Machine) -> None:
    home = machine.bin.parent / "home"
    (home / "bin").mkdir(parents=True)
    machine.has_java("1.8.0_401")
    (machine.bin / "java").rename(home / "bin" / "java")
    machine.has_java("21.0.1")
    machine.environment.setenv("JAVA_HOME", str(home))
    assert f"{home}/bin/java is Java 1.8.0_401" in machine.refusal()


def test_without_maven_the_folder_that_would_do_instead_is_named(machine: Machine) -> None:
    machine.has_java()
    folder = machine.cache / "ccs-stream" / f"kafka-{KAFKA_VERSION}"
    assert f"Maven (mvn) is not on the PATH, and {folder} does not exist" in machine.refusal()


def test_a_maven_that_fails_leaves_nothing_that_could_be_taken_for_jars(machine: Machine) -> None:
    # given
    machine.has_java()
    machine.has(
        "mvn",
        'for a in "$@"; do case $a in -DoutputDirectory=*) /bin/mkdir -p "${a#*=}";; esac; done\n'
        "echo '[ERROR] the disk is on fire'; exit 1",
    )
    # then
    assert "Maven cannot fetch Kafka's jars: [ERROR] the disk is on fire" in machine.refusal()
    assert "the disk is on fire" in machine.refusal()  # a second time, and not what a folder without jars leads to


def test_two_processes_that_need_the_jars_fetch_them_once(machine: Machine) -> None:
    # given
    machine.has(
        "mvn",
        'for a in "$@"; do case $a in -DoutputDirectory=*) out=${a#*=};; esac; done\n'
        f'/bin/mkdir "$out" && echo run >> {machine.bin}/runs && /bin/sleep 0.5 && echo jar > "$out/kafka.jar"',
    )
    code = "from ccs_stream.testing.broker_jars import kafka_jars; print((kafka_jars() / 'kafka.jar').read_text())"
    # when
    asking = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    answers = [each.communicate(timeout=30)[0].strip() for each in asking]
    # then
    assert answers == [b"jar", b"jar"]
    assert (machine.bin / "runs").read_text("utf-8") == "run\n"


def test_an_engine_elsewhere_that_is_away_is_no_engine(machine: Machine) -> None:
    machine.environment.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert "no Docker engine answers at tcp://127.0.0.1:1" in machine.refusal()


def test_an_address_that_was_given_is_taken_or_nothing(machine: Machine) -> None:
    machine.environment.setenv("CCS_TEST_KAFKA", "127.0.0.1:1")
    assert "CCS_TEST_KAFKA names 127.0.0.1:1, where no broker answers" in machine.refusal()


def test_a_broker_that_was_given_is_not_set_up(machine: Machine) -> None:
    machine.environment.setenv("CCS_TEST_KAFKA", "127.0.0.1:1")
    with pytest.raises(NoBroker, match="not ours to set up, hurt or stop"):
        start_broker(settings={"message.max.bytes": "1000"})


@pytest.mark.kafka
def test_a_broker_that_was_given_is_not_hurt(kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = kafka_broker.bootstrap_servers
    monkeypatch.setenv("CCS_TEST_KAFKA", servers)
    with start_broker() as given:
        assert (given.bootstrap_servers, given.nodes) == (servers, ())
        assert given.how == f"the broker at {servers}, as CCS_TEST_KAFKA says"
        with pytest.raises(NoBroker, match="not ours to set up, hurt or stop"):
            given.kill(1)


def test_importing_the_kit_needs_neither_pytest_nor_testcontainers() -> None:
    absent = "import sys; sys.modules.update(pytest=None, testcontainers=None, docker=None)"
    subprocess.run([sys.executable, "-c", f"{absent}; import ccs_stream.testing.broker_share"], check=True)
