"""The checks of `ccs-stream doctor` that ask the brokers: connection, topics, rights of this user, limits.

Guarantees: nothing is changed; where this user may not look, the finding names the right that is missing. Does not:
read the log.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public
    AclOperation,
    ConfigResource,
    ResourceType,
)

from ccs_stream.cli.kafka.doctor_report import CheckResult, Level
from ccs_stream.log.kafka import topics
from ccs_stream.log.kafka.broker_versions import broker_release, is_unsupported, served_requests
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.topic_check import Severity, check_topics
from ccs_stream.protocol.errors import LogMissing, NotAuthorised

READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE

_LONGEST_DELAY_MS: Final = 3_000
"""Kafka's default of `group.initial.rebalance.delay.ms`."""

# The way there.


def connection(clients: Clients) -> list[CheckResult]:
    """Check that the brokers answer, and how soon. Raises the error if they do not."""
    began = time.monotonic()
    described = clients.admin.describe_cluster(request_timeout=clients.settings.timeout_s)
    cluster = clients.wait_for(f"connecting to {clients.settings.display_url}", described)
    took_ms = (time.monotonic() - began) * 1_000
    user = clients.settings.librdkafka().get("sasl.username")
    who = "" if user is None else f", as user {user}"
    brokers = "1 broker" if len(cluster.nodes) == 1 else f"{len(cluster.nodes)} brokers"
    return [CheckResult("connection", Level.OK, f"{brokers}, cluster {cluster.cluster_id}, in {took_ms:.0f} ms{who}")]


# What there is.


def topics_of(clients: Clients) -> list[CheckResult]:
    """Check the topics against what the promises of the log need."""
    findings = check_topics(clients)
    fine = sum(each.severity is Severity.OK for each in findings)
    checks = [CheckResult("topics", Level.OK, f"{fine} of {len(findings)} settings are as they should be")]
    # The same in several topics is one line.
    alike: dict[tuple[str, str, str, Severity, str], list[str]] = {}
    for each in findings:
        if each.severity is not Severity.OK:
            key = (each.what, each.wanted, each.found, each.severity, each.explanation)
            alike.setdefault(key, []).append(each.topic)
    for (what, wanted, found, severity, explanation), names in alike.items():
        level = Level.FAILED if severity is Severity.DANGEROUS else Level.WARNING
        checks.append(
            CheckResult("topics", level, f"{what} is {found!r}, should be {wanted!r}: {', '.join(names)}", explanation)
        )
    return checks


# What this user may do.


@dataclasses.dataclass(frozen=True, slots=True)
class AccessRole:
    """A role, and the rights it needs on each topic or group."""

    role: str
    purpose: str
    rights: Mapping[str, Sequence[AclOperation]]


def roles(clients: Clients) -> tuple[AccessRole, ...]:
    """The roles that a user can play on a log. docs/kafka.md has the same table."""
    names = clients.names
    seen = {names.readers: (DESCRIBE,)}
    reading = {names.log: (READ,), names.snapshots: (READ,), names.content: (READ,)}
    return (
        AccessRole(
            "reader", "replay, doctor", {**seen, **reading, names.commands: (DESCRIBE,), names.deliveries: (READ,)}
        ),
        AccessRole(
            "client",
            "agents, with coordinator=remote",
            {**seen, **reading, names.commands: (WRITE,), names.content: (READ, WRITE), names.deliveries: (WRITE,)},
        ),
        AccessRole(
            "coordinator",
            "ccs-stream coordinator; with client, an embedded one",
            {
                **seen,
                names.commands: (READ,),
                names.log: (READ, WRITE),
                names.snapshots: (READ, WRITE),
                names.content: (DESCRIBE,),
                names.deliveries: (DESCRIBE,),
                names.coordinators: (READ,),
            },
        ),
    )


def rights(clients: Clients) -> list[CheckResult]:
    """Check which roles this user can play."""
    allowed, missing = _allowed(clients)
    if missing:
        return [
            CheckResult(
                "rights", Level.WARNING, f"not known: there is no {', '.join(missing)}", "make the topics first"
            )
        ]
    checks: list[CheckResult] = []
    if READ not in allowed[clients.names.log]:
        advice = f"give this user Read on {clients.names.log}: every role needs it"
        checks.append(CheckResult("rights", Level.FAILED, "this user may not read the log", advice))
    playable: list[str] = []
    for role in roles(clients):
        lacks = [
            f"{operation.name.title()} on {name}"
            for name, operations in role.rights.items()
            for operation in operations
            if operation not in allowed[name]
        ]
        if lacks:
            text = f"as {role.role} ({role.purpose}) this user lacks {', '.join(lacks)}"
            checks.append(
                CheckResult("rights", Level.OK, text, "give it these rights only if this user is to play that role")
            )
        else:
            playable.append(f"{role.role} ({role.purpose})")
    can = CheckResult("rights", Level.OK, f"this user can be: {', '.join(playable)}")
    cannot = CheckResult(
        "rights", Level.WARNING, "this user can play no role", "give it the rights that one of the roles needs"
    )
    return [can if playable else cannot, *checks]


def _allowed(clients: Clients) -> tuple[dict[str, frozenset[AclOperation]], list[str]]:
    """The rights of this user, by topic and group, and which topics are missing. Nothing where it may not describe."""
    admin, timeout, names = clients.admin, clients.settings.timeout_s, clients.names
    wanted = TopicCollection(list(names.all))
    described: dict[str, Any] = {
        **admin.describe_topics(wanted, include_authorized_operations=True, request_timeout=timeout)
    }
    for group in (names.coordinators, names.readers):
        futures = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=timeout)
        described.update(futures)
    allowed: dict[str, frozenset[AclOperation]] = {}
    missing: list[str] = []
    for name, future in described.items():
        allowed[name] = frozenset()
        try:
            found = clients.wait_for(f"asking what this user may do with {name}", future)
        except LogMissing:
            if name in names.all:  # a group is there once somebody joins it
                missing.append(name)
        except NotAuthorised:
            pass
        else:
            operations = frozenset(found.authorized_operations or ())
            allowed[name] = operations | {DESCRIBE} if operations & {READ, WRITE} else operations
    return allowed, missing


# What the brokers limit.


def limits(clients: Clients) -> list[CheckResult]:
    """Check the settings of the brokers against what coordinators need."""
    described = clients.admin.describe_cluster(request_timeout=clients.settings.timeout_s)
    nodes = clients.wait_for("asking which brokers there are", described).nodes
    resource = ConfigResource(ResourceType.BROKER, str(nodes[0].id))
    future = clients.admin.describe_configs([resource], request_timeout=clients.settings.timeout_s)[resource]
    try:
        entries = clients.wait_for("asking for the settings of a broker", future)
    except NotAuthorised:
        return [
            CheckResult(
                "broker limits",
                Level.WARNING,
                "this user may not see the settings of a broker",
                "allow it DescribeConfigs on the cluster, or let somebody look who has it",
            )
        ]
    found = {name: str(entry.value) for name, entry in entries.items()}
    return list(_limits_in(found, clients.settings, brokers=len(nodes)))


def version(clients: Clients) -> list[CheckResult]:
    """Check the release of the broker, as far as the requests it serves tell it; they do not tell patch releases."""
    what = "broker version"
    found = broker_release(served_requests(clients))
    if found is None:
        return [
            CheckResult(what, Level.WARNING, "not known: the broker does not say what it serves", "look at it there")
        ]
    text = f"Kafka {found}, by what it serves"
    if is_unsupported(found):
        return [CheckResult(what, Level.WARNING, text, "ccs-stream is tested on Kafka 4: upgrade the brokers")]
    return [CheckResult(what, Level.OK, text)]


def _limits_in(found: Mapping[str, str], settings: KafkaSettings, *, brokers: int) -> Iterator[CheckResult]:
    def number(name: str, default: int) -> int:
        value = found.get(name, "")
        return int(value) if value.lstrip("-").isdigit() else default

    problems: list[CheckResult] = []

    def warn(text: str, advice: str, level: Level = Level.WARNING) -> None:
        problems.append(CheckResult("broker limits", level, text, advice))

    low, high = number("group.min.session.timeout.ms", 0), number("group.max.session.timeout.ms", 1 << 31)
    mine = round(settings.session_timeout_s * 1_000)
    if not low <= mine <= high:
        warn(
            f"session_timeout_s is {settings.session_timeout_s:g}, and brokers allow {low / 1e3:g} to {high / 1e3:g}",
            "no coordinator can join the group: set session_timeout_s= in the URL of every coordinator to what brokers "
            "allow, or group.min.session.timeout.ms at the brokers",
            Level.FAILED,
        )
    if (size := number("message.max.bytes", topics.MESSAGE_BYTES)) < topics.MESSAGE_BYTES:
        warn(
            f"message.max.bytes is {size}",
            "topics without a setting of their own take no larger batches; see `topics check` for this log's topics",
        )
    if found.get("auto.create.topics.enable") == "true":
        warn(
            "auto.create.topics.enable is true",
            "a deleted topic comes back empty, and a misspelt one is created, with unwanted settings: switch it off",
        )
    if (delay := number("group.initial.rebalance.delay.ms", 0)) > _LONGEST_DELAY_MS:
        warn(
            f"group.initial.rebalance.delay.ms is {delay}",
            "the first coordinator waits so long before it may lead: lower it",
        )
    copies = number("offsets.topic.replication.factor", 3)
    if copies < min(brokers, topics.REPLICATION):
        warn(
            f"offsets.topic.replication.factor is {copies}",
            "while that broker is away no coordinator can join or prove that it is a member: replicate "
            "__consumer_offsets three times",
        )
    yield from problems
    if not problems:
        limits = f"session time-outs of {low / 1e3:g} to {high / 1e3:g} s, ours is {settings.session_timeout_s:g} s"
        yield CheckResult(
            "broker limits", Level.OK, f"{limits}; messages up to {size} bytes; first join after {delay} ms"
        )
