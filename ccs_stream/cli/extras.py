"""Checks for packages that a command needs and that may not be installed.

Guarantees: a missing package is a usage error that says which command installs it. Does not: import the package.
"""

import importlib.util

import click


def require_langgraph(what: str, extra: str) -> None:
    """Raise click's `UsageError` if LangGraph is not installed. `what` begins the message, `extra` installs it."""
    if importlib.util.find_spec("langgraph") is None:
        raise click.UsageError(f"{what} LangGraph: pip install 'ccs-stream[{extra}]'")
