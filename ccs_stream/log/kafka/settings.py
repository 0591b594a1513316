"""The settings of a Kafka log: one model, filled from a URL, a properties file, the environment and arguments.

`open_log` and the command-line tools use it.

Guarantees: an unknown option raises an error that names the nearest known one; librdkafka's own settings are passed
through untouched, except the few that the log's promises rest on, which raise; secrets are in no repr and no message.
Does not: check that a broker answers.

Where a librdkafka setting is given twice, the argument wins over the environment, and that over the file. In the
environment `sasl.username` is written `CCS_KAFKA_SASL_USERNAME`; `CCS_KAFKA_CONFIG` names the file.
"""

import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from ccs_stream.protocol.errors import UsageError, unknown_name

ENVIRONMENT_PREFIX: Final = "CCS_KAFKA_"
CONFIG_VARIABLE: Final = "CCS_KAFKA_CONFIG"
DEFAULT_PREFIX: Final = "ccs"
DEFAULT_PARTITIONS: Final = 12
"""Cannot be changed later, because a workspace's partition follows from it; allows as many leaders at a time."""

FIXED: Final[Mapping[str, str]] = {
    "acks": "what is acknowledged must be on all in-sync replicas",
    "request.required.acks": "what is acknowledged must be on all in-sync replicas",
    "enable.idempotence": "a retry of the client must not append twice",
    "transactional.id": "the log is fenced by its own claims, not by transactions",
    "max.in.flight.requests.per.connection": "records must stay in order",
    "max.in.flight": "records must stay in order",
    "enable.auto.commit": "positions come from the log, not from group offsets",
    "enable.auto.offset.store": "positions come from the log, not from group offsets",
    "auto.offset.reset": "a reader that lost its place must stop, not begin elsewhere",
    "group.id": "it follows from prefix=, so that ACLs can name it",
    "group.instance.id": "every process is a member of its own, also where several read one file",
    "group.protocol": "a coordinator proves its membership with the classic protocol",
    "partition.assignment.strategy": "partitions are handed over one by one",
    "batch.size": "brokers measure batches against the topic's largest message",
    "bootstrap.servers": "they are the host part of the URL",
    "metadata.broker.list": "they are the host part of the URL",
    "default.topic.config": "write its settings beside the others",
    "logger": "librdkafka's log is the logger `ccs_stream.librdkafka`",
    "allow.auto.create.topics": "topics are made by `ccs-stream topics create`",
    "enable.partition.eof": "the reader sets it",
    "session.timeout.ms": "it is session_timeout_s= in the URL",
    "max.poll.interval.ms": "it follows from session_timeout_s=, so that a stuck process loses its partitions",
    "message.timeout.ms": "it is delivery_timeout_s= in the URL",
    "delivery.timeout.ms": "it is delivery_timeout_s= in the URL",
    "delivery.report.only.error": "the producer sets it",
}
"""Settings of librdkafka that are not passed through, and why."""
_PROPERTY: Final = re.compile(r"[a-z][a-z0-9._]*")
_NOT_IN_URL: Final = ("bootstrap_servers", "client")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=200)]


class KafkaSettings(BaseModel):
    """A Kafka log: `kafka://HOST:PORT[,HOST:PORT]?OPTION=VALUE&...`; every field but the first two is an option."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap_servers: Annotated[str, StringConstraints(min_length=1)]
    """Brokers to begin with, `host:port` separated by commas: the host part of the URL."""
    client: dict[str, Any] = Field(default_factory=dict, repr=False)
    """librdkafka's own settings (`security.protocol`, `sasl.username`, `compression.type`, `oauth_cb`, ...)."""
    workspace: Annotated[str, StringConstraints(min_length=1)] | None = None
    """The workspace, where the program does not name one."""
    prefix: Name = DEFAULT_PREFIX
    """First part of the names of all topics and groups: one cluster can hold several logs."""
    coordinator: Literal["embedded", "remote"] = "embedded"
    """`embedded`: this process offers itself to lead while no dedicated coordinator runs. `remote`: it never does."""
    config: Path | None = None
    """A properties file (`key=value` lines) with settings of librdkafka."""
    timeout_s: float = Field(default=30.0, gt=0, le=3_600)
    """Seconds after which the outcome of a command is unknown, and a silent connection is dead."""
    session_timeout_s: float = Field(default=6.0, ge=1, le=300)
    """A coordinator that is silent for this long loses its partitions. Brokers bound it: 6 s to 30 min as shipped."""
    delivery_timeout_s: float = Field(default=10.0, ge=1, le=300)
    """Seconds for which the producer tries, before the outcome of an append is unknown."""

    @classmethod
    def parse(cls, url: str, client: Mapping[str, Any] | None = None) -> Self:
        """The settings of a URL, with the file and the environment. Raises `UsageError`."""
        shown = display_url(url)
        if "@" in url.partition("?")[0]:
            raise _credentials_in(shown)
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError as error:
            raise UsageError(f"{shown!r} is no URL: {error}") from None
        if parts.scheme != "kafka" or not parts.netloc or parts.path not in ("", "/"):
            raise UsageError(f"{shown!r} is no Kafka URL: write kafka://HOST:9092?workspace=NAME")
        if parts.fragment:
            raise UsageError(f"{shown!r} has a part behind #, which would be ignored: write %23 for # in a name")
        servers = _servers(parts.netloc, shown)
        options = _options(parts.query, [name for name in cls.model_fields if name not in _NOT_IN_URL], shown)
        file = options.get("config") or os.environ.get(CONFIG_VARIABLE)
        settings = {
            **_veiled({} if file is None else read_properties(Path(file))),
            **_veiled(from_environment(os.environ)),
            **_veiled(client or {}),
        }
        _refuse_fixed(settings)
        try:
            return cls(bootstrap_servers=servers, client=settings, **options)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise UsageError(f"{shown!r}: {said}") from None

    @property
    def display_url(self) -> str:
        """The log, to show: no credentials are in it."""
        prefix = "" if self.prefix == DEFAULT_PREFIX else f"?prefix={self.prefix}"
        return f"kafka://{self.bootstrap_servers}{prefix}"

    def librdkafka(self) -> dict[str, Any]:
        """Settings every client of this log begins with. Holds secrets: never log it."""
        revealed = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.client.items()
        }
        return {**revealed, "bootstrap.servers": self.bootstrap_servers, "allow.auto.create.topics": False}


def display_url(url: str) -> str:
    """A URL as it may be shown: its hosts. No user part, and no value of an option, whichever it was meant to be."""
    before, _, _ = url.partition("?")
    scheme, slashes, hosts = before.partition("//")
    if "@" in url:
        hosts = "..." if "@" not in before else hosts.rpartition("@")[2]
    return f"{scheme}{slashes}{hosts}"


def _credentials_in(shown: str) -> UsageError:
    return UsageError(
        f"{shown!r} carries credentials, which end up in logs and process lists: put sasl.username and sasl.password "
        f"in a file and name it with config=FILE or ${CONFIG_VARIABLE}"
    )


def _options(query: str, known: list[str], shown: str) -> dict[str, str]:
    """The options of a URL. Raises `UsageError` for an unknown one, and for one given twice."""
    options: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if "@" in name:
            raise _credentials_in(shown)
        if name not in known:
            advice = ". Settings of librdkafka go into config=FILE"
            raise unknown_name(name, known, what="unknown option", where=f" in {shown!r}", advice=advice)
        if name in options:
            raise UsageError(f"option {name!r} is given twice in {shown!r}: say it once")
        options[name] = value
    return options


def read_properties(path: Path) -> dict[str, str]:
    """The settings of a properties file: `key=value` lines, `#` for comments. Raises `UsageError`."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"the properties file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the properties file {path} is not in UTF-8") from None
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", "!")):
            continue
        name, equals, value = stripped.partition("=")
        name = name.strip()
        # What is in a line may be a secret: none of it is shown here or later that does not look like a setting's name.
        if not equals or not _PROPERTY.fullmatch(name):
            raise UsageError(f"line {number} of {path} is no `key=value`")
        if name in found:
            raise UsageError(f"line {number} of {path} sets again what line {lines[name]} has set")
        found[name], lines[name] = value.strip(), number
    return found


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Settings of librdkafka named in the environment: `CCS_KAFKA_SASL_USERNAME` is `sasl.username`."""
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE
    }


def _refuse_fixed(settings: Mapping[str, Any]) -> None:
    for name in settings:
        why = FIXED.get(name)
        if why is not None:
            raise UsageError(f"the setting {name!r} of librdkafka cannot be chosen: {why}")


def _veiled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every text is kept as a secret, because only librdkafka knows which of them are passwords."""
    return {name: SecretStr(value) if isinstance(value, str) else value for name, value in settings.items()}


def _servers(netloc: str, shown: str) -> str:
    servers: list[str] = []
    for each in netloc.split(","):
        host, colon, port = each.rpartition(":")
        if not colon or each.endswith("]"):
            host, port = each, "9092"
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            if each not in shown:
                raise _credentials_in(shown)  # a password with a question mark in it
            raise UsageError(f"{each!r} in {shown!r} is no HOST:PORT")
        servers.append(f"{host}:{port}")
    return ",".join(servers)
