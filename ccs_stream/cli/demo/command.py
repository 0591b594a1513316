"""The command line of the demo.

Guarantees: results on stdout, messages on stderr, progress on a terminal only; exits 0 if everything held, 1 if
something that must hold did not, 2 for a wrong call. Does not: import the framework before its arguments are checked.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import orjson

from ccs_stream.cli.demo.sources import SourceFiles, collect
from ccs_stream.cli.extras import require_langgraph
from ccs_stream.replay.exit_codes import reports_errors
from ccs_stream.replay.output import console, print_json_text, visible

if TYPE_CHECKING:
    from ccs_stream.cli.demo.result import DemoLog, DemoResult

EPILOG: Final = """
\b
Exit codes: 0 everything held; 1 something that must hold did not, or an
error; 2 wrong usage.

\b
Examples:
  ccs-stream demo
  ccs-stream demo src/ --log sqlite:///review.db
  ccs-stream demo --json | python -m json.tool
"""


@click.command(epilog=EPILOG, short_help="Four agents review files; processes race, stop and die.")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--log", "url", metavar="URL", help="Keep the log here, as in sqlite:///demo.db (default: a new file).")
@click.option("--json", "as_json", is_flag=True, help="Print what happened as one JSON object.")
@reports_errors()
def demo(path: Path | None, url: str | None, *, as_json: bool) -> None:
    """Four agents review source files that they share; then processes race, are stopped and are killed.

    A LangGraph graph reviews the Python files under PATH (default: this package's own source; no file is changed).
    Three reviewers work in parallel; a fourth agent reads their findings and the code. A scripted model takes the place
    of a chat model. Then processes write to the same log at the same time, without and with a guard, and are stopped
    and killed. It takes some five seconds, more for a large PATH.
    """
    require_langgraph("the demo needs", "demo")
    sources = collect(path)
    from ccs_stream.cli.demo.run import check_log  # noqa: PLC0415  # imports the framework

    outcome = _run(sources, check_log(url))
    if as_json:
        print_json_text(orjson.dumps(outcome, option=orjson.OPT_INDENT_2).decode())
    else:
        from ccs_stream.cli.demo.story import PIPE_WIDTH, tell_story  # noqa: PLC0415  # only for people

        tell_story(outcome, console(width=PIPE_WIDTH, soft_wrap=False))
    sys.exit(0 if outcome.held else 1)


def _run(sources: SourceFiles, log: "DemoLog") -> "DemoResult":
    from ccs_stream.cli.demo.run import run_demo  # noqa: PLC0415  # imports the framework

    talk = console(err=True)
    if not talk.is_terminal:
        return run_demo(sources, log, show_progress=lambda _: None)
    with talk.status("starting") as status:
        return run_demo(sources, log, show_progress=lambda said: status.update(visible(said)))
