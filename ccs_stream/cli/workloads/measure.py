"""`ccs-benchmark`: run a graph of your own once, and print the tokens that moved.

The command has the name that agent-coherence gave it, so that scripts go on working.

Guarantees: results on stdout, messages on stderr; exits 0 if the graph ran, 1 with `error: ...` on stderr if anything
about it failed, 2 for a wrong call. Does not: change the file, or run the graph more than once.
"""

import asyncio
import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from ccs_stream.cli.extras import require_langgraph
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.limits import shown
from ccs_stream.replay.exit_codes import reports_errors
from ccs_stream.replay.output import print_json_text

if TYPE_CHECKING:
    from ccs_stream.adapters.langgraph import CCSStore

EPILOG = """
\b
Exit codes: 0 the graph ran; 1 it could not be loaded, built or run; 2 wrong
usage.

\b
Example, with a file review.py that contains
  def build(store):
      return builder.compile(store=store)
Run it with
  ccs-benchmark --graph review.py:build --initial-state '{"files": ["a.py"]}'
"""


class GraphFailed(CcsError):
    """The graph could not be loaded, built or run; `__cause__` is the error that its code raised."""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--graph", "place", required=True, metavar="FILE:FUNCTION", help="FUNCTION(store) returns the graph.")
@click.option("--initial-state", "state", default="{}", metavar="JSON", help="The input of the graph.")
@click.option("--log", "url", metavar="URL", help="Keep the log here, as in sqlite:///run.db (default: in memory).")
@click.option("--async", "is_async", is_flag=True, help="Run it with `ainvoke`, for a graph of coroutines.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: `summary` and `savings`.")
@click.option("--traceback", "show_traceback", is_flag=True, help="Print the traceback of an error in the graph.")
@reports_errors()
def main(place: str, state: str, url: str | None, *, is_async: bool, as_json: bool, show_traceback: bool) -> None:
    """Run a LangGraph graph once, on a store that counts tokens, and print how many shared copies saved.

    The store is a `CCSStore`: the first part of a namespace names the agent, the rest names what agents share.
    """
    require_langgraph("a graph needs", "langgraph")
    from ccs_stream.adapters.langgraph import CCSStore  # noqa: PLC0415  # imports the framework

    try:
        build, first_state = _function(place), _state(state)
        with CCSStore(url, benchmark=True) as store:
            _invoke(build, store, first_state, is_async=is_async)
            _print(store, as_json=as_json)
    except CcsError as error:
        if show_traceback:
            traceback.print_exception(error.__cause__ or error)
        raise


def _function(place: str) -> Callable[..., Any]:
    """Load the function from its file. Raises `GraphFailed`."""
    file, colon, name = place.rpartition(":")
    if not colon or not file or not name:
        raise GraphFailed(f"--graph is FILE:FUNCTION, got {shown(place)}")
    path = Path(file)
    if not path.is_file():
        raise GraphFailed(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise GraphFailed(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # it may import what lies beside it
    sys.modules[path.stem] = module  # dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise GraphFailed(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise GraphFailed(f"{file} has no function {name}")
    return found  # type: ignore[no-any-return]


def _state(text: str) -> dict[str, Any]:
    """Parse the first state. Raises `GraphFailed`."""
    try:
        state = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise GraphFailed(f"--initial-state is no JSON: {error}") from error
    if type(state) is not dict:
        raise GraphFailed(f"--initial-state is a JSON object, got {text}")
    return state


def _invoke(build: Callable[..., Any], store: "CCSStore", state: dict[str, Any], *, is_async: bool) -> None:
    try:
        graph = build(store)
        if not hasattr(graph, "invoke") and hasattr(graph, "compile"):
            graph = graph.compile(store=store)
    except Exception as error:
        raise GraphFailed(f"building the graph: {type(error).__name__}: {error}") from error
    if not hasattr(graph, "invoke"):
        raise GraphFailed(f"the function returned a {type(graph).__name__}, which is no graph")
    try:
        if is_async:
            asyncio.run(graph.ainvoke(state))
        else:
            graph.invoke(state)
    except Exception as error:
        raise GraphFailed(f"running the graph: {type(error).__name__}: {error}") from error


def _print(store: "CCSStore", *, as_json: bool) -> None:
    if not as_json:
        store.print_benchmark_summary()
        return
    account = store.savings()
    found = {
        "summary": store.benchmark_summary(),
        "savings": {**dataclasses.asdict(account), "saved_pct": account.saved_pct},
    }
    print_json_text(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
