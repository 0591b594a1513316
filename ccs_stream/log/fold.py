"""Folding the entries of a log into the directory.

Coordinators, the client's history and `ccs-replay` use it.

Guarantees: only admitted decisions are folded; the state after an entry is the state at that entry's end. Does not:
stop at an unknown event that a tolerant reader let through; the state counts it.
"""

from collections.abc import Iterator

from ccs_stream.log.reader import LogEntry, ShardReader
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.records import DecisionRecord


def fold_entry(state: Directory, entry: LogEntry) -> None:
    """Fold one entry into `state`. A void record, and one that is no decision, changes nothing."""
    record = entry.record
    if entry.verdict is Verdict.ADMITTED and type(record) is DecisionRecord:
        fold_decision(state, entry.events, record)


def fold_log(reader: ShardReader, state: Directory, *, until: int | None = None) -> Iterator[LogEntry]:
    """Fold the entries that `reader` has not read yet, to offset `until`; yields each after it was folded."""
    for entry in reader.read(until=until, bodies=False):
        fold_entry(state, entry)
        yield entry
