"""`python -m formal.leader_scope`: every history of a few leaders at small scope.

Guarantees: breadth first, so that a broken rule is shown by a shortest history; worlds with the same
future are visited once (compared by 64 bits of hash); from each it is checked that everything heals. Does not: prove
more than it visited.
"""

import argparse
import dataclasses
import gc
import sys
import time

from formal.leader_facts import REAL, Rules
from formal.leader_moves import Move, Scope, begin, heal, moves, step
from formal.leader_mutations import MUTATIONS, REDUNDANT
from formal.leader_world import World
from formal.world import BrokenRule

DEFAULT_SECONDS = 60.0
_BOTH = "topic direct"
SCOPES = (
    Scope(commands={"a1": _BOTH, "b1": _BOTH}, at_most=1, coordinators=3),
    Scope(commands={"a1": _BOTH, "a2?": _BOTH, "b1": _BOTH}, at_most=1),
    Scope(commands={"a1": "direct", "a2": "topic", "b1": "topic", "b2?": "topic"}, at_most=1),
    Scope(commands={"a1": _BOTH, "a2": _BOTH}, at_most=2),
)
"""The commands that are explored: numbers of one session come in any order; a `?` changes nothing."""


@dataclasses.dataclass(slots=True)
class Found:
    """The result of an exploration."""

    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    depth: int = 0
    """Every history of so many moves was explored."""
    exhausted: bool = False
    """True if longer histories reach no other world."""
    broken: str | None = None
    history: tuple[str, ...] = ()

    def describe(self) -> str:
        """How much was explored."""
        histories = f"all histories of {self.depth} moves"
        if self.exhausted:
            histories = f"all histories (nothing new after {self.depth - 1} moves)"
        counted = f"{self.states:,} states, {self.transitions:,} transitions"
        return f"{counted}, {histories}, {self.seconds:.0f} seconds"


class _Exploration:
    """The state of an exploration."""

    def __init__(self, scope: Scope, rules: Rules) -> None:
        self.scope, self.found = scope, Found()
        self.began = time.process_time()
        world = begin(scope, rules)
        self.frontier: list[tuple[int, World]] = [(0, world)]
        self.came: list[tuple[int, str]] = [(0, "")]
        """By number of a world, the world before it and the move between them."""
        self.seen = {hash(world.key()): world.left}
        """By its hash, with how many faults left a world was visited: with fewer, nothing else can follow."""
        self.healed: set[int] = set()

    def deepen(self, deadline: float) -> bool:
        """Explore one more move; False when the time is over, or a rule is broken."""
        following: list[tuple[int, World]] = []
        for number, here in self.frontier:
            if time.process_time() > deadline:
                return False
            for chosen in moves(here, self.scope):
                there = self._try(number, here, chosen)
                if self.found.broken:
                    return False
                if there is not None:
                    following.append((len(self.came) - 1, there))
        self.frontier = following
        self.found.depth += 1
        return True

    def _try(self, number: int, here: World, chosen: Move) -> World | None:
        """Make a move; the world that it leads to, if that is new."""
        self.found.transitions += 1
        label, healing = chosen[0], list[str]()
        try:
            there, label = step(here, chosen)
            key = hash(there.key())
            if self.seen.get(key, -1) >= there.left:
                return None
            self.seen[key] = there.left
            self.came.append((number, label))
            heal(there, key, self.healed, healing)
        except BrokenRule as broken:
            self.found.broken = str(broken)
            self.found.history = (*self._history(number), label, *healing)
            return None
        return there

    def _history(self, number: int) -> tuple[str, ...]:
        labels: list[str] = []
        while number:
            number, label = self.came[number]
            labels.append(label)
        return tuple(reversed(labels))


def explore(scope: Scope, *, seconds: float, depth: int = 1_000, rules: Rules = REAL) -> Found:
    """Explore until the processor time or the depth is used up, or a rule is broken."""
    exploring = _Exploration(scope, rules)
    found = exploring.found
    # Worlds hold no cycles, and looking for some in a million of them takes a third of the time.
    gc.disable()
    try:
        while exploring.frontier and found.depth < depth and exploring.deepen(exploring.began + seconds):
            pass
    finally:
        gc.enable()
    found.states, found.seconds = len(exploring.seen), time.process_time() - exploring.began
    found.exhausted = not exploring.frontier
    return found


def main() -> int:
    """The command line: 0 when every rule held, and every mutation was caught."""
    parser = argparse.ArgumentParser(prog="python -m formal.leader_scope", description=__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="processor time for all scopes")
    parser.add_argument("--mutations", action="store_true", help="then weaken each rule in turn, too")
    chosen = parser.parse_args()
    failed, left = 0, chosen.seconds
    for number, scope in enumerate(SCOPES):
        found = explore(scope, seconds=left / (len(SCOPES) - number))
        left -= found.seconds
        failed += found.broken is not None
        sys.stdout.write(f"{scope.coordinators} coordinators, commands {scope.describe()}: {found.describe()}\n")
        if found.broken:
            sys.stdout.write(f"BROKEN: {found.broken}\n  " + "\n  ".join(found.history) + "\n")
        sys.stdout.flush()
    if chosen.mutations:
        sys.stdout.write("\n")
        failed += _mutations(chosen.seconds)
    return 1 if failed else 0


def _mutations(seconds: float) -> int:
    missed = 0
    sys.stdout.write("rule weakened | commands; faults | caught by | after | states\n---|---|---|---|---\n")
    for name, (rules, scope) in MUTATIONS.items():
        found = explore(scope, seconds=seconds, rules=rules)
        missed += found.broken is None
        caught = found.broken or "NOT CAUGHT"
        row = (name, scope.describe(), caught, "; ".join(found.history), f"{found.states:,}")
        sys.stdout.write(" | ".join(row) + "\n")
    sys.stdout.write("\nrule weakened | commands; faults | not caught | states\n---|---|---|---\n")
    for name, (rules, scope) in REDUNDANT.items():
        found = explore(scope, seconds=seconds, rules=rules)
        missed += found.broken is not None
        verdict = found.broken or "redundant, kept: cheap"
        sys.stdout.write(f"{name} | {scope.describe()} | {verdict} | {found.describe()}\n")
    return missed


if __name__ == "__main__":
    sys.exit(main())
