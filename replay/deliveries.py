"""`deliveries`: who was given which version of what, when, and from where.

Guarantees: every recorded delivery is printed, in the order of recording; one that was recorded twice is printed twice.
Does not: check whether a delivery was right; `verify` does.
"""

import dataclasses
from typing import Any

from ccs_stream.log.deliveries import decode_delivery
from ccs_stream.projections.processes import describe_process
from ccs_stream.protocol.deliveries import DeliveryRecorded
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.ids import ArtifactId
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.replay.artifact import find_artifact
from ccs_stream.replay.event_text import artifact_name
from ccs_stream.replay.output import format_time, print_json_line, say
from ccs_stream.replay.source import Source


def run(source: Source, agent: str | None, artifact: str | None, *, as_json: bool) -> None:
    """Print the deliveries. Raises `UsageError` for an artifact that the log does not have."""
    folded = source.state_at(None)
    state = folded.state
    only: ArtifactId | None = None if artifact is None else find_artifact(state, artifact).artifact
    for data in source.store.read_deliveries(source.workspace):
        delivery = decode_delivery(data)
        if (agent is not None and delivery.agent != agent) or (only is not None and delivery.artifact != only):
            continue
        process = folded.processes.by_session.get(delivery.session_id)
        if as_json:
            print_json_line(document_of(delivery, state, process))
        else:
            say(text_of(delivery, state, process))


def document_of(delivery: DeliveryRecorded, state: Directory, process: ProcessIdentity | None) -> dict[str, Any]:
    """The delivery for programs: the fields of the record, ids as hex, and the artifact's address if the log has it."""
    known = state.artifacts.get(delivery.artifact)
    fields = {field.name: getattr(delivery, field.name) for field in dataclasses.fields(delivery)}
    for name in ("session_id", "artifact", "content_hash"):
        fields[name] = fields[name].hex()
    fields["at"] = format_time(delivery.at)
    return {
        **fields,
        "scope": None if known is None else list(known.scope),
        "key": None if known is None else known.key,
        "process": None if process is None else process.members(),
    }


def text_of(delivery: DeliveryRecorded, state: Directory, process: ProcessIdentity | None) -> str:
    """The delivery as a line for people."""
    about = f"{artifact_name(state, delivery.artifact)} v{delivery.version}"
    what = delivery.source if delivery.outcome == "content" else f"{delivery.source} ({delivery.outcome})"
    model = "" if delivery.conversation is None else f"  in {delivery.conversation}"
    named = (delivery.session_id.hex()[:8], str(delivery.number), describe_process(process))
    return (
        f"{delivery.valid_at_sequence:>8}  {format_time(delivery.at):<32}  {delivery.agent:<16}  {what:<17}  "
        f"{about}{model}  [{' '.join(part for part in named if part)}]"
    )
