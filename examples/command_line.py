"""The command line of the example graphs, and how they print what the store counted.

Guarantees: every number printed was counted in this run. Does not: run anything; `python -m examples.NAME` does.
"""

import argparse
import dataclasses
import itertools
import json
import shlex
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypedDict

from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from ccs_stream.protocol.errors import CcsError

NAMED_MAX = 3
"""So many keys are named in one line; the rest are counted."""


class GraphState(TypedDict, total=False):
    """The state that travels along the edges. What agents share is in the store."""

    turn: int


Graph = CompiledStateGraph[GraphState, None, GraphState, GraphState]


def read(store: BaseStore, agent: str, key: str) -> dict[str, Any]:
    """The value under a key that all agents share."""
    item = store.get((agent, "shared"), key)
    if item is None:
        raise SystemExit(f"error: nothing is shared under {key!r}")
    return item.value


def write(store: BaseStore, agent: str, key: str, value: dict[str, Any]) -> None:
    """Put a value where all agents find it."""
    store.put((agent, "shared"), key, value)


@dataclasses.dataclass(frozen=True, slots=True)
class ExampleOptions:
    """The options of an example."""

    log: str | None
    workspace: str | None
    as_json: bool

    def replay(self) -> str | None:
        """The command that shows the log afterwards; None if the log was in memory."""
        if self.log is None:
            return None
        named = "" if self.workspace is None else f"--workspace {self.workspace} "
        return f"ccs-replay {named}{shlex.quote(self.log)} timeline"


def parse_options(name: str, description: str | None) -> ExampleOptions:
    """Parse the command line of an example."""
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="No API key and no broker is needed: the agents are scripted, and their log is in memory unless you\n"
        "name another. Every run has a workspace of its own, so that one log serves many runs.",
    )
    parser.add_argument(
        "--log",
        metavar="URL",
        help="keep the log there: sqlite:///FILE.db, or kafka://HOST:PORT, "
        "whose log `ccs-stream topics create` has made (default: in memory)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    given = parser.parse_args()
    named_by_url = given.log is not None and "workspace=" in given.log
    workspace = None if named_by_url else f"{name}-{uuid.uuid4().hex[:8]}"
    return ExampleOptions(given.log, workspace, given.json)


def report(
    options: ExampleOptions,
    store: CCSStore,
    events: Sequence[StoreMetricEvent],
    rounds: Iterable[str] | None = None,
    note: str = "",
) -> int:
    """Print what happened and what it cost, after the store was closed; returns the exit code.

    `rounds` are lines to print instead of those made from the events.
    """
    lines = list(reads_and_writes(events) if rounds is None else rounds)
    if options.as_json:
        account = store.savings()
        found = {
            "summary": store.benchmark_summary(),
            "savings": {**dataclasses.asdict(account), "saved_pct": account.saved_pct},
            "rounds": lines,
            "replay": options.replay(),
        }
        print(json.dumps(found, indent=2))
        return 0
    print("\n".join(lines))
    print()
    store.print_benchmark_summary()
    if note:
        print(f"\n{note}")
    if options.replay() is not None:
        print(f"\nthe log is kept: {options.replay()}")
    return 0


def reads_and_writes(events: Iterable[StoreMetricEvent]) -> list[str]:
    """By agent, in the order in which agents first acted: one line for consecutive operations of one kind."""
    by_agent: dict[str, list[StoreMetricEvent]] = {}
    for event in events:
        by_agent.setdefault(event.agent_name, []).append(event)
    lines: list[str] = []
    for agent, done in by_agent.items():
        for (operation, hit), group in itertools.groupby(done, key=lambda each: (each.operation, each.cache_hit)):
            stretch = list(group)
            did = "wrote" if operation == "put" else "read from its copy" if hit else "fetched"
            tokens = sum(each.tokens_consumed for each in stretch)
            lines.append(f"{agent:<12} {did:<18} {_things(stretch)}: {tokens:,} token{'' if tokens == 1 else 's'}")
    return lines


def _things(stretch: Sequence[StoreMetricEvent]) -> str:
    names = list(dict.fromkeys(each.key for each in stretch))
    more = len(names) - NAMED_MAX
    named = ", ".join(names) if more <= 1 else f"{', '.join(names[:NAMED_MAX])} and {more} more"
    return named if len(names) == len(stretch) else f"{named} ({len(stretch)} times)"


def run(example: Callable[[], int]) -> NoReturn:
    """Run an example as a command: an error is one sentence, with exit code 1."""
    try:
        sys.exit(example())
    except (CcsError, OSError) as error:
        sys.exit(f"error: {error}")
