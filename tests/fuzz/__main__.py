"""`python -m tests.fuzz --minutes 10`: random calls, until the time is over; the faults found, by seed."""

import random
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.fuzz.driver import Report, run_one


@click.command()
@click.option("--minutes", default=1.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="Run this seed only, as a fault names it.")
@click.option("--calls", default=300, show_default=True, help="Calls in one run.")
def main(minutes: float, seed: int | None, calls: int) -> None:
    """Call the public API at random, and say what breaks.

    Exit codes: 0, nothing; 1, a fault was found; 2, wrong usage.
    """
    total, ends = Report(), time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        while True:
            one = run_one(random.randrange(10**9) if seed is None else seed, Path(folder), calls=calls)
            total.add(one)
            for fault in one.faults:
                click.echo(fault.encode("ascii", "backslashreplace").decode())
            if seed is not None or time.monotonic() > ends:
                break
    outcomes = ", ".join(f"{name} {count:,}" for name, count in total.by_outcome.most_common())
    click.echo(f"{total.calls:,} calls ({outcomes}); {len(total.faults)} faults")
    sys.exit(1 if total.faults else 0)


if __name__ == "__main__":
    main()
