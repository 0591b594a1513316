"""A commit of an agent: what goes into it, and what it means to its author once it was decided.

Guarantees: a write is reported under the version it has in the log, with the base its author had; a version that its
author never saw and that it replaced is reported as such. Does not: ask; `engine` does.
"""

from collections.abc import Sequence
from typing import Final

from ccs_stream.client.cache.content_cache import ContentCache
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.results import Written
from ccs_stream.coordinator.answer import Answer
from ccs_stream.protocol.commands import ArtifactChange, Commit, Content, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import ArtifactDeleted, WriteCommitted
from ccs_stream.protocol.ids import CommandNumber, SessionId

UNNUMBERED: Final = CommandNumber(0)
"""The coordinator gives a command its number when it decides it, so that numbers follow the order of decisions."""


class PendingContent:
    """A body on its way; `uploaded` when it is too large to travel in its decision."""

    __slots__ = ("body", "content", "uploaded")

    def __init__(self, content: Content, body: bytes, *, uploaded: bool) -> None:
        self.content = content
        self.body = body
        self.uploaded = uploaded


def commit_of(session_id: SessionId, agent: str, changes: tuple[ArtifactChange, ...]) -> Commit:
    """The command."""
    return Commit(session_id=session_id, number=UNNUMBERED, agent=agent, changes=changes)


class CommitResults:
    """Tells authors what became of their changes, and keeps the bodies they wrote."""

    def __init__(self, state: Directory, bodies: ContentCache) -> None:
        self._state = state
        self._bodies = bodies

    def all(
        self, answer: Answer, changes: Sequence[ArtifactChange], outgoing: Sequence[PendingContent], scope: ReadSet
    ) -> list[Written]:
        """Of the changes of one decision, in their order."""
        made = {
            event.artifact: event
            for event in answer.events
            if type(event) is WriteCommitted or type(event) is ArtifactDeleted
        }
        sent = {id(each.content): each for each in outgoing}
        return [
            self._settle(
                answer,
                change,
                made.get(change.artifact),
                sent[id(change.content)] if type(change) is Write else None,
                scope,
            )
            for change in changes
        ]

    def one(self, answer: Answer, change: ArtifactChange, sent: PendingContent | None, scope: ReadSet) -> Written:
        """Of the only change of a decision."""
        for event in reversed(answer.events):  # what had expired ends first
            if type(event) is WriteCommitted or type(event) is ArtifactDeleted:
                return self._settle(answer, change, event, sent, scope)
        return self._settle(answer, change, None, sent, scope)

    def _settle(
        self,
        answer: Answer,
        change: ArtifactChange,
        event: WriteCommitted | ArtifactDeleted | None,
        sent: PendingContent | None,
        scope: ReadSet,
    ) -> Written:
        artifact, base = change.artifact, change.base_version
        if event is None:
            return Written(version=None, base_version=base, overwrote_unseen=False, answer=answer)
        version = event.version
        state = self._state.artifacts[artifact]
        # Seen means read or written by this scope, be it after this write was asked for.
        seen = version - 1 in (base, scope.versions.get(artifact))
        created = state.created_at == answer.recorded_at  # or brought back: then it replaced nothing
        scope.saw(artifact, version)
        if sent is not None:
            self._bodies.keep(state, sent.body, version)
        unseen = version > 1 and not seen and not created
        return Written(version=version, base_version=base, overwrote_unseen=unseen, answer=answer)
