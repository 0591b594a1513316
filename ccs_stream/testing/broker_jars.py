"""Kafka's jars, by Maven, in the user's cache directory.

Guarantees: a folder that exists is complete, however many processes ask at once and wherever one is killed. Does not:
renew or delete what it once made; the folder is named after Kafka's version.
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
"""Kafka's jars bring the API of its log only: without a binding the broker would say nothing."""

_MAVEN_TIMEOUT_S: Final = 600
"""For some 55 MB: about 20 s on a good line."""

_ARTIFACTS: Final = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", _LOG4J_VERSION),
)


def jars_folder() -> Path:
    """Where the jars are, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache"
    return base / "ccs-stream" / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder with the jars, fetched when they are not there yet. Raises `NoBroker`."""
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
    """Only one process at a time. The lock ends with its process, too; the file stays."""
    import fcntl  # noqa: PLC0415  # POSIX only, and this module is imported everywhere

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(maven: str, folder: Path) -> None:
    """Under the lock, so that what another process left half done can be thrown away."""
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
        said = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        raise NoBroker(f"Maven cannot fetch Kafka's jars: {' '.join(said[:3]) or f'exit status {done.returncode}'}")


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
