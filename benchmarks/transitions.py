"""The state log, computed: transitions of grants from events, next to folding the same events into the directory.

Guarantees: both take the same decoded decisions, whole, in turns, from the first; the transitions are counted. "Lines"
also makes the state log's dictionaries of them. Does not: decode, read a log, or write a file.
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.history import WORKSPACE, append_history
from benchmarks.report import Row, at_least, rate
from benchmarks.run import Run
from benchmarks.timing import in_turns
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.projections.state_log import state_log_entry
from ccs_stream.projections.transitions import Transitions
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.records import DecisionRecord

ARTIFACTS: Final = 1_000
WANTED_PER_S: Final = 200_000
"""Decoding hands out some 90,000 decisions a second, with two transitions each: deriving must keep up with that."""

Decisions = list[tuple[DecisionRecord, list[Event]]]


def rows(run: Run) -> Iterator[Row]:
    """Transitions, and lines of the state log."""
    events = run.count(200_000, 5_000)
    run.now(f"a log of {events:,} events in memory")
    decisions = _decisions(events)
    events = sum(len(each) for _, each in decisions)
    count = _derive(decisions)
    run.now(f"deriving {count:,} transitions")
    timings = in_turns(
        run.effort,
        {
            "fold": lambda: _fold(decisions),
            "transitions": lambda: _derive(decisions),
            "lines": lambda: _lines(decisions),
        },
    )
    fold_s = timings.seconds("fold")
    for what, name in (("transitions", "transitions"), ("lines of the state log", "lines")):
        seconds = timings.seconds(name)
        yield Row(
            f"{what}, from {events:,} decoded events",
            rate(count / seconds, name),
            "the target",
            rate(WANTED_PER_S, name),
            count / seconds / WANTED_PER_S,
            "x its rate",
            at_least(1),
        )
        yield Row(
            f"{what}, from {events:,} decoded events",
            rate(events / seconds, "events"),
            "bare fold of the same into the directory",
            rate(events / fold_s, "events"),
            timings.ratio("fold", name),
            "of its rate",
        )


def _decisions(events: int) -> Decisions:
    store = MemoryLog()
    append_history(store, events, artifacts=ARTIFACTS)
    entries = ShardReader(store, WORKSPACE).read(bodies=False)
    return [(each.record, each.events) for each in entries if type(each.record) is DecisionRecord]


def _fold(decisions: Decisions) -> None:
    state = Directory()
    for record, events in decisions:
        fold(
            state,
            events,
            recorded_at=record.recorded_at,
            session_id=record.session_id,
            number=record.number,
            kind=record.command_kind,
        )


def _derive(decisions: Decisions) -> int:
    derived, count = Transitions(), 0
    for record, events in decisions:
        count += len(derived.decision(record.first_sequence, record.recorded_at, events))
    return count


def _lines(decisions: Decisions) -> None:
    derived, number = Transitions(), 0
    for record, events in decisions:
        for transition in derived.decision(record.first_sequence, record.recorded_at, events):
            number += 1
            state_log_entry(transition, sequence_number=number, instance_id="benchmark")
