"""The topics of a log compared with what the log's promises rest on.

`ccs-stream topics check` and `ccs-stream doctor` print the findings.

Guarantees: each setting that a promise depends on is a finding, the good ones included. Does not: change anything.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping

from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.topics import (
    FOREVER,
    MESSAGE_BYTES,
    REPLICATION,
    Topic,
    TopicRequirement,
    describe,
    required_topics,
)


class Severity(enum.StrEnum):
    """How much a difference between the wanted and the actual setting matters."""

    OK = "ok"
    WARNING = "warning"
    """Something promised holds less well than it could."""
    DANGEROUS = "dangerous"
    """Something promised does not hold: the log is not to be used like this."""


@dataclasses.dataclass(frozen=True, slots=True)
class TopicFinding:
    """One setting of one topic: what it should be, and what it is."""

    topic: str
    what: str
    wanted: str
    found: str
    severity: Severity
    explanation: str


Say = Callable[[str, str, str, Severity, str], None]
"""Adds a finding: what was compared, wanted, found, the severity of a difference, and why it matters."""


def check_topics(clients: Clients) -> list[TopicFinding]:
    """Compare every topic of the log with what it should be. Raises `LogUnavailable`, `NotAuthorised`."""
    there = describe(clients)
    found: list[TopicFinding] = []
    log = there.get(clients.names.log)
    for each in required_topics(clients):
        topic = there.get(each.name)
        if topic is None:
            found.append(
                TopicFinding(each.name, "exists", "yes", "no", Severity.DANGEROUS, "run `ccs-stream topics create URL`")
            )
            continue
        found.extend(_compare(each, topic, log))
    return found


def _compare(each: TopicRequirement, topic: Topic, log: Topic | None) -> list[TopicFinding]:
    found: list[TopicFinding] = []

    def say(what: str, want: str, have: str, severity: Severity, explanation: str) -> None:
        found.append(TopicFinding(topic.name, what, want, have, Severity.OK if want == have else severity, explanation))

    if log is not None and each.partitions_of_log:
        say(
            "partitions",
            str(log.partitions),
            str(topic.partitions),
            Severity.DANGEROUS,
            "a workspace's partition must be the same in all of them: make this topic anew with as many as the log",
        )
    if topic.config:
        _compare_settings(each, topic.config, say, is_log=log is not None and topic.name == log.name)
    else:
        found.append(_unread(topic.name))
    _compare_copies(topic, say)
    return found


def _unread(name: str) -> TopicFinding:
    return TopicFinding(
        name,
        "settings",
        "readable",
        "not readable",
        Severity.WARNING,
        "whether retention, compaction and durability are as they must be is not known: allow this user "
        "DescribeConfigs on the topic, or run the check as a user that has it",
    )


def _compare_settings(each: TopicRequirement, config: Mapping[str, str], say: Say, *, is_log: bool) -> None:
    policy = config.get("cleanup.policy", "")
    say(
        "cleanup.policy",
        "compact" if each.compacted else "delete",
        policy,
        Severity.WARNING if each.compacted else Severity.DANGEROUS,
        "grows without end" if each.compacted else "compaction deletes records that readers need, in the middle of it",
    )
    if not each.compacted:
        severity = Severity.DANGEROUS if is_log else Severity.WARNING
        for name in ("retention.ms", "retention.bytes"):
            have = config.get(name, "")
            say(name, FOREVER, have, severity, "the broker deletes the oldest records; a log without its head is lost")
    size = int(config.get("max.message.bytes", "0"))
    if size < MESSAGE_BYTES:
        say(
            "max.message.bytes",
            f"{MESSAGE_BYTES} or more",
            str(size),
            Severity.WARNING,
            "larger decisions and chunks are refused; lower maximum_decision_bytes of new workspaces, or raise this",
        )
    insync = int(config.get("min.insync.replicas", "1"))
    say(
        "min.insync.replicas",
        str(insync) if insync >= 2 else "2 or more",
        str(insync),
        Severity.WARNING,
        "what is acknowledged may be on one broker only",
    )
    say(
        "unclean.leader.election.enable",
        "false",
        config.get("unclean.leader.election.enable", ""),
        Severity.DANGEROUS,
        "a broker that fell behind may become leader, and drop what was acknowledged",
    )


def _compare_copies(topic: Topic, say: Say) -> None:
    copies = str(topic.replication) if topic.replication >= REPLICATION else f"{REPLICATION} or more"
    say(
        "replication",
        copies,
        str(topic.replication),
        Severity.WARNING,
        "the loss of one broker can lose what was acknowledged",
    )
