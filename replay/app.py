"""`ccs-replay SOURCE COMMAND`: the command line.

Guarantees: expected errors are one line on stderr, with what to do; exit codes are 0 clean, 1 error, 2 usage, 3
findings. Does not: do the work; each command has a module of its own.
"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import NoReturn

import click

from ccs_stream.protocol.errors import CcsError, LogDiverged, LogError, MissingHead, UsageError
from ccs_stream.replay import artifact as artifact_command
from ccs_stream.replay import deliveries as deliveries_command
from ccs_stream.replay import export as export_command
from ccs_stream.replay import info as info_command
from ccs_stream.replay import state as state_command
from ccs_stream.replay import timeline as timeline_command
from ccs_stream.replay import transitions as transitions_command
from ccs_stream.replay import verify as verify_command
from ccs_stream.replay.source import Source

POSITION_HELP = """
\b
A position P is
  1200                     a sequence number
  -50                      so many events before the end
  @2026-11-01T10:00:00Z    a time (UTC unless it says otherwise)
  WyJi...                  a position token that the library returned
A sequence inside a decision stands for the decision's end.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class UnreadableLog:
    """A log that contradicts itself so much that it cannot be opened: for `verify`, a finding."""

    url: str
    workspace: str | None
    error: LogError


class ReplayGroup(click.Group):
    """A group whose `--workspace` may stand anywhere: before SOURCE, behind it, or behind the command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments with `--workspace` first, where click looks for it."""
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
    epilog=POSITION_HELP + "\nExit codes: 0 clean, 1 error, 2 usage, 3 findings (verify), 130 interrupted.",
)
@click.argument("source")
@click.option(
    "-w",
    "--workspace",
    metavar="NAME",
    help="Workspace to read; needed where the log holds several, unless a Kafka URL names it.",
)
@click.version_option(package_name="ccs-stream")
@click.pass_context
def cli(context: click.Context, source: str, workspace: str | None) -> None:
    """Read a coherence log: what happened, what the state was, and whether it holds together.

    \b
    SOURCE is opened read-only. It is one of
      sqlite:///FILE.db
      file:ARCHIVE.avro
      kafka://HOST:PORT?prefix=P&workspace=W

    On Kafka it joins no group, makes no topic and commits nothing. A workspace that neither the URL nor --workspace
    names is looked for by reading the whole log.

    \b
    Examples:
      ccs-replay sqlite:///team.db info
      ccs-replay sqlite:///team.db timeline --from -20
      ccs-replay sqlite:///team.db artifact shared/plan
      ccs-replay sqlite:///team.db transitions --artifact shared/plan
      ccs-replay sqlite:///team.db verify
      ccs-replay 'kafka://localhost:9092?workspace=release-42' timeline --from -20 --follow
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
    """What the log holds: size, time, agents, events by kind, its end; who led it."""
    info_command.run(source, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--from", "first", metavar="P", help="Begin at this position.")
@click.option("--until", "last", metavar="P", help="End with this position.")
@click.option("--agent", metavar="NAME", help="Only what this agent did.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only what concerns this artifact.")
@click.option("--include-void", is_flag=True, help="Show records that were never applied, too; else they are counted.")
@click.option("-f", "--follow", is_flag=True, help="After the end, print what comes, until interrupted (exit 130).")
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
    """What happened, an event a line; lost updates are marked.

    Where leaders claim, claims and resignations are lines, too, unless --agent or --artifact choose among events.
    """
    options = timeline_command.TimelineOptions(first, last, agent, artifact, include_void, follow)
    timeline_command.run(source, options, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--from", "first", metavar="P", help="Begin at this position.")
@click.option("--until", "last", metavar="P", help="End with this position.")
@click.option("--agent", metavar="NAME", help="Only this agent's grants.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only grants of this artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, as a store's state log (ccs.state_log.v2).")
@click.pass_obj
def transitions(  # one name for each option
    source: Source, *, first: str | None, last: str | None, agent: str | None, artifact: str | None, as_json: bool
) -> None:
    """Which grant went from which state to which, and why: the state log, derived from the log.

    States are M (wrote the current version), E (the only one to hold it), S (holds it as others may) and I (holds
    nothing). A version is that of the artifact at that moment.
    """
    options = transitions_command.TransitionsOptions(first, last, agent, artifact)
    transitions_command.run(source, options, as_json=as_json)


@cli.command(epilog=POSITION_HELP)
@click.option("--at", metavar="P", help="The state at this position; the end, without.")
@as_json
@click.pass_obj
def state(source: Source, *, at: str | None, as_json: bool) -> None:
    """The state at a point: artifacts, who holds what, reservations, and its hash."""
    state_command.run(source, at, as_json=as_json)


@cli.command()
@click.argument("name", metavar="SCOPE/KEY")
@click.option("--content", metavar="V", type=int, help="Print the body of version V, byte for byte, and nothing else.")
@as_json
@click.pass_obj
def artifact(source: Source, *, name: str, content: int | None, as_json: bool) -> None:
    """The versions of one artifact: who wrote them, over what, when and why.

    SCOPE/KEY is split at each slash; where a part holds a slash itself, give a JSON list: '["a/b", "key"]'.
    """
    artifact_command.run(source, name, content, as_json=as_json)


@cli.command()
@click.option("--agent", metavar="NAME", help="Only what this agent was given.")
@click.option("--artifact", metavar="SCOPE/KEY", help="Only what concerns this artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def deliveries(source: Source, *, agent: str | None, artifact: str | None, as_json: bool) -> None:
    """Who was given which version of what, when, and from where; a delivery a line, in the order of recording."""
    deliveries_command.run(source, agent, artifact, as_json=as_json)


@cli.command()
@click.option(
    "--anchor",
    metavar="F.avro",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An archive of this log: what it holds must still be here.",
)
@click.option("--expect-end", metavar="P", help="A position token, or SEQUENCE:HASH, that must be in the log.")
@click.option("--no-bodies", is_flag=True, help="Do not read bodies; their hashes are then not checked.")
@click.option("--no-deliveries", is_flag=True, help="Do not check who was given what.")
@click.option("--allow-loss", is_flag=True, help="Exit 0 for lost updates and deliveries; they are still shown.")
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
    """Check every invariant; exit 3 on findings.

    The hash chain finds accidents, and with an anchor a cut log. It does not find a forger who recomputes it.

    Where it is recorded who was given what, that is checked, too: a copy given as current that had been replaced is a
    finding; one given by a reader who asked for less than the latest is counted as stale within its bound.

    Where leaders claim, void records are ordinary: they are counted by verdict, and are no findings.
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
    "-o", "--output", required=True, metavar="F.avro", type=click.Path(dir_okay=False, path_type=Path), help="Where to."
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@as_json
@click.pass_obj
def export(source: Source, *, output: Path, force: bool, as_json: bool) -> None:
    """Write the workspace to one file, to keep or send: an archive, which every command here reads.

    On Kafka, where workspaces come to share a partition, the file holds all records of the partition, because one
    decides whether another counts. Bodies are only those of the workspace; names of agents and artifacts, and reasons,
    of the others are in it.
    """
    export_command.run(source, output, force=force, as_json=as_json)


def main() -> NoReturn:
    """The console script."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        click.echo(f"usage: {error}", err=True)
        sys.exit(2)
    except (CcsError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
