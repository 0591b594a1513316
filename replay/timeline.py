"""`timeline`: what happened, an event a line.

Guarantees: in the order of the log; a lost update is marked; void records are shown where asked for. Does not: judge;
`verify` does.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import click

from ccs_stream.log.fold import fold_entry
from ccs_stream.log.reader import Entry
from ccs_stream.protocol.admit import Verdict
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import ArtifactRegistered, Event
from ccs_stream.protocol.ids import ArtifactId
from ccs_stream.protocol.records import DecisionRecord
from ccs_stream.replay.artifact import find_artifact
from ccs_stream.replay.output import print_json, progress, when
from ccs_stream.replay.source import Source
from ccs_stream.replay.words import actor, artifact_name, is_lost_update, subject, words


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of it."""

    first: str | None = None
    last: str | None = None
    agent: str | None = None
    artifact: str | None = None
    include_void: bool = False


def run(source: Source, wanted: Wanted, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json(list(lines(source, wanted)))
        return
    for line in lines(source, wanted):
        mark = "  << LOST UPDATE" if line["lost_update"] else ""
        sequence = line["sequence"] if line["sequence"] is not None else "void"
        click.echo(f"{sequence!s:>8}  {line['at']}  {line['agent'] or '-':<16}  {line['what']}{mark}")


def lines(source: Source, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """The same as data."""
    begin = 0 if wanted.first is None else source.offset(wanted.first)
    until = source.store.end(source.workspace) if wanted.last is None else source.offset(wanted.last)
    only: ArtifactId | None = None
    if wanted.artifact is not None:
        only = find_artifact(source.state_at(wanted.last)[0], wanted.artifact).artifact
    state = Directory()
    for entry in progress(source.reader().read(until=until, bodies=False), until + 1):
        if entry.verdict is not Verdict.ADMITTED:
            if wanted.include_void and entry.offset >= begin and not wanted.agent and not only:
                yield _void(entry)
            continue
        if not isinstance(entry.record, DecisionRecord):
            continue
        writers = {each: state.artifacts[each].writer for each in _subjects(entry.events) if each in state.artifacts}
        fold_entry(state, entry)
        if entry.offset < begin:
            continue
        for number, event in enumerate(entry.events):
            who = actor(state, event)
            if (wanted.agent and who != wanted.agent) or (only and subject(event) != only):
                continue
            about = subject(event)
            yield {
                "sequence": entry.record.first_sequence + number,
                "at": when(entry.record.recorded_at),
                "agent": who,
                "event": type(event).__name__,
                "artifact": artifact_name(state, about),
                "what": words(state, event),
                "lost_update": is_lost_update(event, writers.get(about, 0) if about else 0),
            }


def _subjects(events: list[Event]) -> set[ArtifactId]:
    return {about for event in events if type(event) is not ArtifactRegistered and (about := subject(event))}


def _void(entry: Entry) -> dict[str, Any]:
    return {
        "sequence": None,
        "at": "",
        "agent": "",
        "event": type(entry.record).__name__,
        "artifact": "",
        "what": f"void record at offset {entry.offset}: {entry.verdict.value}",
        "lost_update": False,
    }
