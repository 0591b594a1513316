"""What an agent can do, as steps: the one implementation behind every sync and async method, and behind adapters.

Guarantees: a read answers from the folded state at a known position; a write is reported when it is durable, under the
version its author's execution scope had last read; a conflict carries the current version and value. Does not: know
frameworks, or what a namespace means.
"""

import functools
from collections.abc import Sequence

from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.degraded.fallback import may_queue
from ccs_stream.client.operations.commit import PendingContent, commit_of
from ccs_stream.client.operations.reader import Reader
from ccs_stream.client.operations.session import LOST
from ccs_stream.client.operations.steps import Steps, run, run_async
from ccs_stream.client.results import Written
from ccs_stream.client.values import content_of, decode
from ccs_stream.protocol.commands import ArtifactChange
from ccs_stream.protocol.errors import CcsError, TooLarge, VersionConflict
from ccs_stream.protocol.events import CommandRefused, RefusalReason


class Engine(Reader):
    """The operations of one workspace, for all its agents."""

    def prepare(self, content_type: str, body: bytes, *, inline_left: int, what: str) -> PendingContent:
        """A body on its way into a commit. Raises `TooLarge` before anything is appended."""
        settings = self.state.settings
        content = content_of(content_type, body)
        if content.size > settings.maximum_content_bytes:
            raise TooLarge(
                f"{what}: the body has {content.size} bytes, the workspace allows {settings.maximum_content_bytes}: "
                "split it, or open a workspace with a larger maximum_content_bytes",
                reason=RefusalReason.CONTENT_TOO_LARGE.value,
            )
        return PendingContent(content, body, uploaded=content.size > min(settings.inline_content_bytes, inline_left))

    def commit(
        self,
        agent: str,
        changes: Sequence[ArtifactChange],
        scope: ReadSet,
        what: str,
        outgoing: Sequence[PendingContent] = (),
        *,
        atomic: bool = True,
    ) -> Steps[list[Written]]:
        """Commit changes, all or none; one result a change. Raises `Refused` and its kinds.

        While the log cannot be used they may be kept for later, where that was asked for; several only if they need not
        be `atomic`.
        """
        fallback = self.fallback
        if fallback is None:
            return (yield from self._commit(agent, changes, scope, what, outgoing))
        if not fallback.active:
            try:
                return (yield from self._commit(agent, changes, scope, what, outgoing))
            except Exception as error:
                if not fallback.takes(error) or not may_queue(error):
                    raise
        return fallback.write(agent, changes, outgoing, scope, what=what, atomic=atomic)

    def _commit(
        self,
        agent: str,
        changes: Sequence[ArtifactChange],
        scope: ReadSet,
        what: str,
        outgoing: Sequence[PendingContent],
    ) -> Steps[list[Written]]:
        uploads = [each for each in outgoing if each.uploaded]
        answer = yield from self.ask(
            agent,
            lambda session: commit_of(session, agent, tuple(changes)),
            functools.partial(self._upload, uploads) if uploads else None,
        )
        if answer.refusal is not None:
            raise (yield from self._refused(agent, answer.refusal, scope, what))
        written = self._settling.all(answer, changes, outgoing, scope)
        for change, each in zip(changes, written, strict=True):
            self.serving.wrote(agent, change, each, scope)
        return written

    # The short way of `commit`, without steps, for what happens most: one change of an agent that has joined, and no
    # upload. None when it is not that simple, or the session was lost, or it may have to wait for the log to be back;
    # then nothing was changed, and `commit` does it.

    def commit_now(
        self, agent: str, change: ArtifactChange, scope: ReadSet, sent: PendingContent | None, what: str
    ) -> Written | None:
        """One change, in the calling thread. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded) or self.fallback is not None:
            return None
        answer = self.coordinator.execute(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            written = self._settling.one(answer, change, sent, scope)
            self.serving.wrote(agent, change, written, scope)
            return written
        if refusal.reason in LOST:
            return None
        raise run(self.coordinator, self._refused(agent, refusal, scope, what))

    async def commit_soon(
        self, agent: str, change: ArtifactChange, scope: ReadSet, sent: PendingContent | None, what: str
    ) -> Written | None:
        """One change, in the running event loop. Raises `Refused` and its kinds."""
        session = self.session
        if agent not in session.joined or (sent is not None and sent.uploaded) or self.fallback is not None:
            return None
        answer = await self.coordinator.execute_async(commit_of(session.session_id, agent, (change,)), session.numbers)
        refusal = answer.refusal
        if refusal is None:
            written = self._settling.one(answer, change, sent, scope)
            self.serving.wrote(agent, change, written, scope)
            return written
        if refusal.reason in LOST:
            return None
        raise await run_async(self.coordinator, self._refused(agent, refusal, scope, what))

    def _refused(self, agent: str, refusal: CommandRefused, scope: ReadSet, what: str) -> Steps[CcsError]:
        """The error for a refusal, with what there is now where that was not what was expected."""
        error = self.error_of(refusal, what)
        if isinstance(error, VersionConflict) and refusal.artifact is not None:
            # Given, but not read: to write again, its author reads again.
            aside = ReadSet()
            aside.context = scope.context
            served = (yield from self.read_all([(agent, refusal.artifact, aside)]))[0]
            error.current_value = None if served is None else decode(served.state.content_type, served.body.body)
        return error

    def _upload(self, outgoing: Sequence[PendingContent]) -> None:
        """Keep bodies too large to travel inline, before the decision that names them."""
        for each in outgoing:
            if each.content.locator is None:
                each.content.locator = self.coordinator.store.put_content(each.body)
                each.content.body = None
                each.content.uploaded_at = self.coordinator.now()
