"""Starts a broker with this machine's Java, and jars by Maven.

Guarantees: what is kept in the user's cache directory (the jars, and Java's archive of their classes) is complete if it
exists, even if many processes make it at once or one is killed. Does not: update the jars; their folder is named after
Kafka's version.
"""

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccs_stream.testing.broker_base import KAFKA_VERSION, Broker, BrokerFailed, BrokerOptions, NoBroker
from ccs_stream.testing.broker_jars import kafka_jars, locked
from ccs_stream.testing.broker_nodes import JavaBroker

OLDEST_JAVA: Final = 17
"""Kafka's brokers of this version do not start on an older one."""

_FLAGS: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Measured on two cores: one node is formatted and started in 3.1 s with these, in 3.9 s with Java's defaults."""

_ATTEMPTS: Final = 3
"""Another process may take a port after it was found free and before the node takes it."""

_PORT_TAKEN: Final = "Address already in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java that can run Kafka."""

    path: str
    version: str


def find_java() -> Java:
    """Java from JAVA_HOME or the PATH. Raises `NoBroker`."""
    if os.name != "posix":
        raise NoBroker("processes of Java are started on POSIX systems only")
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    path = path or shutil.which("java")
    if path is None:
        raise NoBroker(f"Java (java, {OLDEST_JAVA} or newer) is neither in JAVA_HOME nor on the PATH")
    try:
        output = subprocess.run([path, "-version"], capture_output=True, timeout=30, check=False).stderr  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoBroker(f"{path} does not run: {error}") from error
    match = re.search(r'version "((?:1\.)?(\d+)[\w.+-]*)"', output.decode(errors="replace"))
    if match is None:
        raise NoBroker(f"{path} does not say its version")
    if int(match[2]) < OLDEST_JAVA:
        raise NoBroker(f"{path} is Java {match[1]}; Kafka {KAFKA_VERSION} needs {OLDEST_JAVA} or newer")
    return Java(path=path, version=match[1])


def prepare() -> None:
    """Fetch and make what the first start would. Raises `NoBroker`."""
    _command(find_java())


def start(options: BrokerOptions) -> Broker:
    """Start a broker. Raises `NoBroker` if that is not possible here, `BrokerFailed` if it should have worked."""
    java = find_java()
    how = f"Apache Kafka {KAFKA_VERSION}, started here with Java {java.version}"
    return _started(options, _command(java), how)


def _started(options: BrokerOptions, command: list[str], how: str) -> JavaBroker:
    for attempt in range(1, _ATTEMPTS + 1):
        broker = JavaBroker(options, java=command, how=how)
        try:
            broker.start()
        except BaseException as error:
            broker.stop()
            if attempt == _ATTEMPTS or _PORT_TAKEN not in str(error):
                raise
        else:
            return broker
    raise AssertionError("unreachable")


def _command(java: Java) -> list[str]:
    """The beginning of every node's command."""
    jars = kafka_jars()
    plain = [java.path, *_FLAGS, "-cp", f"{jars}/*"]
    archive = _archive(java, jars, plain)
    return plain if archive is None else [*plain, f"-XX:SharedArchiveFile={archive}"]


def _archive(java: Java, jars: Path, command: list[str]) -> Path | None:
    """Java's archive of the classes that a broker loads, made by starting one: later starts take half the time.

    An empty file stands for a Java that cannot make one. Java ignores an archive that does not fit.
    """
    archive = jars.with_name(f"{jars.name}-java-{java.version}.jsa")
    if not archive.exists():
        try:
            with locked(archive.with_suffix(".lock")):
                if not archive.exists():
                    _make_archive(archive, command)
        except OSError:
            return None
    return archive if archive.stat().st_size else None


def _make_archive(archive: Path, command: list[str]) -> None:
    """Make the archive. The caller holds the lock, so what another process left unfinished can be thrown away."""
    part = archive.with_suffix(".part")
    part.unlink(missing_ok=True)
    with (
        contextlib.suppress(BrokerFailed, subprocess.TimeoutExpired),
        _started(BrokerOptions(), [*command, f"-XX:ArchiveClassesAtExit={part}"], how="") as broker,
    ):
        broker.terminate(1)
    if not part.exists():
        part.touch()
    part.rename(archive)
