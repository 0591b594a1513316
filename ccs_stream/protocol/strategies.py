"""Strategies: when a client may serve its copy of an artifact, and when it fetches.

Guarantees: a strategy looks at one copy and the time, and at nothing else; it never changes what is in the directory.
Does not: serve a copy that was invalidated; under every strategy that one is fetched again.

Source of the names and of the truth table: agent-coherence 0.6 (`docs/strategies.md` holds the table, tested per cell).
"""

import dataclasses
import datetime as dt
import difflib
import enum
from typing import Final

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Micros

LEASE_TTL_TICKS: Final = 300
"""Default life of a lease, in calls of the store."""
ACCESS_COUNT_MAX_ACCESSES: Final = 100
"""Default number of times a copy is served."""


class Unit(enum.StrEnum):
    """What a strategy's time is counted in."""

    NONE = "none"
    TICKS = "ticks"
    """Calls of the store or workspace; a batch is one."""
    MICROSECONDS = "microseconds"


@dataclasses.dataclass(slots=True)
class Copy:
    """What a client knows of a copy it holds for one agent. Times are in the strategy's unit."""

    acquired_at: int
    valid: bool = True
    """Whether the directory records a grant: state M, E or S rather than I."""
    access_count: int = 0
    """How often it was served since it was fetched."""
    expires_at: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The base of all: serve what is valid. As it stands it is `lazy`."""

    name: str = "lazy"
    invalidates_peers_on_commit: bool = True
    """Whether others merely learn that their copy is not current."""
    broadcasts_content_on_commit: bool = False
    """Whether others are given the new content at once."""
    broadcasts_every_tick: bool = False
    """In the simulation: whether everything is given to everybody at every tick."""
    pushes_to_everybody: bool = False
    """Of those that broadcast: also to agents that never read the artifact."""
    staleness_bound: int | None = None
    """Steps (reads, or units of its time) a copy may be behind if a signal is lost; None for unbounded."""
    unit: Unit = Unit.NONE

    def requires_refresh(self, copy: Copy, now: int) -> bool:
        """Whether the copy must be fetched again before it is served."""
        del now
        return not copy.valid

    def on_fetch(self, now: int) -> Copy:
        """A new copy."""
        return Copy(now)

    def on_read(self, copy: Copy, now: int) -> None:
        """The copy was served."""
        del now
        copy.access_count += 1

    @property
    def tracks_copies(self) -> bool:
        """Whether it needs to know more of a copy than that it is valid."""
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Strategy):
    """A copy is served until its time is over, and then fetched again, invalidated or not."""

    name: str = "lease"
    ttl: int = LEASE_TTL_TICKS
    unit: Unit = Unit.TICKS

    def requires_refresh(self, copy: Copy, now: int) -> bool:
        return not copy.valid or copy.expires_at is None or now >= copy.expires_at

    def on_fetch(self, now: int) -> Copy:
        return Copy(now, expires_at=now + self.ttl)

    def on_read(self, copy: Copy, now: int) -> None:
        copy.access_count += 1
        if copy.expires_at is None:  # never renewed
            copy.expires_at = now + self.ttl

    @property
    def tracks_copies(self) -> bool:
        return True

    @property
    def ttl_us(self) -> Micros | None:
        """The time in microseconds, where it is not in ticks."""
        return Micros(self.ttl) if self.unit is Unit.MICROSECONDS else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccessCount(Strategy):
    """A copy is served so many times, and then fetched again."""

    name: str = "access_count"
    max_accesses: int = ACCESS_COUNT_MAX_ACCESSES

    def requires_refresh(self, copy: Copy, now: int) -> bool:
        del now
        return not copy.valid or copy.access_count >= self.max_accesses

    @property
    def tracks_copies(self) -> bool:
        return True


LAZY: Final = Strategy()
EAGER: Final = Strategy(
    name="eager", invalidates_peers_on_commit=False, broadcasts_content_on_commit=True, staleness_bound=0
)
BROADCAST: Final = Strategy(
    name="broadcast",
    invalidates_peers_on_commit=False,
    broadcasts_content_on_commit=True,
    broadcasts_every_tick=True,
    pushes_to_everybody=True,
    staleness_bound=0,
)

NAMES: Final = ("lazy", "eager", "lease", "access_count", "broadcast")
_ALIASES: Final = {"access-count": "access_count", "accesscount": "access_count"}


def lease(ttl: dt.timedelta | None = None, *, ttl_ticks: int | None = None) -> Lease:
    """A lease of a time, or of so many calls (300 unless given). Raises `UsageError`."""
    if ttl is not None and ttl_ticks is not None:
        raise UsageError("a lease has a time (ttl) or a number of calls (ttl_ticks): give one of them")
    if ttl is not None:
        if not isinstance(ttl, dt.timedelta):
            raise UsageError(
                f"the time of a lease is a timedelta, such as timedelta(seconds=30), got {ttl!r}; "
                "for a number of calls say lease_ttl_ticks="
            )
        ttl_us = ttl // dt.timedelta(microseconds=1)
        if ttl_us < 1:
            raise UsageError(f"the time of a lease is more than 0, got {ttl!r}")
        return Lease(ttl=ttl_us, unit=Unit.MICROSECONDS, staleness_bound=ttl_us)
    ticks = _count(LEASE_TTL_TICKS if ttl_ticks is None else ttl_ticks, "lease_ttl_ticks")
    return Lease(ttl=ticks, staleness_bound=ticks)


def access_count(max_accesses: int | None = None) -> AccessCount:
    """So many times (100 unless given). Raises `UsageError`."""
    limit = ACCESS_COUNT_MAX_ACCESSES if max_accesses is None else max_accesses
    limit = _count(limit, "access_count_max_accesses")
    return AccessCount(max_accesses=limit, staleness_bound=limit)


def build_strategy(
    name: str,
    *,
    lease_ttl: dt.timedelta | None = None,
    lease_ttl_ticks: int | None = None,
    access_count_max_accesses: int | None = None,
) -> Strategy:
    """The strategy of a name or alias, case and spaces around it aside. Raises `UsageError`, options of others too."""
    if type(name) is not str:
        raise UsageError(f"a strategy is named by one of {', '.join(NAMES)}, got {name!r}")
    wanted = name.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in NAMES:
        near = difflib.get_close_matches(wanted, NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(NAMES)}"
        raise UsageError(f"unknown strategy {name!r}: {hint}")
    if wanted != "lease" and (lease_ttl is not None or lease_ttl_ticks is not None):
        raise UsageError(f"lease_ttl and lease_ttl_ticks are options of strategy='lease', not of {wanted!r}")
    if wanted != "access_count" and access_count_max_accesses is not None:
        raise UsageError(f"access_count_max_accesses is an option of strategy='access_count', not of {wanted!r}")
    match wanted:
        case "lease":
            return lease(lease_ttl, ttl_ticks=lease_ttl_ticks)
        case "access_count":
            return access_count(access_count_max_accesses)
        case "eager":
            return EAGER
        case "broadcast":
            return BROADCAST
        case _:
            return LAZY


def _count(number: object, what: str) -> int:
    if type(number) is not int or number < 1:
        raise UsageError(f"{what} is a whole number, 1 or more, got {number!r}")
    return number
