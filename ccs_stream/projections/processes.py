"""Which process each session ran in: folded from `ParticipantJoined`.

`ccs-replay` uses it to show who acted, long after the sessions ended; the directory knows live sessions only.

Guarantees: what a process said when it first joined in a session. Does not: forget; it holds one entry for each session
that said anything.
"""

from collections.abc import Iterable
from typing import Any

from ccs_stream.protocol.events import Event, ParticipantJoined
from ccs_stream.protocol.ids import SessionId
from ccs_stream.protocol.process_identity import ProcessIdentity


class Processes:
    """Identities by session."""

    def __init__(self) -> None:
        self.by_session: dict[SessionId, ProcessIdentity] = {}
        """In the order in which they joined."""
        self.agents: dict[SessionId, list[str]] = {}
        """Names of the agents that acted in each of these sessions."""

    def decision(self, events: Iterable[Event]) -> None:
        """Fold the events of an admitted decision."""
        for event in events:
            if type(event) is not ParticipantJoined:
                continue
            identity = ProcessIdentity.of(event)
            if identity is not None:
                self.by_session.setdefault(event.session_id, identity)
            if event.session_id in self.by_session:
                self.agents.setdefault(event.session_id, []).append(event.agent)

    def described(self) -> list[dict[str, Any]]:
        """All of them as data."""
        return [
            {"session_id": session.hex(), "agents": self.agents[session], **identity.members()}
            for session, identity in self.by_session.items()
        ]


def describe_process(identity: ProcessIdentity | None) -> str:
    """A process in few words, such as `worker-3:4711 train.py run=7`; empty where nothing is known."""
    if identity is None:
        return ""
    host = identity.host or ""
    place = host if identity.pid is None else f"{host}:{identity.pid}"
    program = "" if identity.program is None else identity.program.replace("\\", "/").rpartition("/")[2]
    labels = [f"{name}={value}" for name, value in (identity.labels or {}).items()]
    return " ".join(part for part in (place, program, *labels) if part)
