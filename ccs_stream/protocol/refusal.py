"""The exception by which a rule refuses a command.

Guarantees: a refusal becomes one `CommandRefused` that carries what the author needs to go on: the reason, a sentence,
the current version, the fence. Does not: leave this package; `decide` catches it.
"""

from typing import Any, Final

from ccs_stream.protocol import dedupe
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.directory import ArtifactState, ParticipantState
from ccs_stream.protocol.errors import rebuild_error
from ccs_stream.protocol.events import CommandRefused, RefusalReason
from ccs_stream.protocol.ids import ArtifactId, Fence, Micros, Version
from ccs_stream.protocol.reclaims import Reclaim, ReclaimReason

TEXT_MAX: Final = 1_000
"""Characters of an author's own text that a refusal repeats: the refusal of a record too large must not be too
large."""


class Refusal(Exception):
    """Raised by a rule, caught by `decide`."""

    def __init__(self, reason: RefusalReason, detail: str, artifact: ArtifactState | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.artifact: ArtifactId | None = None
        self.current_version: Version | None = None
        self.fence: Fence | None = None
        if artifact is not None:
            self.artifact, self.current_version = artifact.artifact, artifact.version
            self.fence = artifact.fence or None

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_error, (type(self), self.args, self.__dict__.copy())

    def event(self, command: Command) -> CommandRefused:
        """The event that records this refusal of `command`."""
        return CommandRefused(
            agent=_author(command),
            reason=self.reason,
            detail=self.detail[:TEXT_MAX],
            artifact=self.artifact,
            current_version=self.current_version,
            fence=self.fence,
            subject=dedupe.subject_of_command(command),
        )


def _author(command: Command) -> str:
    """The agent of a command as a refusal can repeat it; empty where there is none, or no text."""
    agent = getattr(command, "agent", "")
    return agent[:TEXT_MAX].encode("utf-8", "replace").decode() if isinstance(agent, str) else ""


def reclaim_of(participant: ParticipantState, artifact: ArtifactState, now: Micros) -> Reclaim | None:
    """Why and when `participant` lost its reservation or grant here; None where it lost none, or that is not known.

    A reservation whose time is over is lost, whether the log has an event for its end or not.
    """
    if artifact.reserved_by == participant.number and artifact.reserved_until <= now:
        return Reclaim(ReclaimReason.EXPIRED, artifact.reserved_until)
    return participant.reclaimed.get(artifact.artifact)
