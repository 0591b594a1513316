"""The options of a client. They choose how one process works, and change neither the log nor who may write.

`ccs_stream.connect` and the stores of the adapters take these options.

Guarantees: an unknown option raises and names the nearest known one. Options that cannot work together raise before
anything is opened. Does not: hold the limits of a workspace; those are `WorkspaceSettings`, and equal for everybody.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from ccs_stream.client.cache.content_cache import DEFAULT_BYTES_MAX
from ccs_stream.client.cache.copy_tracker import StrategyOption, StrategyRules, parse_rules
from ccs_stream.client.cache.freshness import Freshness
from ccs_stream.client.observers.json_lines import LineFunction, parse_sink
from ccs_stream.client.observers.metrics import MetricsOptions
from ccs_stream.client.observers.telemetry import Exporter, TelemetryExporter
from ccs_stream.client.observers.token_counter import CountTokens
from ccs_stream.client.process_identity import identify_process
from ccs_stream.client.recovery import CrashRecoveryConfig, check_composition
from ccs_stream.projections.metric_events import StoreMetricEvent
from ccs_stream.protocol.errors import UsageError, unknown_name
from ccs_stream.protocol.limits import CACHE_BYTES_MAX, check_flag, check_text, check_whole_number, shown
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings

Sink = LineFunction | str | Path
"""A function that is called with each entry, or the JSON Lines file that entries are appended to."""
TelemetryOption = Literal["opentelemetry", "langsmith"] | TelemetryExporter | Exporter
"""An exporter, or the name of one."""


class ClientOptions(TypedDict, total=False):
    """The options that `connect` and the stores of the adapters have in common."""

    settings: WorkspaceSettings | None
    """The limits of a new workspace. Given for a workspace that was opened with others, they raise."""
    freshness: Freshness | str | None
    """The default of reads: `latest` on logs of one machine, `own_writes` on Kafka, unless given."""
    body_cache_bytes: int
    """Bytes of contents kept in this process; 256 MiB unless given."""
    kafka: Mapping[str, Any] | None
    """Settings of librdkafka, for a log on Kafka."""
    strategy: StrategyOption | None
    """When a copy is served and when it is fetched: `lazy` (the default), `eager`, `lease`, `access_count`,
    `broadcast`, or a mapping from patterns of `scope/key` (or of the key alone) to these."""
    lease_ttl: dt.timedelta | None
    """The time of a lease."""
    lease_ttl_ticks: int | None
    """The number of calls of a lease, instead of a time; 300 unless given."""
    access_count_max_accesses: int | None
    """How often a copy is served under `access_count`; 100 unless given."""
    deliveries: bool | None
    """True if the log records which agent was given what; on where the log is durable, unless given."""
    state_log: Sink | bool | None
    """Takes every change of every copy's state, derived from the log. True: the log itself is the record."""
    content_audit_log: Sink | bool | None
    """Takes every value that this process hands to agents. True: the log's deliveries are the record."""
    crash_recovery: CrashRecoveryConfig | None
    """When the grants of silent or endless holders are taken back. Part of the workspace's settings: equal for all."""
    on_error: Literal["strict", "degrade"]
    """While the log cannot be used: raise (`strict`, the default), or answer reads from what this process knows."""
    outbox: str | Path | None
    """A file that keeps writes until the log is back; needs `on_error="degrade"`."""
    labels: Mapping[str, str] | None
    """Further facts about this process for the log, such as `{"run": "7"}`; `ccs-replay` shows them."""
    identify_host: bool
    """True if the log records host, process number and program of this process; on unless given."""
    benchmark: bool
    """True if the tokens of reads and writes are counted, for `benchmark_summary` and `savings`."""
    on_metric: Callable[[StoreMetricEvent], object] | None
    """Called with every read, write and search result, in a thread of its own."""
    count_tokens: CountTokens | None
    """Counts the tokens of a value, instead of the built-in estimate."""
    telemetry: TelemetryOption | None
    """`"opentelemetry"`, `"langsmith"` or an exporter."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The options of a client, checked."""

    settings: WorkspaceSettings | None
    freshness: Freshness | None
    """None for the log's default."""
    body_cache_bytes: int
    kafka: Mapping[str, Any] | None
    rules: StrategyRules
    deliveries: bool | None
    state_log: LineFunction | Path | None
    content_audit_log: LineFunction | Path | None
    crash_recovery: CrashRecoveryConfig | None
    degrades: bool
    outbox: Path | None
    metrics: MetricsOptions | None
    identity: ProcessIdentity

    def check_leases(self, limits: CrashRecoveryConfig | WorkspaceSettings | None) -> None:
        """See that no lease outlives the grant under it. Raises `UsageError`."""
        for each in self.rules.leases:
            ttl_us = each.ttl_us
            if ttl_us is None:
                check_composition(limits, None, each.ttl)
            else:
                check_composition(limits, ttl_us / SECOND_US, None)


def check_names(options: Mapping[str, Any], *, of: str, others: tuple[str, ...] = ()) -> None:
    """Raise `UsageError` for an option that `of` does not know."""
    known = (*others, *ClientOptions.__annotations__)
    for name in options:
        if name not in ClientOptions.__annotations__:
            raise unknown_name(name, known, what=f"{of} has no option")


def parse_options(options: Mapping[str, Any], *, of: str, others: tuple[str, ...] = ()) -> ClientConfig:
    """Check the options of a call of `of`. Raises `UsageError`.

    `others` are the options that `of` knows besides.
    """
    check_names(options, of=of, others=others)
    deliveries = options.get("deliveries")
    if deliveries is not None:
        check_flag(deliveries, "deliveries")
    audit = options.get("content_audit_log")
    if audit is True and deliveries is False:
        raise UsageError("content_audit_log=True is the log's deliveries, and deliveries=False turns them off")
    recovery = options.get("crash_recovery")
    if recovery is not None and not isinstance(recovery, CrashRecoveryConfig):
        raise UsageError(f"crash_recovery is a CrashRecoveryConfig(enabled=True, ...), got {shown(recovery)}")
    freshness = options.get("freshness")
    degrades, outbox = _degrading(options.get("on_error", "strict"), options.get("outbox"))
    config = ClientConfig(
        settings=_settings(options.get("settings")),
        freshness=None if freshness is None else Freshness.parse(freshness),
        body_cache_bytes=check_whole_number(
            options.get("body_cache_bytes", DEFAULT_BYTES_MAX), "body_cache_bytes", most=CACHE_BYTES_MAX
        ),
        kafka=_mapping(options.get("kafka"), "kafka"),
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
        metrics=MetricsOptions.parse(
            benchmark=options.get("benchmark", False),
            on_metric=options.get("on_metric"),
            count_tokens=options.get("count_tokens"),
            telemetry=options.get("telemetry"),
        ),
        identity=identify_process(labels=options.get("labels"), identify_host=options.get("identify_host", True)),
    )
    config.check_leases(recovery)
    return config


def _settings(settings: Any) -> WorkspaceSettings | None:
    if settings is not None and not isinstance(settings, WorkspaceSettings):
        raise UsageError(f"settings are WorkspaceSettings(...), got {shown(settings)}")
    return None if settings is None else settings.check()


def _mapping(option: Any, what: str) -> Mapping[str, Any] | None:
    if option is None:
        return None
    if not isinstance(option, Mapping):
        raise UsageError(f"{what} is a mapping from texts to values, got {shown(option)}")
    for name in option:
        check_text(name, f"a name in {what}")
    return option


def _degrading(on_error: object, outbox: object) -> tuple[bool, Path | None]:
    """True if the workspace degrades, and the file of its outbox. Raises `UsageError`."""
    if on_error not in ("strict", "degrade"):
        raise UsageError(f"on_error is 'strict' or 'degrade', got {shown(on_error)}")
    if outbox is None:
        return on_error == "degrade", None
    if on_error != "degrade":
        raise UsageError("outbox= keeps writes while the log is away: it needs on_error='degrade'")
    if not isinstance(outbox, str | Path) or not str(outbox) or "\0" in str(outbox):
        raise UsageError(f"outbox is the path of a file, got {shown(outbox)}")
    path = Path(outbox)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"outbox={str(outbox)!r}: there is no folder {path.absolute().parent}: make it first")
    return True, path


def _sink(option: Any, what: str) -> LineFunction | Path | None:
    """A function or a file; None without a sink, and for True, where the log is the record."""
    return None if option is None or type(option) is bool else parse_sink(option, what)
