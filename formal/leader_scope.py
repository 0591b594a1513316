"""`python -m formal.leader_scope`: every history of a few leaders at small scope.

Guarantees: breadth first, so that a broken rule is shown by a shortest history; worlds that nothing to come can tell
apart are visited once (told apart by 64 bits of hash); from each it is tried whether everything heals. Does not: prove
more than it visited.
"""

import argparse
import dataclasses
import sys
import time

from formal.leader_moves import Scope, begin, heal, moves, step
from formal.leader_world import REAL, Rules, World
from formal.world import BrokenRule

DEFAULT_SECONDS = 60.0
HEALS = "from here on everything works"


@dataclasses.dataclass(slots=True)
class Found:
    """What an exploration came to."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    finished: bool = False
    """Whether every history of `depth` moves was explored."""
    exhausted: bool = False
    """Whether there are no longer ones that lead anywhere else."""
    broken: str | None = None
    history: tuple[str, ...] = ()


def explore(scope: Scope, *, seconds: float, depth: int = 1_000, rules: Rules = REAL) -> Found:
    """Explore until the time or the depth is reached, or a rule is broken."""
    found, began = Found(), time.monotonic()
    world = begin(scope, rules)
    seen, healed = {hash((world.left, hash(world.key())))}, set[int]()
    came: list[tuple[int, str]] = [(0, "")]
    """By number of a world, from which one it was come to, and how."""
    frontier: list[tuple[int, World]] = [(0, world)]
    while frontier and found.depth < depth:
        following: list[tuple[int, World]] = []
        for number, here in frontier:
            if time.monotonic() - began > seconds:
                found.states, found.seconds = len(came), time.monotonic() - began
                return found
            for move in moves(here, scope):
                found.transitions += 1
                label = move[0]
                try:
                    there, label = step(here, move)
                    core = hash(there.key())
                    key = hash((there.left, core))
                    if key in seen:
                        continue
                    seen.add(key)
                    came.append((number, label))
                    following.append((len(came) - 1, there))
                    label = f"{label}; {HEALS}"
                    heal(there, core, healed)
                except BrokenRule as broken:
                    found.broken, found.history = str(broken), (*_history(came, number), label)
                    found.states, found.seconds = len(came), time.monotonic() - began
                    return found
        frontier = following
        found.depth += 1
    found.states, found.seconds = len(came), time.monotonic() - began
    found.finished, found.exhausted = True, not frontier
    return found


def _history(came: list[tuple[int, str]], number: int) -> tuple[str, ...]:
    labels: list[str] = []
    while number:
        number, label = came[number]
        labels.append(label)
    return tuple(reversed(labels))


if __name__ == "__main__":
    scope = Scope(commands={"a1": "topic direct", "a2": "topic direct"}, at_most=int(sys.argv[1]))
    print(explore(scope, seconds=float(sys.argv[2])))
