"""The tokens that reading through copies saves: those that moved, beside those that would have moved without copies.

`benchmark_summary` and `savings` of a store are made of it. Guarantees: two accounts of the same reads and writes.
`benchmark` has the keys and the rules of agent-coherence 0.6, so that its figures can be compared: only reads count, a
hit costs a token, signals and writes are free. `account` counts everything that moved, by cause, agent and artifact.
Does not: know what a model's context held; a hit saves tokens only where the value is still in it.
"""

import collections
import dataclasses
import enum
from typing import Any

from ccs_stream.projections.tokens import REFERENCE_TOKENS, SIGNAL_TOKENS
from ccs_stream.protocol.ids import Scope


class MovementCause(enum.StrEnum):
    """Why tokens moved."""

    HIT = "hit"
    """A reader held a current copy: a reference."""
    MISS = "miss"
    """A reader was given the whole value."""
    SEARCH = "search"
    """A search handed out the whole value."""
    WRITE = "write"
    """A writer handed in the whole value."""
    PUSH = "push"
    """A holder was given the whole value unasked, because another wrote it."""
    SIGNAL = "signal"
    """Holders of a copy got a signal that the copy is not current any more."""


@dataclasses.dataclass(slots=True, kw_only=True)
class TokenMovement:
    """One cause that moved tokens, or on a hit spared them."""

    cause: MovementCause
    agent: str
    scope: Scope
    key: str
    full: int
    """Tokens of the whole value; for signals, of all signals that were sent."""

    @property
    def tokens(self) -> int:
        """Tokens that moved."""
        return REFERENCE_TOKENS if self.cause is MovementCause.HIT else self.full


def signals(agent: str, scope: Scope, key: str, holders: int) -> TokenMovement:
    """The tokens of the signals of a write, one for each holder of a copy."""
    return TokenMovement(cause=MovementCause.SIGNAL, agent=agent, scope=scope, key=key, full=holders * SIGNAL_TOKENS)


@dataclasses.dataclass(slots=True, kw_only=True)
class TokenAccount:
    """All tokens that moved, and all that would have moved if every read had been in full and no signal sent."""

    baseline: int
    moved: int
    by_cause: dict[str, int]
    by_agent: dict[str, int]
    by_artifact: dict[str, int]
    """By scope and key, as in `("plans",) / q3`."""

    @property
    def saved_pct(self) -> float:
        """Percent of the baseline that did not move; negative where signals and pushes cost more than hits spared."""
        return 0.0 if not self.baseline else round(100 * (1 - self.moved / self.baseline), 2)


class Savings:
    """Adds up what moved. The order does not matter."""

    def __init__(self) -> None:
        self._reads = 0
        self._hits = 0
        self._read_baseline = 0
        self._read_tokens = 0
        self._baseline = 0
        self._by_cause: collections.Counter[str] = collections.Counter()
        self._by_agent: collections.Counter[str] = collections.Counter()
        self._by_artifact: collections.Counter[str] = collections.Counter()

    def add(self, moved: TokenMovement) -> None:
        """Add one movement of tokens."""
        tokens = moved.tokens
        if moved.cause in (MovementCause.HIT, MovementCause.MISS):
            self._reads += 1
            self._hits += moved.cause is MovementCause.HIT
            self._read_baseline += moved.full
            self._read_tokens += tokens
        if moved.cause not in (MovementCause.SIGNAL, MovementCause.PUSH):
            self._baseline += moved.full
        self._by_cause[moved.cause.value] += tokens
        self._by_agent[moved.agent] += tokens
        self._by_artifact[f"{moved.scope} / {moved.key}"] += tokens

    def benchmark(self) -> dict[str, Any]:
        """The summary with agent-coherence's keys and rules."""
        saved = self._read_baseline - self._read_tokens
        return {
            "baseline_tokens": self._read_baseline,
            "ccs_tokens": self._read_tokens,
            "tokens_saved": saved,
            "token_reduction_pct": round(100 * saved / self._read_baseline, 1) if self._read_baseline else 0.0,
            "cache_hit_rate": round(self._hits / self._reads, 3) if self._reads else 0.0,
            "n_operations": self._reads,
        }

    def account(self) -> TokenAccount:
        """The account of everything that moved."""
        return TokenAccount(
            baseline=self._baseline,
            moved=sum(self._by_cause.values()),
            by_cause=dict(sorted(self._by_cause.items())),
            by_agent=dict(sorted(self._by_agent.items())),
            by_artifact=dict(sorted(self._by_artifact.items())),
        )
