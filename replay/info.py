"""`info`: a summary of a log.

Guarantees: every number is counted from the records. Does not: check rules; `verify` does.
"""

import collections
from typing import Any, Final

from ccs_stream.log.fold import fold_entry
from ccs_stream.log.port import Position
from ccs_stream.log.reader import ShardReader
from ccs_stream.projections.processes import Processes
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.records import LogOpened
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay.epochs import COLUMNS, EpochHistory
from ccs_stream.replay.output import console, format_time, print_json, print_pairs, say, table
from ccs_stream.replay.source import Source, decision_of

_PROCESS_COLUMNS: Final = ("session", "agents", "host", "pid", "program", "release", "labels")
_PROCESSES_SHOWN: Final = 50
"""The last ones; a log may hold thousands of sessions."""


def run(source: Source, *, as_json: bool) -> None:
    """Print the summary."""
    summary = LogSummary(source)
    found = summary.described()
    if as_json:
        print_json(found)
        return
    events = found.pop("events_by_kind")
    del found["epochs"]
    processes = found.pop("processes")
    print_pairs((name.replace("_", " "), _text(value)) for name, value in found.items())
    print_pairs((f"  {kind}", count) for kind, count in events.items())
    if summary.epochs.epochs:
        say("")
        console().print(table("epochs", COLUMNS, (each.row() for each in summary.epochs.epochs)))
    if processes:
        say("")
        console().print(table("processes", _PROCESS_COLUMNS, map(_process_row, processes[-_PROCESSES_SHOWN:])))
        if len(processes) > _PROCESSES_SHOWN:
            say(f"and {len(processes) - _PROCESSES_SHOWN} earlier ones, which --json shows")


def _process_row(process: dict[str, Any]) -> tuple[Any, ...]:
    labels = " ".join(f"{name}={value}" for name, value in (process["labels"] or {}).items())
    known = (process[name] or "-" for name in ("host", "pid", "program", "release"))
    return (process["session_id"][:8], ", ".join(process["agents"]), *known, labels)


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


class LogSummary:
    """Counts the records of a shard, and folds the workspace."""

    def __init__(self, source: Source) -> None:
        """Read the whole log. Raises `UsageError` if it holds nothing of the workspace."""
        self.epochs = EpochHistory()
        self._source = source
        self._reader: ShardReader = source.reader()
        self._state = Directory()
        self._processes = Processes()
        self._kinds: collections.Counter[str] = collections.Counter()
        self._decisions = 0
        self._first_at = 0
        self._format: int | None = None
        self._offset = 0
        for entry in source.entries(self._reader):
            self.epochs.take(entry, self._reader.cursor)
            if isinstance(entry.record, LogOpened) and self._format is None:
                self._format = entry.record.format
            record = decision_of(entry)
            if record is None:
                continue
            fold_entry(self._state, entry)
            self._processes.decision(entry.events)
            self._decisions += 1
            self._first_at = self._first_at or record.recorded_at
            self._offset = entry.offset
            self._kinds.update(type(event).__name__ for event in entry.events)
        self.epochs.end(self._reader.cursor)
        if not self._decisions:
            raise source.nothing(self._reader)

    def described(self) -> dict[str, Any]:
        """The summary for programs."""
        source, state, cursor = self._source, self._state, self._reader.cursor
        behind = self._reader.position(source.workspace)
        position = Position(behind.log_id, behind.shard, self._offset, behind.sequence, behind.hash)
        return {
            "source": source.store.display_url,
            "workspace": source.workspace,
            "workspaces": source.workspaces(cursor),
            "log_id": position.log_id.hex(),
            "format": self._format,
            "records": cursor.admitted + cursor.void,
            "decisions": self._decisions,
            "void_records": dict(sorted(self.epochs.void.items())),
            "events": state.sequence,
            "first": format_time(self._first_at),
            "last": format_time(state.recorded_at),
            "epoch": cursor.epoch,
            "claims": len(self.epochs.epochs),
            "leader": cursor.leader_id.hex() if self.epochs.epochs and not cursor.resigned else None,
            "agents": sorted(set(state.agents.values())),
            "sessions_live": len(state.sessions),
            "sessions_ended": len(state.ended_sessions),
            "processes": self._processes.described(),
            "artifacts": sum(artifact.exists for artifact in state.artifacts.values()),
            "tombstones": sum(artifact.deleted for artifact in state.artifacts.values()),
            "unknown_events": state.unknown_events,
            "snapshots": [blob.sequence for blob in source.store.snapshots(source.workspace)],
            "chain_hash": position.hash.hex(),
            "state_hash": state_hash(state),
            "end": str(position),
            "epochs": [each.described() for each in self.epochs.epochs],
            "events_by_kind": dict(sorted(self._kinds.items())),
        }
