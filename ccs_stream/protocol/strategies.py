"""Strategies: when a client may serve its copy of an artifact, and when it fetches the artifact again.

`client.cache.copy_tracker` asks them. Guarantees: a strategy looks at one copy and the time, and at nothing else; it
never changes what is in the directory. Does not: know of invalidations; a copy that was invalidated is forgotten, and
so is fetched again under every strategy.

Source of the names and of the truth table: agent-coherence 0.6 (`docs/strategies.md` holds the table, tested per cell).
"""

import dataclasses
import datetime as dt
import enum
from typing import Final, Literal, assert_never, get_args

from ccs_stream.protocol.errors import UsageError, unknown_name
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import INT64_MAX, check_duration_us, shown

LEASE_TTL_TICKS: Final = 300
"""Default life of a lease, in calls of the store."""
ACCESS_COUNT_MAX_ACCESSES: Final = 100
"""Default number of times a copy is served."""


class TimeUnit(enum.StrEnum):
    """The unit of a strategy's time."""

    NONE = "none"
    TICKS = "ticks"
    """Calls of the store or workspace; a batch is one."""
    MICROSECONDS = "microseconds"


@dataclasses.dataclass(slots=True)
class TrackedCopy:
    """A current copy that a client holds for one agent. Times are in the strategy's unit."""

    acquired_at: int
    access_count: int = 0
    """How often it was served since it was fetched."""
    expires_at: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The base of all: serve the copy as long as it is current. As it stands it is `lazy`."""

    name: str = "lazy"
    broadcasts_content_on_commit: bool = False
    """True if others are given the new content at once."""
    pushes_to_everybody: bool = False
    """Of those that broadcast: also to agents that never read the artifact."""
    unit: TimeUnit = TimeUnit.NONE

    def requires_refresh(self, copy: TrackedCopy, now: int) -> bool:
        """True if the copy, though current as far as is known, must be fetched again before it is served."""
        del copy, now
        return False

    def on_fetch(self, now: int) -> TrackedCopy:
        """Make the copy of a fetch."""
        return TrackedCopy(now)

    def on_read(self, copy: TrackedCopy, now: int) -> None:
        """Note that the copy was served."""
        del now
        copy.access_count += 1

    @property
    def tracks_copies(self) -> bool:
        """True if it needs to know more of a copy than that it is current."""
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Strategy):
    """A copy is served until its time is over, and then fetched again."""

    name: str = "lease"
    ttl: int = LEASE_TTL_TICKS
    unit: TimeUnit = TimeUnit.TICKS

    def requires_refresh(self, copy: TrackedCopy, now: int) -> bool:
        return copy.expires_at is None or now >= copy.expires_at

    def on_fetch(self, now: int) -> TrackedCopy:
        return TrackedCopy(now, expires_at=now + self.ttl)

    def on_read(self, copy: TrackedCopy, now: int) -> None:
        copy.access_count += 1
        if copy.expires_at is None:  # an end is set once and not moved by later reads
            copy.expires_at = now + self.ttl

    @property
    def tracks_copies(self) -> bool:
        return True

    @property
    def ttl_us(self) -> Micros | None:
        """The time in microseconds; None where it is in ticks."""
        return Micros(self.ttl) if self.unit is TimeUnit.MICROSECONDS else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccessCount(Strategy):
    """A copy is served so many times, and then fetched again."""

    name: str = "access_count"
    max_accesses: int = ACCESS_COUNT_MAX_ACCESSES

    def requires_refresh(self, copy: TrackedCopy, now: int) -> bool:
        del now
        return copy.access_count >= self.max_accesses

    @property
    def tracks_copies(self) -> bool:
        return True


LAZY: Final = Strategy()
EAGER: Final = Strategy(name="eager", broadcasts_content_on_commit=True)
BROADCAST: Final = Strategy(name="broadcast", broadcasts_content_on_commit=True, pushes_to_everybody=True)

StrategyName = Literal["lazy", "eager", "lease", "access_count", "broadcast"]
NAMES: Final[tuple[StrategyName, ...]] = get_args(StrategyName)
_ALIASES: Final[dict[str, StrategyName]] = {"access-count": "access_count", "accesscount": "access_count"}


def lease(ttl: dt.timedelta | None = None, *, ttl_ticks: int | None = None) -> Lease:
    """A lease for a time, or for so many calls (300 unless given). Raises `UsageError`."""
    if ttl is not None and ttl_ticks is not None:
        raise UsageError("a lease has a time (ttl) or a number of calls (ttl_ticks): give one of them")
    if ttl is not None:
        if not isinstance(ttl, dt.timedelta):
            raise UsageError(
                f"the time of a lease is a timedelta, such as timedelta(seconds=30), got {shown(ttl)}; "
                "for a number of calls say lease_ttl_ticks="
            )
        ttl_us = ttl // dt.timedelta(microseconds=1)
        if ttl_us < 1:
            raise UsageError(f"the time of a lease is more than 0, got {shown(ttl)}")
        check_duration_us(ttl_us, "the time of a lease, in microseconds,")
        return Lease(ttl=ttl_us, unit=TimeUnit.MICROSECONDS)
    ticks = _count(LEASE_TTL_TICKS if ttl_ticks is None else ttl_ticks, "lease_ttl_ticks")
    return Lease(ttl=ticks)


def access_count(max_accesses: int | None = None) -> AccessCount:
    """A strategy that serves a copy so many times (100 unless given). Raises `UsageError`."""
    limit = ACCESS_COUNT_MAX_ACCESSES if max_accesses is None else max_accesses
    limit = _count(limit, "access_count_max_accesses")
    return AccessCount(max_accesses=limit)


def build_strategy(
    name: str,
    *,
    lease_ttl: dt.timedelta | None = None,
    lease_ttl_ticks: int | None = None,
    access_count_max_accesses: int | None = None,
) -> Strategy:
    """The strategy of a name or alias; case and spaces around the name do not matter.

    Raises `UsageError`, also for an option of another strategy.
    """
    wanted = _strategy_name(name)
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
        case "lazy":
            return LAZY
        case _:
            assert_never(wanted)


def _strategy_name(name: object) -> StrategyName:
    if type(name) is not str:
        raise UsageError(f"a strategy is named by one of {', '.join(NAMES)}, got {shown(name)}")
    wanted = name.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in NAMES:
        raise unknown_name(name, NAMES, what="unknown strategy")
    return wanted


def _count(number: object, what: str) -> int:
    if type(number) is not int or not 1 <= number <= INT64_MAX:
        raise UsageError(f"{what} is a whole number, 1 or more, at most {INT64_MAX}, got {shown(number)}")
    return number
