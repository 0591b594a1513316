"""`transitions`: how the state of each agent's copy changed, and why, one transition a line.

Guarantees: the transitions and their order are those of a store's state log; as JSON they are lines of
`ccs.state_log.v2`, numbered from 1 as printed, so that `ccs-stream validate` finds them complete. Does not: show void
records, or events that change no grant; `timeline` does.
"""

import dataclasses
import uuid
from collections.abc import Iterator

from ccs_stream.log.fold import fold_entry
from ccs_stream.projections.state_log import state_log_entry
from ccs_stream.projections.transitions import Transition, Transitions
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import ArtifactId
from ccs_stream.replay.artifact import find_artifact
from ccs_stream.replay.event_text import artifact_name
from ccs_stream.replay.output import format_time, print_json_line, say
from ccs_stream.replay.source import Source, decision_of


@dataclasses.dataclass(frozen=True, slots=True)
class TransitionsOptions:
    """The options of `transitions`; positions as the user wrote them."""

    first: str | None = None
    last: str | None = None
    agent: str | None = None
    artifact: str | None = None


def run(source: Source, options: TransitionsOptions, *, as_json: bool) -> None:
    """Print the transitions. Raises `UsageError` if the log holds nothing of the workspace."""
    instance_id = str(uuid.UUID(bytes=source.store.log_id))
    state = Directory()
    for number, transition in enumerate(_read(source, options, state), start=1):
        if as_json:
            line = state_log_entry(transition, sequence_number=number, instance_id=instance_id)
            print_json_line(line)
        else:
            say(text_of(transition, state))


def text_of(transition: Transition, state: Directory) -> str:
    """The line for people. From `state` only the artifact's name is taken."""
    moved = f"{transition.from_state} > {transition.to_state}"
    about = f"{artifact_name(state, transition.artifact)} v{transition.version}"
    return (
        f"{transition.sequence:>8}  {format_time(transition.recorded_at):<32}  {transition.agent:<16}  {moved}  "
        f"{transition.trigger:<17}  {about}"
    )


def _read(source: Source, options: TransitionsOptions, state: Directory) -> Iterator[Transition]:
    """The chosen transitions, in order. `state` is folded over all events, to know who held what."""
    begin = 0 if options.first is None else source.offset(options.first)
    until = None if options.last is None else source.offset(options.last)
    only: ArtifactId | None = None
    if options.artifact is not None:
        only = find_artifact(source.state_at(options.last).state, options.artifact).artifact
    fold, reader = Transitions(), source.reader()
    for entry in source.entries(reader, until=until):
        record = decision_of(entry)
        if record is None:
            continue
        fold_entry(state, entry)
        for transition in fold.decision(record.first_sequence, record.recorded_at, entry.events):
            if entry.offset < begin or (options.agent and transition.agent != options.agent):
                continue
            if only is None or transition.artifact == only:
                yield transition
    if until is None and not state.sequence:
        raise source.nothing(reader)
