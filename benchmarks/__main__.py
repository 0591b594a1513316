"""`python -m benchmarks`: run the benchmarks and print a table for each section."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from benchmarks import (
    codec,
    durable,
    fan_out,
    in_process,
    kafka,
    kafka_rates,
    kafka_start,
    long_log,
    memory,
    search,
    transitions,
    watched,
)
from benchmarks.report import Row, as_json, print_rows
from benchmarks.run import Run
from ccs_stream.adapters.langgraph import LostUpdateWarning

Section = Callable[[Run], Iterator[Row]]
SECTIONS: Final[dict[str, Section]] = {
    "in-process": in_process.rows,
    "fan-out": fan_out.rows,
    "durable": durable.rows,
    "long-log": long_log.rows,
    "memory": memory.rows,
    "search": search.rows,
    "transitions": transitions.rows,
    "codec": codec.rows,
    "watched": watched.rows,
    "kafka": kafka.rows,
    "kafka-rates": kafka_rates.rows,
    "kafka-start": kafka_start.rows,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sections", nargs=-1, type=click.Choice(tuple(SECTIONS)), metavar="[SECTION]...")
@click.option("--quick", is_flag=True, help="Only check that everything runs; the numbers mean nothing.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON document instead of tables.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Put the files of the durable benchmarks into this folder (default: the system's temporary folder).",
)
def main(sections: tuple[str, ...], quick: bool, json_: bool, folder: Path | None) -> None:  # noqa: FBT001
    """Measure the speed of ccs-stream and of stores that do the same work, in the same run, and print ratios.

    \b
    SECTION is one of
      in-process, fan-out, durable, long-log, memory, search, transitions,
      codec, watched, kafka, kafka-rates, kafka-start
    Without a SECTION all run, which takes some twenty minutes.

    \b
    Exit codes: 0 all ran (a missed target is printed, and is not an error),
    1 something failed, 2 wrong usage.
    """  # noqa: D301  # click reads the escapes
    warnings.simplefilter("ignore", LostUpdateWarning)  # blind puts are what is measured
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for name in sections or tuple(SECTIONS):
            place = Path(made) / name
            place.mkdir()
            run = Run(place, quick)
            made_here = list(SECTIONS[name](run))
            run.done()
            rows.extend(made_here)
            if not json_:
                print_rows(name, made_here)
    if json_:
        click.echo(as_json(rows))


if __name__ == "__main__":
    main()
