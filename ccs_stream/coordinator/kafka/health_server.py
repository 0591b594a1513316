"""The health of a dedicated coordinator over HTTP: whether it lives, whether it is ready, and its figures.

`ccs-stream coordinator` serves it. Guarantees: `/healthz` is 200 while the following thread makes progress; `/readyz`
while every partition is followed and brokers answer; `/metrics` is OpenMetrics text; all three are made from `status`,
which is data. Does not: authenticate; bind it to an address that only your monitoring reaches.

How: the standard library's HTTP server, in the thread `ccs-health` and one for each request; none takes a lock.

Source: OpenMetrics 1.0, text format.
"""

import http.server
import json
import threading
from typing import Any, Final, Self

from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.protocol.leadership import Role

_CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def status(service: CoordinatorService) -> dict[str, Any]:
    """The health of a coordinator as data, for JSON."""
    follower = service.follower
    trouble = service.store.clients.connection.last_error
    return {
        "log": service.store.display_url,
        "log_id": service.store.log_id.hex(),
        "alive": follower.error is None and follower.alive(),
        "ready": service.ready,
        "error": None if follower.error is None else str(follower.error),
        "broker_error": None if trouble is None else trouble.str(),
        "uptime_seconds": round(service.uptime_s, 3),
        "garbage_commands": 0 if follower.member is None else follower.member.garbage,
        "partitions": [_shard(shard) for _, shard in sorted(follower.shards.items())],
    }


def _shard(shard: ShardCoordinator) -> dict[str, Any]:
    cursor, counts = shard.reader.cursor, shard.counts
    return {
        "partition": shard.partition,
        "role": shard.loop.role.value,
        "assigned": shard.loop.assigned,
        "epoch": cursor.epoch,
        "offset": shard.reader.offset,
        "lag": shard.lag_records,
        "waiting": shard.loop.waiting,
        "workspaces": len(shard.states),
        "artifacts": sum(len(state.artifacts) for state in shard.states.values()),
        "decisions": counts.decisions,
        "events": counts.events,
        "claims": counts.claims,
        "times_led": counts.led,
        "seconds_to_lead": round(counts.seconds_to_lead, 6),
        "refused": dict(counts.refused),
        "dropped": dict(counts.dropped),
        "void": dict(counts.void),
    }


_GAUGES: Final = (
    ("ccs_leader", "Whether this coordinator leads the partition.", lambda each: int(each["role"] == Role.LEADING)),
    ("ccs_epoch", "The leadership term of the partition.", lambda each: each["epoch"]),
    ("ccs_log_offset", "Offset of the last record taken.", lambda each: each["offset"]),
    ("ccs_log_lag_records", "Records in the log that were not taken yet.", lambda each: each["lag"]),
    ("ccs_commands_waiting", "Commands that wait or are being decided.", lambda each: each["waiting"]),
    ("ccs_workspaces", "Workspaces of the partition.", lambda each: each["workspaces"]),
    ("ccs_artifacts", "Artifacts of the partition.", lambda each: each["artifacts"]),
    (
        "ccs_time_to_lead_seconds",
        "From the last assignment to the claim read back.",
        lambda each: each["seconds_to_lead"],
    ),
)
_COUNTERS: Final = (
    ("ccs_decisions", "Decisions admitted.", lambda each: each["decisions"]),
    ("ccs_events", "Events of admitted decisions.", lambda each: each["events"]),
    ("ccs_claims", "Claims admitted.", lambda each: each["claims"]),
)


def metrics(found: dict[str, Any]) -> str:
    """The same data as OpenMetrics text."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str) -> None:
        lines.extend((f"# TYPE {name} {kind}", f"# HELP {name} {text}"))

    for name, text, value in _GAUGES:
        family(name, "gauge", text)
        lines.extend(f'{name}{{partition="{each["partition"]}"}} {value(each)}' for each in found["partitions"])
    for name, text, value in _COUNTERS:
        family(name, "counter", text)
        lines.extend(f'{name}_total{{partition="{each["partition"]}"}} {value(each)}' for each in found["partitions"])
    for name, key, text in (
        ("ccs_void_records", "void", "Records that were never applied, by reason."),
        ("ccs_commands_refused", "refused", "Commands refused, by reason."),
        ("ccs_commands_dropped", "dropped", "Commands that were not decided, by reason."),
    ):
        family(name, "counter", text)
        lines.extend(
            f'{name}_total{{partition="{each["partition"]}",reason="{reason}"}} {count}'
            for each in found["partitions"]
            for reason, count in sorted(each[key].items())
        )
    family("ccs_garbage_commands", "counter", "Messages in the commands topic that were no commands.")
    lines.append(f"ccs_garbage_commands_total {found['garbage_commands']}")
    family("ccs_ready", "gauge", "Whether every partition is followed and brokers answer.")
    lines.append(f"ccs_ready {int(found['ready'])}")
    lines.append("# EOF")
    return "\n".join(lines) + "\n"


class HealthServer:
    """Serves `/healthz`, `/readyz`, `/metrics` and `/status` of one service, in a thread of its own."""

    def __init__(self, service: CoordinatorService, host: str, port: int) -> None:
        handler = type("Handler", (_Handler,), {"service": service})
        self._server = http.server.ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="ccs-health", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    service: CoordinatorService

    def do_GET(self) -> None:
        found = status(self.service)
        match self.path.partition("?")[0]:
            case "/healthz":
                self._say(200 if found["alive"] else 503, "ok\n" if found["alive"] else f"{found['error']}\n")
            case "/readyz":
                why = found["error"] or found["broker_error"] or "not yet following every partition"
                self._say(200 if found["ready"] else 503, "ready\n" if found["ready"] else f"{why}\n")
            case "/metrics":
                self._say(200, metrics(found), _CONTENT_TYPE)
            case "/status":
                self._say(200, json.dumps(found, indent=2) + "\n", "application/json")
            case _:
                self._say(404, "there are /healthz, /readyz, /metrics and /status\n")

    def _say(self, code: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parent's name
        """Log nothing: a probe comes every few seconds."""
