"""`ccs-stream topics create|check|describe URL`: create, check and describe the topics of a log on Kafka.

Guarantees: `create` can be repeated and changes nothing that exists; `check` explains each difference. Exit codes: 0
fine, 1 an error or a dangerous difference, 2 wrong usage.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.text import Text

from ccs_stream.log.kafka import topics as kafka_topics
from ccs_stream.log.kafka.clients import Clients
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.topic_check import Severity, TopicFinding, check_topics
from ccs_stream.replay.exit_codes import reports_errors
from ccs_stream.replay.output import PlainTable, console, print_json, say

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
_STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.DANGEROUS: "bold red"}


@contextmanager
def kafka_errors_reported() -> Iterator[None]:
    """As `reports_errors`, and without the warnings of the Kafka client."""
    # The client warns of failures that it retries by itself, such as a broker that has just started; others are raised.
    logging.getLogger("ccs_stream.librdkafka").setLevel(logging.ERROR)
    with reports_errors():
        yield


def clients_of(url: str) -> Clients:
    """The Kafka clients for the log at a URL. Raises `UsageError`."""
    return Clients(KafkaSettings.parse(url))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def topics() -> None:
    """Create, check or describe the topics of a log on Kafka."""


@topics.command()
@click.argument("url")
@click.option("--partitions", type=int, help="Partitions of a new log (default 12). The number can never be changed.")
@click.option("--replication", type=int, help="Copies of each record (default 3, or the number of brokers if fewer).")
@as_json
def create(url: str, *, partitions: int | None, replication: int | None, as_json: bool) -> None:
    """Create the topics that are missing, and open the log. Run it again if it was interrupted.

    Exit codes: 0 the topics are there; 1 an error, such as a log topic that was deleted while its commands topic is
    still there; 2 wrong usage.
    """
    with kafka_errors_reported():
        done = kafka_topics.create(clients_of(url), partitions=partitions, replication=replication)
    if as_json:
        print_json({"done": done})
        return
    for line in done or ["nothing to do: all topics are there, and the log is open"]:
        say(line)


@topics.command()
@click.argument("url")
@as_json
def check(url: str, *, as_json: bool) -> None:
    """Check the settings of the topics, and explain each wrong one.

    Exit codes: 0 nothing dangerous, 1 something dangerous or an error, 2 wrong usage.
    """
    with kafka_errors_reported():
        findings = check_topics(clients_of(url))
    dangerous = any(each.severity is Severity.DANGEROUS for each in findings)
    if as_json:
        listed = [{name: str(getattr(each, name)) for name in each.__slots__} for each in findings]
        print_json({"dangerous": dangerous, "findings": listed})
    else:
        _print_findings([each for each in findings if each.severity is not Severity.OK])
        say(f"{sum(each.severity is Severity.OK for each in findings)} of {len(findings)} are as they should be")
    sys.exit(1 if dangerous else 0)


@topics.command()
@click.argument("url")
@as_json
def describe(url: str, *, as_json: bool) -> None:
    """Show the topics of a log: partitions, copies, settings.

    Exit codes: 0 shown, 1 an error, 2 wrong usage.
    """
    with kafka_errors_reported():
        there = kafka_topics.describe(clients_of(url))
    if as_json:
        listed = {name: {**_described(each), "topic_id": each.topic_id.hex()} for name, each in there.items()}
        print_json(listed)
        return
    table = PlainTable(box=None, pad_edge=False, header_style="bold")
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "partitions": lambda each: str(each["partitions"]),
        "copies": lambda each: str(each["replication"]),
        "min.insync": lambda each: each["config"].get("min.insync.replicas", ""),
        "cleanup": lambda each: each["config"].get("cleanup.policy", ""),
        "retention.ms": lambda each: each["config"].get("retention.ms", ""),
        "largest message": lambda each: each["config"].get("max.message.bytes", ""),
    }
    for column in ("topic", *columns):
        table.add_column(column, justify="left" if column == "topic" else "right", overflow="fold")
    for name, topic in sorted(there.items()):
        table.add_row(name, *(of(_described(topic)) for of in columns.values()))
    console(width=160, soft_wrap=False).print(table)


def _described(topic: kafka_topics.Topic) -> dict[str, Any]:
    return {"partitions": topic.partitions, "replication": topic.replication, "config": dict(topic.config)}


def _print_findings(findings: list[TopicFinding]) -> None:
    if not findings:
        return
    table = PlainTable(box=None, pad_edge=False, header_style="bold")
    for column in ("", "topic", "what", "wanted", "found", "why it matters"):
        table.add_column(column, overflow="fold")
    for each in findings:
        severity = Text(each.severity.value, _STYLES[each.severity])
        table.add_row(severity, each.topic, each.what, each.wanted, each.found, each.explanation)
    console(width=160, soft_wrap=False).print(table)
