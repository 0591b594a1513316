"""From a user's arguments to the changes of one decision.

Agents, workspaces and adapters fill a `WriteBatch`, which the writer commits.

Guarantees: a body too large for the workspace is refused before anything is appended. What does not fit into one record
is marked for upload. Does not: append anything.
"""

import dataclasses
import enum
from collections.abc import Callable
from typing import Final

from ccs_stream.client.cache.delivery import Address
from ccs_stream.client.cache.read_set import ReadSet
from ccs_stream.client.values import content_of
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.commands import ArtifactChange, Content, Erase, Write, WriteMode
from ccs_stream.protocol.errors import TooLarge
from ccs_stream.protocol.events import RefusalReason
from ccs_stream.protocol.ids import ArtifactId, Micros, Scope, Version
from ccs_stream.protocol.limits import check_reason
from ccs_stream.protocol.settings import WorkspaceSettings


class Condition(enum.Enum):
    """The condition of a write that names no version."""

    NONE = "none"
    """Nothing: the last writer wins. What the flow has read is recorded as the base."""
    LAST_READ = "last_read"
    """The version that the flow has read, or that it has read none."""


Expected = Condition | Version | None
"""A condition, or the version that must be current; None: nothing may exist."""


class PendingContent:
    """A body on its way into a commit."""

    __slots__ = ("body", "content", "uploaded")

    def __init__(self, content: Content, body: bytes, *, uploaded: bool) -> None:
        self.content = content
        self.body = body
        self.uploaded = uploaded
        """True if it is too large to travel in its decision, and goes to the content store first."""

    def upload(self, coordinator: Coordinator) -> None:
        """Keep the body in the content store, before the decision that names it. Once is enough."""
        if self.content.locator is None:
            self.content.locator = coordinator.store.put_content(self.body)
            self.content.body = None
            self.content.uploaded_at = coordinator.now()

    def withdraw(self, coordinator: Coordinator) -> None:
        """Free the body in the content store: its commit was refused, and no decision names it."""
        locator = self.content.locator
        if locator is not None:
            self.content.body, self.content.locator, self.content.uploaded_at = self.body, None, None
            coordinator.store.drop_content(locator)


def _too_large(size: int, allowed: int, scope: Scope, key: str) -> TooLarge:
    where = f" in {scope!r}" if scope else ""
    return TooLarge(
        f"write of {key!r}{where}: the body has {size} bytes, the workspace allows {allowed}: split it, or open a "
        "workspace with a larger maximum_content_bytes",
        reason=RefusalReason.CONTENT_TOO_LARGE.value,
    )


class WriteBatch:
    """The changes of one agent that are committed in one decision."""

    __slots__ = (
        "_address_of",
        "_inline_left",
        "_settings",
        "addresses",
        "agent",
        "changes",
        "contents",
        "read_set",
        "unsettled",
    )

    def __init__(
        self,
        agent: str,
        read_set: ReadSet,
        settings: WorkspaceSettings,
        address_of: Callable[[Scope, str], ArtifactId],
    ) -> None:
        """Made by `Engine.batch`."""
        self.agent = agent
        self.read_set = read_set
        """The read set of the author's flow: the base of each change."""
        self.changes: list[ArtifactChange] = []
        self.contents: list[PendingContent] = []
        """The bodies of the writes, in order."""
        self.addresses: list[Address] = []
        """The address of each change, in order."""
        self.unsettled: list[int] = []
        """Places of the changes whose base is that of a cancelled write which is still on its way: see `rebase`."""
        self._settings = settings
        self._address_of = address_of
        # Half of what one record may hold travels inline; the rest goes to the content store, so that it fits.
        self._inline_left = settings.maximum_decision_bytes // 2

    def write(  # noqa: PLR0913  # what a write may say
        self,
        scope: Scope,
        key: str,
        content_type: str,
        body: bytes,
        *,
        expected: Expected = Condition.NONE,
        ttl_us: Micros | None = None,
        index_fields: tuple[str, ...] | None = None,
        reason: str | None = None,
        namespace: tuple[str, ...] | None = None,
    ) -> None:
        """Add a write. Raises `UsageError` for a bad address, `TooLarge`."""
        artifact = self._address_of(scope, key)
        if reason is not None:
            check_reason(reason)
        read_set, settings = self.read_set, self._settings
        if read_set.unsettled and isinstance(expected, Condition):
            self.unsettled.append(len(self.changes))
        content = content_of(content_type, body)
        size = content.size
        if size > settings.maximum_content_bytes:
            raise _too_large(size, settings.maximum_content_bytes, scope, key)
        pending = PendingContent(content, body, uploaded=size > min(settings.inline_content_bytes, self._inline_left))
        if not pending.uploaded:
            self._inline_left -= size
        self.changes.append(
            Write(
                artifact=artifact,
                scope=scope,
                key=key,
                content=content,
                mode=_MODE_NONE if expected is Condition.NONE else _MODE_CAS,
                base_version=read_set.base(artifact) if isinstance(expected, Condition) else expected,
                fence=read_set.fences.get(artifact),
                ttl_us=ttl_us,
                index_fields=index_fields,
                reason=reason,
            )
        )
        self.contents.append(pending)
        self.addresses.append((scope if namespace is None else namespace, scope, key))

    def rebase(self) -> None:
        """Base the changes that were `unsettled` on what their flow has read or written by now."""
        for place in self.unsettled:
            change = self.changes[place]
            self.changes[place] = dataclasses.replace(change, base_version=self.read_set.base(change.artifact))
        self.unsettled = []

    def delete(
        self,
        scope: Scope,
        key: str,
        *,
        expected: Expected = Condition.NONE,
        reason: str | None = None,
        namespace: tuple[str, ...] | None = None,
    ) -> None:
        """Add a delete. Raises `UsageError` for a bad address."""
        artifact = self._address_of(scope, key)
        check_reason(reason)
        read_set = self.read_set
        if read_set.unsettled and isinstance(expected, Condition):
            self.unsettled.append(len(self.changes))
        self.changes.append(
            Erase(
                artifact=artifact,
                mode=_MODE_NONE if expected is Condition.NONE else _MODE_CAS,
                base_version=read_set.base(artifact) if isinstance(expected, Condition) else expected,
                fence=read_set.fences.get(artifact),
                reason=reason,
            )
        )
        self.addresses.append((scope if namespace is None else namespace, scope, key))


_MODE_NONE: Final = WriteMode.LAST_WRITER_WINS
_MODE_CAS: Final = WriteMode.COMPARE_AND_SET
