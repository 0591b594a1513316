"""`python -m formal.small_scope`: every interleaving at small scope.

Guarantees: breadth first, so that a broken rule is shown by a shortest history; states with the same future
are visited once. Prints how many states and transitions it visited and how deep it came. Does not: prove more
than it visited.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Hashable

from formal.mutations import MUTATIONS, real_decide, real_fold
from formal.world import BrokenRule, Decide, Fold, World, begin, moves, step

DEFAULT_SECONDS = 30.0


@dataclasses.dataclass(slots=True)
class Found:
    """The result of an exploration."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    finished: bool = False
    """True if every history of `depth` moves was explored."""
    broken: str | None = None
    history: tuple[str, ...] = ()


def explore(  # the size of the scope
    *,
    participants: int,
    artifacts: int,
    seconds: float,
    depth: int = 1_000,
    decide: Decide = real_decide,
    fold: Fold = real_fold,
) -> Found:
    """Explore until the time or the depth is reached, or a rule is broken."""
    found = Found()
    deadline = time.monotonic() + seconds
    world = begin(participants, artifacts, decide, fold)
    seen: set[Hashable] = {world.key()}
    frontier: list[tuple[World, tuple[str, ...]]] = [(world, ())]
    found.states = 1
    while frontier and found.depth < depth:
        following: list[tuple[World, tuple[str, ...]]] = []
        for here, history in frontier:
            if time.monotonic() > deadline:
                return found
            for name, agent, command in moves(here):
                found.transitions += 1
                try:
                    there = step(here, agent, command, decide, fold)
                except BrokenRule as broken:
                    found.broken, found.history = str(broken), (*history, name)
                    return found
                key = there.key()
                if key not in seen:
                    seen.add(key)
                    found.states += 1
                    following.append((there, (*history, name)))
        frontier = following
        found.depth += 1
    found.finished = True
    return found


def main() -> int:
    """The command line: 0 when every rule held, and every mutation was caught."""
    parser = argparse.ArgumentParser(prog="python -m formal.small_scope", description=__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="time for each exploration")
    parser.add_argument("--mutations", action="store_true", help="weaken each rule in turn instead")
    chosen = parser.parse_args()
    if chosen.mutations:
        return _mutations(chosen.seconds)
    for participants, artifacts in ((2, 1), (3, 1), (2, 2)):
        found = explore(participants=participants, artifacts=artifacts, seconds=chosen.seconds / 3)
        sys.stdout.write(
            f"{participants} participants, {artifacts} artifacts: {found.states:,} states, "
            f"{found.transitions:,} transitions, all histories of {found.depth} moves\n"
        )
        if found.broken:
            sys.stdout.write(f"BROKEN: {found.broken}\n  " + "\n  ".join(found.history) + "\n")
            return 1
    return 0


def _mutations(seconds: float) -> int:
    missed = 0
    sys.stdout.write("| rule weakened | caught by | after | states |\n|---|---|---|---|\n")
    for name, (decide, fold) in MUTATIONS.items():
        found = explore(participants=3, artifacts=1, seconds=seconds, decide=decide, fold=fold)
        missed += found.broken is None
        caught = found.broken or "NOT CAUGHT"
        sys.stdout.write(f"| {name} | {caught} | {'; '.join(found.history)} | {found.states:,} |\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
