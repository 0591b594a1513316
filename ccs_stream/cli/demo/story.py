"""The demo as something to read."""

from rich.console import Console

from ccs_stream.cli.demo.outcome import Outcome


def tell_story(outcome: Outcome, out: Console) -> None:
    """Print it."""
    out.print(outcome)
