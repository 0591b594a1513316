"""One run of this process against one workspace: an id, numbered commands, the agents that have joined.

Guarantees: a session that the log has ended is replaced by a new one, and the refused command is asked again once,
because a refused command changed nothing. Does not: carry grants or reservations over; those ended.
"""

import dataclasses
import uuid

from ccs_stream.coordinator.pending_command import CommandCounter
from ccs_stream.protocol.ids import ParticipantNumber, SessionId


@dataclasses.dataclass(slots=True)
class ClientSession:
    """A session as its client knows it."""

    session_id: SessionId = dataclasses.field(default_factory=lambda: SessionId(uuid.uuid4().bytes))
    numbers: CommandCounter = dataclasses.field(default_factory=CommandCounter)
    joined: dict[str, ParticipantNumber] = dataclasses.field(default_factory=dict)
