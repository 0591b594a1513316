"""The options by which a client chooses its own ways: none of them changes what the log says or who may write.

Guarantees: an option nobody knows raises and names the nearest known one; what cannot work raises before anything is
opened. Does not: hold the limits of a workspace; those are `WorkspaceSettings`, and the same for everybody.
"""

import dataclasses
import datetime as dt
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from ccs_stream.client.cache.copy_tracker import StrategyOption, StrategyRules, parse_rules
from ccs_stream.client.observers.state_log import Callback, sink_of
from ccs_stream.client.recovery import CrashRecoveryConfig, check_composition
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings

Sink = Callback | str | Path
"""A function that is told of each entry, or the JSON Lines file that it is appended to."""


class ClientOptions(TypedDict, total=False):
    """What `connect` and stores take alike, besides what they name themselves."""

    strategy: StrategyOption | None
    """When a copy is served and when it is fetched: `lazy` (the default), `eager`, `lease`, `access_count`,
    `broadcast`, or a mapping from patterns of `scope/key` (or of the key alone) to these."""
    lease_ttl: dt.timedelta | None
    """Time of a lease."""
    lease_ttl_ticks: int | None
    """Instead: its number of calls; 300 unless given."""
    access_count_max_accesses: int | None
    """How often a copy is served under `access_count`; 100 unless given."""
    deliveries: bool | None
    """Whether it is recorded who was given what: on, unless given, where the log is durable."""
    state_log: Sink | bool | None
    """Told of every change of state of every copy, from the log; True: the log itself holds it."""
    content_audit_log: Sink | bool | None
    """Told of everything this process hands out; True: the log's deliveries hold it."""
    crash_recovery: CrashRecoveryConfig | None
    """Whether, and after how long, what silent or endless holders hold is taken back. Part of the workspace's settings:
    the same for everybody."""
    on_error: Literal["strict", "degrade"]
    """While the log cannot be used: raise (`strict`, the default), or answer reads from what is known here."""
    outbox: str | Path | None
    """A file that keeps writes until the log is back, where `on_error="degrade"`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What was asked for, checked."""

    rules: StrategyRules
    deliveries: bool | None = None
    state_log: Callback | Path | None = None
    content_audit_log: Callback | Path | None = None
    crash_recovery: CrashRecoveryConfig | None = None
    degrades: bool = False
    outbox: Path | None = None

    def check_leases(self, limits: CrashRecoveryConfig | WorkspaceSettings | None) -> None:
        """See that no lease outlives the grant under it. Raises `UsageError`."""
        for each in self.rules.leases:
            ttl_us = each.ttl_us
            if ttl_us is None:
                check_composition(limits, None, each.ttl)
            else:
                check_composition(limits, ttl_us / SECOND_US, None)


def parse_options(options: Mapping[str, Any], *, of: str, others: tuple[str, ...] = ()) -> ClientConfig:
    """The policy that these options ask for. Raises `UsageError`.

    `of` names whoever takes them in messages, and `others` are the options it knows besides.
    """
    unknown = [name for name in options if name not in ClientOptions.__annotations__]
    if unknown:
        known = (*others, *ClientOptions.__annotations__)
        said: list[str] = []
        for name in unknown:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            said.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        raise UsageError(f"{of} has no option {', '.join(said)}; its options are {', '.join(known)}")
    deliveries = options.get("deliveries")
    if deliveries is not None and type(deliveries) is not bool:
        raise UsageError(f"deliveries is True or False, got {deliveries!r}")
    audit = options.get("content_audit_log")
    if audit is True and deliveries is False:
        raise UsageError("content_audit_log=True is the log's deliveries, and deliveries=False turns them off")
    recovery = options.get("crash_recovery")
    if recovery is not None and not isinstance(recovery, CrashRecoveryConfig):
        raise UsageError(f"crash_recovery is a CrashRecoveryConfig(enabled=True, ...), got {recovery!r}")
    degrades, outbox = _degrading(options.get("on_error", "strict"), options.get("outbox"))
    policy = ClientConfig(
        rules=parse_rules(
            options.get("strategy"),
            lease_ttl=options.get("lease_ttl"),
            lease_ttl_ticks=options.get("lease_ttl_ticks"),
            access_count_max_accesses=options.get("access_count_max_accesses"),
        ),
        deliveries=True if audit is True else deliveries,
        state_log=_sink(options.get("state_log"), "state_log"),
        content_audit_log=_sink(audit, "content_audit_log"),
        crash_recovery=recovery,
        degrades=degrades,
        outbox=outbox,
    )
    policy.check_leases(recovery)
    return policy


def _degrading(on_error: object, outbox: object) -> tuple[bool, Path | None]:
    """Whether to degrade, and the outbox's file. Raises `UsageError`."""
    if on_error not in ("strict", "degrade"):
        raise UsageError(f"on_error is 'strict' or 'degrade', got {on_error!r}")
    if outbox is None:
        return on_error == "degrade", None
    if on_error != "degrade":
        raise UsageError("outbox= keeps writes while the log is away: it needs on_error='degrade'")
    if not isinstance(outbox, str | Path) or not str(outbox):
        raise UsageError(f"outbox is the path of a file, got {outbox!r}")
    path = Path(outbox)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"outbox={str(outbox)!r}: there is no folder {path.absolute().parent}: make it first")
    return True, path


def _sink(option: Any, what: str) -> Callback | Path | None:
    """A function or a file; None where nothing was asked for, and for True: the log holds it."""
    return None if option is None or type(option) is bool else sink_of(option, what)


DEFAULT_CONFIG = parse_options({}, of="")
"""Nothing asked for."""
