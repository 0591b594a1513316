"""The command line of the demo.

Guarantees: data on stdout, talk on stderr, progress on a terminal only; exits 0 when everything held, 1 when something
that must hold did not, 2 for a wrong call. Does not: import the framework before its arguments are known to be good.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import orjson
from rich.console import Console

from ccs_stream.cli.demo.sources import SourceFiles, collect
from ccs_stream.cli.extras import require_langgraph
from ccs_stream.protocol.errors import CcsError, UsageError

if TYPE_CHECKING:
    from ccs_stream.cli.demo.result import DemoLog, DemoResult

EPILOG: Final = """
Exit codes: 0 everything held; 1 something that must hold did not, or an error; 2 wrong usage.

\b
Examples:
  ccs-stream demo
  ccs-stream demo src/ --log sqlite:///review.db
  ccs-stream demo --json | python -m json.tool
"""


@click.command(epilog=EPILOG, short_help="Four agents review files; processes race, stop and die.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--log", "url", metavar="URL", help="Keep the log here, as in sqlite:///demo.db; by default a new file.")
@click.option("--json", "as_json", is_flag=True, help="Print what happened as one JSON object.")
def demo(path: Path | None, url: str | None, *, as_json: bool) -> None:
    """See four agents share source files, and processes race, stop and die on one log.

    A real LangGraph graph reviews the Python files under PATH (by default this package's own source; nothing there is
    changed): three reviewers in parallel and one who reads their findings and the code. A scripted model stands where
    a chat model goes. Then processes on the same log write over each other, unguarded and guarded, and are stopped and
    killed. It takes some five seconds, more for a large PATH.
    """
    require_langgraph("the demo needs", "demo")
    try:
        sources = collect(path)
        from ccs_stream.cli.demo.run import check_log  # noqa: PLC0415  # imports the framework

        log = check_log(url)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    except CcsError as error:
        raise click.ClickException(str(error)) from error
    try:
        outcome = _run(sources, log)
    except CcsError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(orjson.dumps(outcome, option=orjson.OPT_INDENT_2).decode())
    else:
        from ccs_stream.cli.demo.story import tell_story  # noqa: PLC0415  # only for people

        tell_story(outcome, Console())
    sys.exit(0 if outcome.held else 1)


def _run(sources: SourceFiles, log: "DemoLog") -> "DemoResult":
    from ccs_stream.cli.demo.run import run_demo  # noqa: PLC0415  # imports the framework

    talk = Console(stderr=True)
    if not talk.is_terminal:
        return run_demo(sources, log, tell=lambda _: None)
    with talk.status("starting") as status:
        return run_demo(sources, log, tell=status.update)
