"""`timeline`: what happened, one event a line.

Guarantees: lines are in the order of the log; a lost update is marked; void records are shown with `--include-void`,
and counted without. With `--follow` a line is printed and flushed as soon as its record is read. Does not: judge;
`verify` does.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any, Final

from ccs_stream.log.archive import ArchiveLog
from ccs_stream.log.fold import fold_entry
from ccs_stream.log.reader import LogEntry
from ccs_stream.projections.processes import Processes, describe_process
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import ArtifactRegistered, Event
from ccs_stream.protocol.ids import ArtifactId
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned
from ccs_stream.replay.artifact import find_artifact
from ccs_stream.replay.event_text import (
    actor,
    artifact_name,
    describe_event,
    describe_leadership,
    describe_void,
    is_lost_update,
    subject,
)
from ccs_stream.replay.output import format_time, print_json, print_json_line, say
from ccs_stream.replay.source import Source

Line = dict[str, Any]

_LOOK_S: Final = 0.2
"""Pause between two looks at the end of the log while following: short for a person, and on Kafka each look is a round
trip.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class TimelineOptions:
    """The options of `timeline`; positions as the user wrote them."""

    first: str | None = None
    last: str | None = None
    agent: str | None = None
    artifact: str | None = None
    include_void: bool = False
    follow: bool = False


def run(source: Source, options: TimelineOptions, *, as_json: bool) -> None:
    """Print the timeline."""
    if options.follow and options.last is not None:
        raise UsageError("--follow never ends: leave out --until")
    if options.follow and isinstance(source.store, ArchiveLog):
        raise UsageError(f"{source.store.display_url} is an archive, which never grows: leave out --follow")
    lines = Timeline(source, options)
    try:
        if as_json and not options.follow:
            print_json(list(lines.read()))
            return
        for line in lines.follow() if options.follow else lines.read():
            # click flushes each: who follows through a pipe does not wait for a buffer to fill.
            print_json_line(line) if as_json else say(text_of(line))
    finally:
        _say_what_is_hidden(lines.hidden)


def text_of(line: Line) -> str:
    """The line for people."""
    mark = "  << LOST UPDATE" if line["lost_update"] else ""
    void = line["verdict"] != Verdict.ADMITTED.value
    sequence = "void" if void else line["sequence"] or "-"
    by = "" if line["process"] is None else f"  [{describe_process(ProcessIdentity.of_fields(line['process']))}]"
    return f"{sequence!s:>8}  {line['at'] or '-':<32}  {line['agent'] or '-':<16}  {line['what']}{mark}{by}"


class Timeline:
    """Reads the log and makes the chosen lines, as data."""

    def __init__(self, source: Source, options: TimelineOptions) -> None:
        self.hidden = 0
        """Void records that were not shown."""
        self._source = source
        self._options = options
        self._begin = 0 if options.first is None else source.offset(options.first)
        self._until = None if options.last is None else source.offset(options.last)
        self._only: ArtifactId | None = None
        if options.artifact is not None:
            self._only = find_artifact(source.state_at(options.last).state, options.artifact).artifact
        self._choosing = bool(options.agent or options.artifact)
        self._state = Directory()
        self._processes = Processes()
        self._reader = source.reader()

    def read(self) -> Iterator[Line]:
        """The lines to the end. Raises `UsageError` if the log holds nothing of the workspace."""
        yield from self._read()
        if self._until is None and not self._state.sequence:
            raise self._source.nothing(self._reader)

    def follow(self) -> Iterator[Line]:
        """The lines to the end, and then each new one, without end."""
        yield from self._read()
        if not self._state.sequence:
            say(f"there is nothing yet in the workspace {self._source.workspace!r}: waiting for it", err=True)
        store = self._source.store
        while True:
            while not store.wait(self._source.workspace, self._reader.offset, 0.0):
                time.sleep(_LOOK_S)
            yield from self._read()

    def _read(self) -> Iterator[Line]:
        for entry in self._source.entries(self._reader, until=self._until):
            yield from self._of(entry)

    def _of(self, entry: LogEntry) -> Iterator[Line]:
        record, shown = entry.record, entry.offset >= self._begin
        if entry.verdict is not Verdict.ADMITTED:
            self.hidden += shown and not self._options.include_void
            if shown and self._options.include_void:
                yield _line(entry, describe_void(entry))
        elif isinstance(record, DecisionRecord):
            yield from self._decision(entry, record, shown=shown)
        elif isinstance(record, LeaderClaimed | LeaderResigned) and shown and not self._choosing:
            yield _line(entry, describe_leadership(record))

    def _decision(self, entry: LogEntry, record: DecisionRecord, *, shown: bool) -> Iterator[Line]:
        state = self._state
        writers = {each: state.artifacts[each].writer for each in _subjects(entry.events) if each in state.artifacts}
        fold_entry(state, entry)
        self._processes.decision(entry.events)
        if not shown:
            return
        process = self._processes.by_session.get(record.session_id)
        for number, event in enumerate(entry.events):
            who, about = actor(state, event), subject(event)
            if (self._options.agent and who != self._options.agent) or (self._only and about != self._only):
                continue
            yield _line(
                entry,
                describe_event(state, event),
                sequence=record.first_sequence + number,
                agent=who,
                event=type(event).__name__,
                artifact=artifact_name(state, about),
                lost_update=is_lost_update(event, writers.get(about, 0) if about else 0),
                process=None if process is None else process.members(),
            )


def _line(entry: LogEntry, what: str, **more: Any) -> Line:
    record = entry.record
    at = getattr(record, "recorded_at", None) or getattr(record, "claimed_at", None)
    return {
        "sequence": None,
        "at": format_time(at) if at else "",
        "agent": "",
        "event": type(record).__name__,
        "artifact": "",
        "what": what,
        "lost_update": False,
        "verdict": entry.verdict.value,
        "process": None,
        **more,
    }


def _subjects(events: list[Event]) -> set[ArtifactId]:
    return {about for event in events if type(event) is not ArtifactRegistered and (about := subject(event))}


def _say_what_is_hidden(count: int) -> None:
    if count:
        records = "void record" if count == 1 else "void records"
        say(f"{count} {records} not shown; --include-void shows them", err=True)
