"""Kafka's jars, fetched by Maven into the user's cache directory.

Guarantees: a folder that exists is complete, even if many processes fetch at once or one is killed. Does not: update or
delete what it fetched; the folder is named after Kafka's version.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ccs_stream.testing.broker_base import KAFKA_VERSION, NoBroker

_LOG4J_VERSION: Final = "2.25.4"
"""Kafka's jars contain only the API of its logging: without a binding the broker would log nothing."""

_MAVEN_TIMEOUT_S: Final = 600
"""For some 55 MB, which take about 20 s on a good line."""

_ARTIFACTS: Final = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", _LOG4J_VERSION),
)


def jars_folder() -> Path:
    """The folder of the jars, whether it exists or not."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    return base / "ccs-stream" / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder with the jars, fetched if they are not there yet. Raises `NoBroker`."""
    folder = jars_folder()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise NoBroker(f"Maven (mvn) is not on the PATH, and {folder} does not exist")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _fetch(maven, folder)
    except OSError as error:
        raise NoBroker(f"the jars cannot be kept in {folder}: {error}") from error
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process in at a time. The lock ends with its process; the file stays."""
    import fcntl  # noqa: PLC0415  # POSIX only, and this module is imported everywhere

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(maven: str, folder: Path) -> None:
    """Fetch the jars. The caller holds the lock, so what another process left unfinished can be thrown away."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="ccs-kafka-pom-") as project:
        pom = Path(project) / "pom.xml"
        pom.write_text(_pom(), "utf-8")
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        _run([*command, f"-DoutputDirectory={part}"])
    part.rename(folder)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603  # the command is our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_MAVEN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoBroker(f"Maven did not fetch Kafka's jars within {_MAVEN_TIMEOUT_S} s") from None
    if done.returncode != 0:
        output = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        raise NoBroker(f"Maven cannot fetch Kafka's jars: {' '.join(output[:3]) or f'exit status {done.returncode}'}")


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        for group, name, version in _ARTIFACTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>ccs-stream</groupId><artifactId>test-broker</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
