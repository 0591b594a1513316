"""What a command needs that may not be installed.

Guarantees: its absence is a wrong call that says what to type. Does not: import it.
"""

import importlib.util

import click


def require_langgraph(what: str, extra: str) -> None:
    """Raise `UsageError` of click where LangGraph is not installed; `what` needs it, and `extra` brings it."""
    if importlib.util.find_spec("langgraph") is None:
        raise click.UsageError(f"{what} LangGraph: pip install 'ccs-stream[{extra}]'")
