"""Strategies: which strategy each artifact has, and which copies may be served by it.

The reader asks a `CopyTracker` before it serves a copy; `parse_rules` reads the options of `connect`.

Guarantees: a copy that its strategy calls used up is not served until it was fetched again, and that fetch is a miss;
without strategies that look at copies nothing is kept and nothing is asked. Does not: know whether a copy is current;
the directory does, and `Engine.hit` asks it first.
"""

import dataclasses
import datetime as dt
import fnmatch
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope
from ccs_stream.protocol.limits import shown
from ccs_stream.protocol.strategies import LAZY, Lease, Strategy, TimeUnit, TrackedCopy, build_strategy

COPIES_MAX: Final = 200_000
"""Copies kept track of; a forgotten one is fetched again, which is always right."""

StrategyOption = str | Strategy | Mapping[str, str | Strategy]
"""A name, a strategy, or one for each pattern of `scope/key` (or of the key alone)."""


@dataclasses.dataclass(frozen=True, slots=True)
class StrategyRule:
    """Artifacts whose path matches, and their strategy."""

    pattern: str
    matches: re.Pattern[str]
    whole_path: bool
    strategy: Strategy


class StrategyRules:
    """Which strategy an artifact has: that of the first pattern that matches it, else `lazy`."""

    def __init__(self, rules: tuple[StrategyRule, ...]) -> None:
        self.rules = rules

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """All strategies of the rules."""
        return tuple(rule.strategy for rule in self.rules)

    @property
    def track_copies(self) -> bool:
        """True if any strategy looks at copies."""
        return any(each.tracks_copies for each in self.strategies)

    @property
    def push(self) -> bool:
        """True if any strategy pushes content."""
        return any(each.broadcasts_content_on_commit for each in self.strategies)

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The strategies that are leases."""
        return tuple(each for each in self.strategies if isinstance(each, Lease))

    def of(self, scope: Scope, key: str) -> Strategy:
        """The strategy of an address."""
        for rule in self.rules:
            if rule.matches.match("/".join((*scope, key)) if rule.whole_path else key):
                return rule.strategy
        return LAZY


def parse_rules(
    option: StrategyOption | None,
    *,
    lease_ttl: dt.timedelta | None = None,
    lease_ttl_ticks: int | None = None,
    access_count_max_accesses: int | None = None,
) -> StrategyRules:
    """The rules of the option `strategy=`. Raises `UsageError` for unknown names and unused options."""
    named: Mapping[str, object] = option if isinstance(option, Mapping) else {"*": "lazy" if option is None else option}
    if not named:
        raise UsageError("strategy={} names none: say strategy='lazy', or give patterns such as {'plan': 'lease'}")
    lease_options = {"lease_ttl": lease_ttl, "lease_ttl_ticks": lease_ttl_ticks}
    count_options = {"access_count_max_accesses": access_count_max_accesses}
    by_strategy: dict[str, dict[str, Any]] = {"lease": lease_options, "access_count": count_options}
    used: set[str] = set()
    rules: list[StrategyRule] = []
    for pattern, each in named.items():
        if type(pattern) is not str or not pattern:
            raise UsageError(f"a pattern of strategy= is text such as 'plan' or 'shared/*', got {shown(pattern)}")
        if isinstance(each, Strategy):
            strategy = each
        elif type(each) is str:
            plain = build_strategy(each)
            options = by_strategy.get(plain.name, {})
            used.update(options)
            strategy = build_strategy(each, **options)
        else:
            raise UsageError(f"strategy= takes names or Strategy objects, got {shown(each)} for {pattern!r}")
        rules.append(StrategyRule(pattern, re.compile(fnmatch.translate(pattern)), "/" in pattern, strategy))
    for name, value in {**lease_options, **count_options}.items():
        if value is not None and name not in used:
            owner = "lease" if name in lease_options else "access_count"
            raise UsageError(f"{name} is an option of strategy={owner!r}, which is not used here")
    return StrategyRules(tuple(rules))


class CopyTracker:
    """Tracks the copies of one process. For all threads: each operation is one step of a dictionary."""

    def __init__(self, rules: StrategyRules, clock: Callable[[], Micros]) -> None:
        self.rules = rules
        self.active = rules.track_copies
        """True if `may_serve` must be called before a copy is served."""
        self.ticks = 0
        """Number of calls so far."""
        self._counter = itertools.count(1)
        self._clock = clock
        self._strategies: dict[ArtifactId, Strategy] = {}
        self._kept: dict[tuple[str, ArtifactId], TrackedCopy] = {}
        self._forgotten: set[tuple[str, ArtifactId]] = set()

    def tick(self) -> int:
        """Count a call; returns its number."""
        self.ticks = tick = next(self._counter)
        return tick

    def strategy(self, artifact: ArtifactId, scope: Scope, key: str) -> Strategy:
        """The strategy of an artifact."""
        found = self._strategies.get(artifact)
        if found is None:
            if len(self._strategies) >= COPIES_MAX:
                self._strategies.clear()
            found = self._strategies[artifact] = self.rules.of(scope, key)
        return found

    def may_serve(self, agent: str, artifact: ArtifactId, scope: Scope, key: str, tick: int | None = None) -> bool:
        """True if a current copy may be served as it is, at `tick` (by default now). Call it only where `active`."""
        name = (agent, artifact)
        if name in self._forgotten:
            return False
        strategy = self.strategy(artifact, scope, key)
        if not strategy.tracks_copies:
            return True
        copy = self._kept.get(name)
        return copy is not None and not strategy.requires_refresh(copy, self._now(strategy, tick))

    def served(self, agent: str, artifact: ArtifactId, scope: Scope, key: str) -> None:
        """Record that the copy was served: that counts towards `access_count`, and starts a lease."""
        copy = self._kept.get((agent, artifact))
        if copy is not None:
            strategy = self.strategy(artifact, scope, key)
            strategy.on_read(copy, self._now(strategy))

    def fetched(self, agent: str, artifact: ArtifactId, scope: Scope, key: str) -> None:
        """Record that a new copy was fetched, pushed or written."""
        name = (agent, artifact)
        if self._forgotten:
            self._forgotten.discard(name)
            self.active = self.rules.track_copies or bool(self._forgotten)
        strategy = self.strategy(artifact, scope, key)
        if strategy.tracks_copies:
            if len(self._kept) >= COPIES_MAX:
                for old in list(itertools.islice(self._kept, COPIES_MAX // 10)):
                    self._kept.pop(old, None)
            self._kept[name] = strategy.on_fetch(self._now(strategy))

    def forget(self, agent: str, artifacts: set[ArtifactId]) -> None:
        """Have the agent's copies of these artifacts fetched again before they are served."""
        self._forgotten.update((agent, artifact) for artifact in artifacts)
        self.active = self.active or bool(artifacts)

    def _now(self, strategy: Strategy, tick: int | None = None) -> int:
        if strategy.unit is TimeUnit.MICROSECONDS:
            return self._clock()
        return self.ticks if tick is None else tick
