"""`ccs-stream doctor URL`: check a log on Kafka, and say what to do about each problem.

Guarantees: it writes nothing and joins no group; `--json` prints one document and nothing else on stdout; no output
contains a secret. Exit codes: 0 nothing failed, 1 something failed, 2 wrong usage.
"""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from ccs_stream.cli.kafka.doctor_checks import examine
from ccs_stream.cli.kafka.doctor_report import DoctorReport, Level
from ccs_stream.cli.kafka.topics import as_json, kafka_errors_reported
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.replay.output import PlainTable, console, print_json, progress, say

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAILED: "bold red"}


@click.command(
    short_help="Check a log on Kafka, and say what to do about problems.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("url")
@as_json
@click.option("--quick", is_flag=True, help="Skip the check of the state, which reads the whole log.")
def doctor(url: str, *, as_json: bool, quick: bool) -> None:
    """Check a log on Kafka: connection, topics, rights of this user, coordinators, clocks, and the state.

    It joins no consumer group and writes nothing, so it is safe to run at any time.

    \b
    Example:
      ccs-stream doctor "kafka://broker-1:9092?config=client.properties"

    Exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 wrong usage.
    """  # noqa: D301  # click reads the escapes
    with kafka_errors_reported(), _quiet_log():
        report = examine(KafkaSettings.parse(url), quick=quick, progress=_quiet if as_json else progress)
    if as_json:
        document = {
            "url": report.url,
            "ok": not report.failed,
            "checks": [dataclasses.asdict(each) for each in report.checks],
            "partitions": report.partitions,
        }
        print_json(document)
    else:
        _print(report)
    sys.exit(1 if report.failed else 0)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Silence this package's warnings for a while: the report says the same."""
    log = logging.getLogger("ccs_stream")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _quiet(items: Iterator[Any], _: int) -> Iterator[Any]:
    return items


def _print(report: DoctorReport) -> None:
    out = console()
    table = PlainTable(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for each in report.checks:
        level = Text(each.level.value, _STYLES[each.level])
        table.add_row(each.check, level, each.found, each.advice)
    out.print(table)
    if report.partitions:
        out.print()
        out.print(_partitions(report.partitions))
    counts = {level: sum(each.level is level for each in report.checks) for level in Level}
    out.print()
    say(f"{report.url}: " + ", ".join(f"{count} {level.value}" for level, count in counts.items() if count))


def _partitions(rows: list[dict[str, Any]]) -> Table:
    table = PlainTable(box=None, pad_edge=False, header_style="bold")
    for column in ("partition", "epoch", "leader", "offered by", "undecided", "workspaces", "void", "records"):
        left = column in ("leader", "offered by")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for each in rows:
        leader = "nobody yet" if each["leader"] is None else each["leader"][:8]
        table.add_row(
            str(each["partition"]),
            str(each["epoch"]),
            f"{leader} (resigned)" if each["resigned"] else leader,
            ", ".join(each["offered_by"]) or "nobody",
            str(each["undecided"]),
            str(each["workspaces"]),
            str(each["void"]),
            str(each["ends_at"]),
        )
    return table
