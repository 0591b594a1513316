"""Crash recovery: what a silent or endless holder loses, and the task that sees to it.

`crash_recovery=CrashRecoveryConfig(enabled=True)` of `ccs_stream.connect` and of the stores turns it on.

Guarantees: every limit is checked when it is given. While a workspace with crash recovery is open, this process renews
its session as long as it holds a grant in M or E, and takes back what others may no longer hold; nobody has to call
anything. What was lost is an event that every cache folds: a reclaimed copy is served to nobody, and a late write of
its holder is refused with the reason and the time. Does not: notice a process that is alive and stuck; the maximum hold
does. A process that cannot reach the log loses its grants, because nobody hears its heartbeats.

How: a periodic task `ccs-heartbeat`, which may block on the log.
"""

import dataclasses
import logging
import math
import weakref
from typing import Final

from ccs_stream.background import UNTIL_WOKEN, PeriodicTask, WorkerHealth
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import Steps
from ccs_stream.clock import SYSTEM_CLOCK, Clock
from ccs_stream.coordinator.sweep import sweep_is_due
from ccs_stream.protocol.errors import Closed, ForkedProcess, UsageError
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import shown
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings

LOG = logging.getLogger(__name__)

BEATS_PER_TIMEOUT: Final = 5
"""Heartbeats within one time-out: four may be lost or late."""
SHORTEST_INTERVAL_US: Final = 1_000
"""More than one heartbeat a millisecond would keep the process busy with nothing else."""
LONGEST_S: Final = 100 * 366 * 86_400.0
"""A hundred years. A longer time is a mistaken unit."""
CLOSE_TIMEOUT_S: Final = 1.0
"""How long closing waits for a round that is under way. Only one that waits for brokers takes longer."""


@dataclasses.dataclass(frozen=True)
class CrashRecoveryConfig:
    """How long the M and E grants of a participant last. Seconds are the natural form, and win over ticks where given.

    Ticks are for programs that come from agent-coherence, which counts them; a tick lasts `tick_s`. Reservations have
    limits of their own, and are taken back whether this is enabled or not. Raises `UsageError`.
    """

    enabled: bool = False
    heartbeat_timeout_ticks: int = 10
    max_hold_ticks: int = 1000
    _: dataclasses.KW_ONLY
    heartbeat_timeout_s: float | None = None
    """Silence after which a session's grants are reclaimed. The session is renewed five times as often."""
    max_hold_s: float | None = None
    """Time after which a grant is reclaimed, whether its holder is alive or not."""
    tick_s: float = 1.0

    def __post_init__(self) -> None:
        if type(self.enabled) is not bool:
            raise UsageError(f"crash_recovery: enabled is True or False, got {shown(self.enabled)}")
        _check_ticks(self.heartbeat_timeout_ticks, "heartbeat_timeout_ticks")
        _check_ticks(self.max_hold_ticks, "max_hold_ticks")
        _check_seconds(self.tick_s, "tick_s")
        timeout = _length_us(self.heartbeat_timeout_s, self.heartbeat_timeout_ticks, self.tick_s, "heartbeat_timeout_s")
        if timeout <= SHORTEST_INTERVAL_US:
            raise UsageError(
                f"crash_recovery: the heartbeat time-out must be more than {SHORTEST_INTERVAL_US} microseconds, the "
                f"shortest time between two heartbeats, got {timeout}"
            )
        _length_us(self.max_hold_s, self.max_hold_ticks, self.tick_s, "max_hold_s")

    @property
    def heartbeat_timeout_us(self) -> Micros:
        """Silence after which grants are reclaimed."""
        return _length_us(self.heartbeat_timeout_s, self.heartbeat_timeout_ticks, self.tick_s, "heartbeat_timeout_s")

    @property
    def heartbeat_interval_us(self) -> Micros:
        """Time between two heartbeats."""
        return Micros(max(self.heartbeat_timeout_us // BEATS_PER_TIMEOUT, SHORTEST_INTERVAL_US))

    @property
    def max_hold_us(self) -> Micros:
        """Time after which a grant is reclaimed."""
        return _length_us(self.max_hold_s, self.max_hold_ticks, self.tick_s, "max_hold_s")


def _check_ticks(ticks: object, name: str) -> None:
    if type(ticks) is not int or ticks < 1:
        raise UsageError(f"crash_recovery: {name} is a whole number, 1 or more, got {shown(ticks)}")


def _check_seconds(seconds: object, name: str) -> None:
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not known or not 0 < seconds <= LONGEST_S:  # type: ignore[operator]  # NaN is not in the range
        raise UsageError(f"crash_recovery: {name} is a number of seconds, more than 0 and finite, got {shown(seconds)}")


def _length_us(seconds: float | None, ticks: int, tick_s: float, name: str) -> Micros:
    """The length of a limit. Raises `UsageError`."""
    length_s = seconds
    if length_s is None:
        length_s = ticks * tick_s if ticks <= LONGEST_S / tick_s else math.inf
    _check_seconds(length_s, name)
    return Micros(max(round(length_s * SECOND_US), 1))


def settings_with(config: CrashRecoveryConfig | None, settings: WorkspaceSettings | None) -> WorkspaceSettings | None:
    """The settings to open a workspace with: those given, with crash recovery as `config` says.

    None (whatever the workspace has) where neither says anything. Raises `UsageError` where they contradict each other.
    """
    if config is None:
        return settings
    if not config.enabled:
        if settings is not None and settings.crash_recovery:
            raise UsageError("crash_recovery is not enabled, and settings ask for it: leave one of them out")
        return settings
    complete = dataclasses.replace(
        settings or WorkspaceSettings(),
        crash_recovery=True,
        heartbeat_interval_us=config.heartbeat_interval_us,
        session_timeout_us=config.heartbeat_timeout_us,
        maximum_hold_us=config.max_hold_us,
    )
    if settings is not None and settings.crash_recovery and settings != complete:
        raise UsageError("crash_recovery and settings name different limits: give them in one of the two")
    return complete


def check_composition(
    config: CrashRecoveryConfig | WorkspaceSettings | None, lease_ttl_s: float | None, lease_ttl_ticks: int | None
) -> None:
    """Refuse a lease that outlives the grant under it, and would be served after a reclaim. Raises `UsageError`.

    The settings of a workspace that others opened do not say how long a tick is: only seconds are compared with them.
    """
    if config is None:
        return
    if isinstance(config, WorkspaceSettings):
        enabled, hold_us, ticks_s = config.crash_recovery, config.maximum_hold_us, None
    else:
        enabled, hold_us = config.enabled, config.max_hold_us
        ticks_s = None if lease_ttl_ticks is None else lease_ttl_ticks * config.tick_s
    if not enabled:
        return
    for lease_s in (lease_ttl_s, ticks_s):
        if lease_s is not None and round(lease_s * SECOND_US) >= hold_us:
            raise UsageError(
                f"crash_recovery composition violation: a lease of {lease_s:g} s must be shorter than the maximum hold "
                f"of {hold_us / SECOND_US:g} s: shorten the lease, or raise max_hold_s (max_hold_ticks)"
            )


class UnknownAgent(UsageError, KeyError):
    """No agent of that name has joined in this session."""

    def __str__(self) -> str:
        return str(self.args[0])


def heartbeat_steps(engine: Engine) -> Steps[None]:
    """Renew this session, where the workspace has crash recovery; else nothing."""
    if engine.state.settings.crash_recovery:
        yield from engine.session.heartbeat()


def recover_steps(engine: Engine, agent: str | None, read_set: ReadSet | None = None) -> Steps[None]:
    """As `recover`. Copies are forgotten at once; the steps renew the session."""
    joined = engine.session.current.joined
    if agent is not None and agent not in joined:
        known = ", ".join(sorted(map(repr, tuple(joined)))) or "none"
        raise UnknownAgent(f"unknown_agent {shown(agent)}: it has not joined in this session (joined: {known})")
    for name in tuple(joined) if agent is None else (agent,):
        engine.reader.forget_copies(name)
        (engine.read_sets.current(name) if read_set is None else read_set).versions.clear()
    return heartbeat_steps(engine)


def recover(engine: Engine, agent: str | None, read_set: ReadSet | None = None) -> None:
    """Trust nothing that was read before: the next read of each artifact by `agent` (None: by all) fetches it.

    Forgets the copies of this process, and what the agent has read in `read_set` (by default in the flow that calls
    this). What the log knows stays. Then renews the session, where crash recovery is on. Raises `UnknownAgent`, and the
    `LogError`s of the log.
    """
    engine.run(recover_steps(engine, agent, read_set))


class SessionHeartbeat:
    """A task that renews this session, and takes back what others may no longer hold.

    It works in rounds, holds the workspace's lock for a look at the participants and no longer, and ends with `close`
    or with its workspace. A round that fails is counted, the first of a row is logged, and the next one follows.
    """

    def __init__(self, engine: Engine, clock: Clock = SYSTEM_CLOCK) -> None:
        settings = engine.state.settings
        self.interval_s = min(settings.heartbeat_interval_us, settings.maximum_hold_us) / SECOND_US
        self._engine = weakref.ref(engine)  # a workspace that nobody holds any more is not kept alive by this
        self._name = f"{engine.coordinator.workspace!r} of {engine.coordinator.store.display_url}"
        self._task = PeriodicTask(
            "heartbeat", self._round, interval_s=self.interval_s, on_failure=self._report_failure, clock=clock
        )
        self._task.start()

    @property
    def alive(self) -> bool:
        """True while rounds are made."""
        return self._task.alive

    @property
    def failures(self) -> int:
        """Rounds that failed."""
        return self._task.failures

    def health(self) -> WorkerHealth:
        """The health of the task."""
        return self._task.health()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """End it, for at most so long. Closing twice is fine, and so is closing in a forked child."""
        self._task.close(min(timeout_s, CLOSE_TIMEOUT_S))

    def _round(self) -> float | None:
        """One round; None for another one, `UNTIL_WOKEN` for none."""
        engine = self._engine()
        if engine is None:
            return UNTIL_WOKEN
        try:
            if _owns(engine):
                engine.run(engine.session.heartbeat())
            self._sweep(engine)
        except (Closed, ForkedProcess):
            return UNTIL_WOKEN
        return None

    def _report_failure(self, error: BaseException) -> None:
        if not self._task.closed:
            LOG.warning("crash recovery of %s: this session may lose its grants: %s", self._name, error)

    def _sweep(self, engine: Engine) -> None:
        """End what has run out, in decisions of a bounded size. Submits nothing where nothing has run out."""
        coordinator = engine.coordinator
        if coordinator.store.serialises_writers and coordinator.behind():
            # Others may have renewed their sessions. (On Kafka the log is followed all the time.)
            coordinator.catch_up()
        while not self._task.closed:
            with coordinator.lock:
                due = sweep_is_due(engine.state, coordinator.now())
            if not due or not coordinator.sweep():
                return


def _owns(engine: Engine) -> bool:
    """True if this session holds something that may be reclaimed, as far as was folded."""
    held = map(engine.state.participants.get, tuple(engine.session.current.joined.values()))
    return any(each is not None and each.owned for each in held)


def start_heartbeat(engine: Engine, clock: Clock = SYSTEM_CLOCK) -> SessionHeartbeat | None:
    """The heartbeat of a workspace that has crash recovery, whichever client opened it so; None where it has not."""
    return SessionHeartbeat(engine, clock) if engine.state.settings.crash_recovery else None
