"""Writes and deletes: commits a batch of changes, and gives its author the results.

The engine holds one `Writer`; agents, workspaces and adapters reach it through the engine.

Guarantees: a write is reported under the version that it has in the log, once it is durable there, with the base that
its author had. A version that its author never saw and that it replaced is reported as such. A conflict carries the
current version and value. Does not: decide anything; the coordinator does.
"""

import asyncio
import contextlib
import functools
from collections.abc import Sequence

from ccs_stream.client.cache.content_cache import ContentCache
from ccs_stream.client.cache.delivery import NO_TIME, ReadCall
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.operations.cancellation import UNSETTLED_WAIT_S, Settlement
from ccs_stream.client.operations.changes import PendingContent, WriteBatch
from ccs_stream.client.operations.ports import DegradedOperations, WriteObserver
from ccs_stream.client.operations.reader import Reader
from ccs_stream.client.operations.session import LOST, UNNUMBERED, ClientSession, CommandSession
from ccs_stream.client.operations.steps import RunBlocking, Steps, WaitUntil, run, run_async
from ccs_stream.client.results import Written
from ccs_stream.client.values import decode
from ccs_stream.coordinator.answer import Answer
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.commands import ArtifactChange, Commit, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError, VersionConflict
from ccs_stream.protocol.events import ArtifactDeleted, CommandRefused, WriteCommitted
from ccs_stream.protocol.ids import Micros


class Writer:
    """Commits the changes of one workspace's agents."""

    def __init__(
        self, session: CommandSession, contents: ContentCache, recorder: DeliveryRecorder, reader: Reader
    ) -> None:
        self.degraded: DegradedOperations | None = None
        """How writes are queued while the log cannot be used, where `on_error="degrade"`."""
        self.observer: WriteObserver | None = None
        """Called with every write, where there is one."""
        self._coordinator: Coordinator = session.coordinator
        self._session = session
        self._recorder = recorder
        self._reader = reader
        self._results = CommitResults(session.coordinator.state, contents)

    # A commit of one change by an agent that has joined is what happens most. It needs no steps: there is nothing to
    # upload, to join or to queue. Where it turns out that the session was lost, the steps do it all again.

    def commit(self, batch: WriteBatch, what: str, tick: int) -> list[Written]:
        """Commit in the calling thread; one result a change. `what` names the commit in errors, `tick` is its call.

        Raises `Refused` and its kinds, and the `LogError`s of the log.
        """
        session = self._session.current
        if self._is_short(batch, session):
            begun, began_at = self._begin(batch)
            try:
                answer = self._coordinator.execute(_command(session, batch), session.numbers)
                refusal = answer.refusal
                if refusal is None:
                    return self._finish_one(batch, answer, tick, began_at, begun)
                if refusal.reason not in LOST:
                    run(self._coordinator, self._raise_refused(batch, refusal, what))
            except BaseException as error:
                self._failed(begun, error)
                raise
        return run(self._coordinator, self.commit_steps(batch, what, tick))

    async def commit_async(self, batch: WriteBatch, what: str, tick: int) -> list[Written]:
        """As `commit`, in the running event loop."""
        session = self._session.current
        if self._is_short(batch, session):
            begun, began_at = self._begin(batch)

            def settle(answer: Answer | None, error: BaseException | None) -> None:
                if answer is not None and answer.refusal is None:
                    self._finish_one(batch, answer, tick, began_at, begun)
                else:
                    self._failed(begun, error or asyncio.CancelledError())

            settlement = Settlement(settle, batch.read_set, (batch.changes[0].artifact,))
            try:
                answer = await self._coordinator.execute_async(
                    _command(session, batch), session.numbers, on_cancelled=settlement
                )
                refusal = answer.refusal
                if refusal is None:
                    return self._finish_one(batch, answer, tick, began_at, begun)
                if refusal.reason not in LOST:
                    await run_async(self._coordinator, self._raise_refused(batch, refusal, what))
            except BaseException as error:
                if not settlement.begun:
                    self._failed(begun, error)
                raise
        return await run_async(self._coordinator, self.commit_steps(batch, what, tick))

    def commit_steps(self, batch: WriteBatch, what: str, tick: int, *, atomic: bool = True) -> Steps[list[Written]]:
        """As `commit`, as steps.

        In degraded mode the changes may be queued, where the workspace has an outbox: several only if they need not be
        `atomic`.
        """
        begun, began_at = self._begin(batch)
        try:
            if batch.unsettled:
                unsettled = batch.read_set.unsettled
                yield WaitUntil(lambda: not unsettled, UNSETTLED_WAIT_S)
                batch.rebase()
            written = yield from self._commit_or_queue(batch, what, atomic=atomic)
        except BaseException as error:  # a caller that gives up raises GeneratorExit: nobody knows what came of it
            self._failed(begun, error)
            raise
        self._notify_observer(batch, written[0], tick, began_at, begun)
        return written

    def _commit_or_queue(self, batch: WriteBatch, what: str, *, atomic: bool) -> Steps[list[Written]]:
        degraded = self.degraded
        if degraded is None:
            return (yield from self._commit(batch, what))
        if not degraded.active:
            try:
                return (yield from self._commit(batch, what))
            except Exception as error:
                if not degraded.enters_on(error) or not degraded.may_queue(error):
                    raise
        return degraded.write(batch, what, atomic=atomic)

    def _commit(self, batch: WriteBatch, what: str) -> Steps[list[Written]]:
        uploads = [each for each in batch.contents if each.uploaded]
        changes = tuple(batch.changes)
        answer = yield from self._session.submit(
            batch.agent,
            lambda session: Commit(session_id=session, number=UNNUMBERED, agent=batch.agent, changes=changes),
            functools.partial(self._upload, uploads) if uploads else None,
            batch.read_set,
        )
        if answer.refusal is not None:
            if uploads:
                yield RunBlocking(functools.partial(self._withdraw, uploads))
            yield from self._raise_refused(batch, answer.refusal, what)
        written = self._results.all(answer, batch)
        for change, each in zip(changes, written, strict=True):
            self._recorder.finish_write(batch.agent, change, each, batch.read_set)
        return written

    def _upload(self, contents: Sequence[PendingContent]) -> None:
        for each in contents:
            each.upload(self._coordinator)

    def _withdraw(self, contents: Sequence[PendingContent]) -> None:
        with contextlib.suppress(CcsError):  # the author is told of the refusal; what stays is collected
            for each in contents:
                each.withdraw(self._coordinator)

    def _is_short(self, batch: WriteBatch, session: ClientSession) -> bool:
        contents = batch.contents
        return (
            len(batch.changes) == 1
            and not batch.unsettled
            and self.degraded is None
            and batch.agent in session.joined
            and not (contents and contents[0].uploaded)
        )

    def _finish_one(
        self, batch: WriteBatch, answer: Answer, tick: int, began_at: Micros, begun: Sequence[object | None]
    ) -> list[Written]:
        written = self._results.one(answer, batch)
        self._recorder.finish_write(batch.agent, batch.changes[0], written, batch.read_set)
        self._notify_observer(batch, written, tick, began_at, begun)
        return [written]

    # Observers.

    def _begin(self, batch: WriteBatch) -> tuple[Sequence[object | None], Micros]:
        observer = self.observer
        if observer is None:
            return (), NO_TIME
        began_at = observer.now()
        return observer.begin(batch), began_at

    def _failed(self, begun: Sequence[object | None], error: BaseException) -> None:
        if self.observer is not None:
            self.observer.failed(begun, error)

    def _notify_observer(
        self, batch: WriteBatch, written: Written, tick: int, began_at: Micros, begun: Sequence[object | None]
    ) -> None:
        if self.observer is not None:
            queued = written.queued is not None
            self.observer.wrote(batch, written.answer, tick=tick, began_at=began_at, queued=queued, begun=begun)

    def _raise_refused(self, batch: WriteBatch, refusal: CommandRefused, what: str) -> Steps[None]:
        """Raise the error for a refusal. A conflict carries the current value."""
        error = self._session.error_of(refusal, what)
        if isinstance(error, VersionConflict) and refusal.artifact is not None:
            # The author is given the value, and has not read it: to write again, the author reads again.
            unread = ReadSet()
            unread.context = batch.read_set.context
            found = (
                yield from self._reader.read_all_steps(
                    [(ReadCall(batch.agent, unread, operation=None), refusal.artifact)]
                )
            )[0]
            error.current_value = None if found is None else decode(found.state.content_type, found.content.body)
        raise error


def _command(session: ClientSession, batch: WriteBatch) -> Commit:
    return Commit(session_id=session.session_id, number=UNNUMBERED, agent=batch.agent, changes=tuple(batch.changes))


class CommitResults:
    """Derives the results of a commit from its decision, and keeps the bodies that were written."""

    def __init__(self, state: Directory, contents: ContentCache) -> None:
        self._state = state
        self._contents = contents

    def all(self, answer: Answer, batch: WriteBatch) -> list[Written]:
        """The results of all changes of a decision, in their order."""
        events = {
            event.artifact: event
            for event in answer.events
            if type(event) is WriteCommitted or type(event) is ArtifactDeleted
        }
        contents = iter(batch.contents)
        return [
            self._result(
                answer,
                change,
                events.get(change.artifact),
                next(contents) if type(change) is Write else None,
                batch.read_set,
            )
            for change in batch.changes
        ]

    def one(self, answer: Answer, batch: WriteBatch) -> Written:
        """The result of the only change of a decision."""
        change, content = batch.changes[0], batch.contents[0] if batch.contents else None
        for event in reversed(answer.events):  # what had expired ends first
            if type(event) is WriteCommitted or type(event) is ArtifactDeleted:
                return self._result(answer, change, event, content, batch.read_set)
        return self._result(answer, change, None, content, batch.read_set)

    def _result(
        self,
        answer: Answer,
        change: ArtifactChange,
        event: WriteCommitted | ArtifactDeleted | None,
        content: PendingContent | None,
        read_set: ReadSet,
    ) -> Written:
        artifact, base = change.artifact, change.base_version
        if event is None:
            return Written(version=None, base_version=base, overwrote_unseen=False, answer=answer)
        version = event.version
        state = self._state.artifacts[artifact]
        # Seen means read or written in this flow, also after this write was submitted.
        seen = version - 1 in (base, read_set.versions.get(artifact))
        # Created, or brought back: it replaced nothing. (Nobody knows, where it was brought back once more since.)
        created = state.born >= version
        read_set.record(artifact, version)
        if content is not None:
            self._contents.keep(state, content.body, version)
        unseen = version > 1 and not seen and not created
        return Written(version=version, base_version=base, overwrote_unseen=unseen, answer=answer)
