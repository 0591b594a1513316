"""`info`: what a log holds.

Guarantees: counted from the records themselves. Does not: check invariants; `verify` does.
"""

import collections
from typing import Any

from ccs_stream.log.fold import fold_entry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LogOpened
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.replay.output import pairs, print_json, progress, when
from ccs_stream.replay.source import Source


def run(source: Source, *, as_json: bool) -> None:
    """Print it."""
    found = describe(source)
    if as_json:
        print_json(found)
        return
    events = found.pop("events_by_kind")
    pairs(
        (name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value)
        for name, value in found.items()
    )
    pairs((f"  {kind}", count) for kind, count in events.items())


def describe(source: Source) -> dict[str, Any]:
    """The same as data."""
    reader, state = source.reader(), Directory()
    kinds: collections.Counter[str] = collections.Counter()
    void: collections.Counter[str] = collections.Counter()
    decisions = claims = 0
    first_at = last_at = 0
    log_format: int | None = None
    end = source.store.end(source.workspace)
    for entry in progress(reader.read(bodies=False), end + 1):
        record = entry.record
        if entry.verdict is not Verdict.ADMITTED:
            void[entry.verdict.value] += 1
        elif isinstance(record, DecisionRecord):
            decisions += 1
            first_at, last_at = first_at or record.recorded_at, record.recorded_at
            kinds.update(type(event).__name__ for event in entry.events)
            fold_entry(state, entry)
        elif isinstance(record, LogOpened):
            log_format = record.format
        elif isinstance(record, LeaderClaimed):
            claims += 1
    position = reader.position(source.workspace)
    existing = sum(artifact.exists for artifact in state.artifacts.values())
    return {
        "source": source.store.display_url,
        "workspace": source.workspace,
        "workspaces": source.store.workspaces(),
        "log_id": position.log_id.hex(),
        "format": log_format,
        "records": end + 1,
        "decisions": decisions,
        "void_records": dict(void),
        "events": state.sequence,
        "first": when(first_at) if first_at else None,
        "last": when(last_at) if last_at else None,
        "epoch": reader.cursor.epoch,
        "claims": claims,
        "agents": sorted(set(state.agents.values())),
        "sessions_live": len(state.sessions),
        "sessions_ended": len(state.ended_sessions),
        "artifacts": existing,
        "tombstones": sum(artifact.deleted for artifact in state.artifacts.values()),
        "unknown_events": state.unknown_events,
        "snapshots": [blob.sequence for blob in source.store.snapshots(source.workspace)],
        "chain_hash": position.hash.hex(),
        "state_hash": state_hash(state),
        "end": str(position),
        "events_by_kind": dict(sorted(kinds.items())),
    }
