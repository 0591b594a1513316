"""`ccs-replay SOURCE COMMAND`: the command line.

Guarantees: an expected error is one line on stderr that says what to do; exit codes are those of `exit_codes`. Does
not: do the work; each command has a module of its own.
"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import NoReturn

import click

from ccs_stream.protocol.errors import LogDiverged, LogError, MissingHead
from ccs_stream.replay import artifact as artifact_command
from ccs_stream.replay import deliveries as deliveries_command
from ccs_stream.replay import export as export_command
from ccs_stream.replay import info as info_command
from ccs_stream.replay import state as state_command
from ccs_stream.replay import timeline as timeline_command
from ccs_stream.replay import transitions as transitions_command
from ccs_stream.replay import verify as verify_command
from ccs_stream.replay.exit_codes import EXIT_INTERRUPTED, reports_errors
from ccs_stream.replay.output import say, show_error
from ccs_stream.replay.source import Source

POSITION_HELP = """
\b
A position P is one of
  1200                     the number of an event
  -50                      the 50th event from the end
  @2026-11-01T10:00:00Z    a time (UTC unless it names another zone)
  WyJi...                  a position that the library returned
Events that were written together are never split: P stands for the last of
them.
"""
EXIT_CODE_HELP = """
\b
Exit codes: 0 clean, 1 error, 2 usage, 3 findings (of verify),
130 interrupted.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class UnreadableLog:
    """A log that contradicts itself and cannot be opened; `verify` reports that as its one finding."""

    url: str
    workspace: str | None
    error: LogError


class ReplayGroup(click.Group):
    """A group that accepts `--workspace` anywhere: before SOURCE, after it, or after the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move `--workspace` to the front, where click looks for it."""
        first: list[str] = []
        others: list[str] = []
        left = iter(args)
        for arg in left:
            if arg == "--":
                others += [arg, *left]
            elif arg in ("-w", "--workspace"):
                first += [arg, *itertools.islice(left, 1)]
            elif arg.startswith(("--workspace=", "-w")):
                first.append(arg)
            else:
                others.append(arg)
        return super().parse_args(ctx, first + others)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@click.group(
    cls=ReplayGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=POSITION_HELP + EXIT_CODE_HELP,
)
@click.argument("source")
@click.option(
    "-w",
    "--workspace",
    metavar="NAME",
    help="Workspace to read; needed if the log holds several and the URL names none.",
)
@click.version_option(package_name="ccs-stream")
@click.pass_context
def cli(context: click.Context, source: str, workspace: str | None) -> None:
    """Look into the log of a workspace: what happened, what the state was at any time, and whether the log is intact.

    Nothing is ever written to SOURCE. Without COMMAND, `info` runs.

    \b
    SOURCE is one of
      sqlite:///FILE.db                        a log in an SQLite file
      file:ARCHIVE.avro                        what `export` wrote
      kafka://HOST:PORT?prefix=P&workspace=W   a log on Kafka

    On Kafka this joins no consumer group, creates no topic and commits no offset. Without a workspace in the URL or in
    --workspace, the whole log is read to find out which there are.

    \b
    Examples:
      ccs-replay sqlite:///team.db info
      ccs-replay sqlite:///team.db timeline --from -20
      ccs-replay sqlite:///team.db artifact shared/plan
      ccs-replay sqlite:///team.db transitions --artifact shared/plan
      ccs-replay sqlite:///team.db verify
      ccs-replay 'kafka://localhost:9092?workspace=w1' timeline --follow
    """  # noqa: D301  # click reads the escapes: they keep it from filling lines
    try:
        opened = Source.open(source, workspace)
    except (LogDiverged, MissingHead) as error:
        if context.invoked_subcommand != verify.name or not source.startswith("kafka:"):
            raise
        context.obj = UnreadableLog(source, workspace, error)
        return
    context.obj = opened
    context.call_on_close(opened.store.close)
    if context.invoked_subcommand is None:
        info_command.run(opened, as_json=False)


@cli.command()
@as_json
@click.pass_obj
def info(source: Source, *, as_json: bool) -> None:
    """Summarise the log: size, times, agents, events and end.

    On Kafka, it also lists the coordinators that led.
    """
    info_command.run(source, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--from", "first", metavar="P", help="First position to show.")
@click.option("--until", "last", metavar="P", help="Last position to show.")
@click.option("--agent", metavar="NAME", help="Only events of this agent.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only events about this artifact.")
@click.option("--include-void", is_flag=True, help="Also show void records, which every reader skips.")
@click.option("-f", "--follow", is_flag=True, help="At the end, wait for new events; stop with Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; with --follow, one object a line.")
@click.pass_obj
def timeline(  # one name for each option
    source: Source,
    *,
    first: str | None,
    last: str | None,
    agent: str | None,
    artifact: str | None,
    include_void: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """List what happened, one event a line.

    A write over a version that its author had not read is marked as a lost update.
    On Kafka, each change of the leading coordinator is a line too, unless --agent or --artifact is given.
    """
    options = timeline_command.TimelineOptions(first, last, agent, artifact, include_void, follow)
    timeline_command.run(source, options, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--from", "first", metavar="P", help="First position to show.")
@click.option("--until", "last", metavar="P", help="Last position to show.")
@click.option("--agent", metavar="NAME", help="Only grants of this agent.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only grants of this artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, in the form ccs.state_log.v2.")
@click.pass_obj
def transitions(  # one name for each option
    source: Source, *, first: str | None, last: str | None, agent: str | None, artifact: str | None, as_json: bool
) -> None:
    """List how the state of each agent's copy changed, and why.

    \b
    States of a copy:
      M  the agent wrote the current version
      E  the agent holds the only copy of it
      S  the agent holds a copy, and others may too
      I  the agent holds no current copy

    The version in a line is the artifact's version at that moment.
    """  # noqa: D301  # click reads the escapes
    options = transitions_command.TransitionsOptions(first, last, agent, artifact)
    transitions_command.run(source, options, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--at", metavar="P", help="Show the state at this position instead of the end.")
@as_json
@click.pass_obj
def state(source: Source, *, at: str | None, as_json: bool) -> None:
    """Show the state at a position.

    That is each artifact with its version, who holds a copy, reservations, and the hash of all that.
    """
    state_command.run(source, at, as_json=as_json)


@cli.command()
@click.argument("name", metavar="SCOPE/KEY")
@click.option("--content", metavar="V", type=int, help="Print only the content of version V, byte for byte.")
@as_json
@click.pass_obj
def artifact(source: Source, *, name: str, content: int | None, as_json: bool) -> None:
    """List the versions of one artifact.

    Each line says who wrote the version, which version the author had read, when and why.

    SCOPE/KEY is split at each slash. If a part contains a slash itself, write a JSON list: '["a/b", "key"]'.
    """
    artifact_command.run(source, name, content, as_json=as_json)


@cli.command()
@click.option("--agent", metavar="NAME", help="Only deliveries to this agent.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only deliveries of this artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def deliveries(source: Source, *, agent: str | None, artifact: str | None, as_json: bool) -> None:
    """List which agent was given which version of what.

    One delivery a line, in the order of recording, with its time and its source.
    """
    deliveries_command.run(source, agent, artifact, as_json=as_json)


@cli.command()
@click.option(
    "--anchor",
    metavar="F.avro",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An archive of this log (see export); all it holds must still be in the log.",
)
@click.option("--expect-end", metavar="P", help="A position, or SEQUENCE:HASH, that the log must contain.")
@click.option("--no-bodies", is_flag=True, help="Do not read contents, so do not check their hashes.")
@click.option("--no-deliveries", is_flag=True, help="Do not check the deliveries.")
@click.option("--allow-loss", is_flag=True, help="Show lost updates and lost deliveries, but exit with 0.")
@as_json
@click.pass_obj
def verify(  # one name for each option
    source: Source | UnreadableLog,
    *,
    anchor: Path | None,
    expect_end: str | None,
    no_bodies: bool,
    no_deliveries: bool,
    allow_loss: bool,
    as_json: bool,
) -> None:
    """Check every rule that the log must keep.

    The exit code is 3 if one is broken.

    The hash chain finds damage and missing records; with --anchor or --expect-end also a missing end. It does not find
    a forger who recomputes the chain.

    Deliveries are checked against the log. A copy that was delivered as current but had been replaced is a finding. A
    copy that a reader was allowed to get late (it did not ask for the latest) is only counted.

    On Kafka, void records (those that every reader skips) are normal: they are counted and are no findings.
    """
    if isinstance(source, UnreadableLog):
        shown = source.url.partition("?")[0]
        code = verify_command.report_unreadable(shown, source.workspace, source.error, as_json=as_json)
        sys.exit(code)
    options = verify_command.VerifyOptions(
        anchor, expect_end, bodies=not no_bodies, allow_loss=allow_loss, deliveries=not no_deliveries
    )
    sys.exit(verify_command.run(source, options, as_json=as_json))


@cli.command()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="F.avro",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@as_json
@click.pass_obj
def export(source: Source, *, output: Path, force: bool, as_json: bool) -> None:
    """Write the workspace to one file, to keep or to send. Every command here reads that file, as file:F.avro.

    On Kafka several workspaces can share a partition. The file then holds all records of the partition, because one
    record decides whether a later one counts. Of the other workspaces it holds the names of agents and artifacts, and
    the reasons of writes, but no contents.
    """
    export_command.run(source, output, force=force, as_json=as_json)


def main() -> NoReturn:
    """The console script `ccs-replay`."""
    try:
        with reports_errors():
            code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        say("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        show_error(error)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
