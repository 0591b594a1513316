"""The command line of the workloads.

Guarantees: results on stdout, messages on stderr; exits 0 if every graph ran, 1 on an error, 2 for a wrong call. Does
not: import the framework before it is known to be installed.
"""

import dataclasses

import click
import orjson
from rich import box

from ccs_stream.cli.extras import require_langgraph
from ccs_stream.replay.exit_codes import reports_errors
from ccs_stream.replay.output import PlainTable, console, print_json_text

EPILOG = """
Exit codes: 0 every graph ran; 1 an error; 2 wrong usage.

\b
Examples:
  ccs-stream workloads
  ccs-stream workloads --json | python -m json.tool
"""


@click.command(epilog=EPILOG, short_help="Run three graphs and print the tokens that shared copies save.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with an object for each graph.")
@reports_errors()
def workloads(*, as_json: bool) -> None:
    """Run three LangGraph graphs whose agents share documents, and print how many tokens shared copies save.

    Each graph runs on this package's store and on the store that LangGraph ships, with a scripted model. "saved"
    follows the rules by which such savings are published: every read and write at its nominal size, compared with the
    tokens that reads and writes moved. "of all" is the stricter account: actual sizes, and 12 tokens for every agent
    that is notified of a write.
    """
    require_langgraph("the workloads need", "demo")
    from ccs_stream.cli.workloads.graphs import WORKLOADS  # noqa: PLC0415  # imports the framework
    from ccs_stream.cli.workloads.run import run  # noqa: PLC0415  # the same

    outcomes = [run(each) for each in WORKLOADS]
    if as_json:
        found = [dataclasses.asdict(each) for each in outcomes]
        print_json_text(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    table = PlainTable(box=box.SIMPLE_HEAD)
    table.add_column("graph")
    for head in ("agents", "reads", "writes", "hit rate", "re-reading", "moved", "saved", "of all", "InMemoryStore"):
        table.add_column(head, justify="right")
    for each in outcomes:
        table.add_row(
            each.name,
            str(each.agents),
            str(each.reads),
            str(each.writes),
            f"{each.hit_rate:.2f}",
            f"{each.baseline_tokens:,}",
            f"{each.tokens:,}",
            f"{each.saving_pct:.2f} %",
            f"{each.account['saved_pct']:.2f} %",
            f"{each.in_memory_store_tokens:,}",
        )
    console(width=120, soft_wrap=False).print(table)
