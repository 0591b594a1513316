"""The rules for changing artifacts: commit, commit_all, delete, and the end of reservations and lives that ran out.

`decide` calls them. Guarantees: all changes of one command or none; a change made during a reservation carries
its fence; a participant whose reservation or grant was reclaimed writes nothing until it has read again, in every mode.
Does not: judge a last-writer-wins write over a newer version; it records the base, so that the loss shows.
"""

from typing import Final

from ccs_stream.protocol import events as ev
from ccs_stream.protocol.command_checks import (
    PLAIN_MEDIA,
    check_change,
    check_content,
    check_options,
    ends_at,
)
from ccs_stream.protocol.commands import ArtifactChange, Commit, Content, Erase, Write, WriteMode
from ccs_stream.protocol.directory import ArtifactState, ParticipantState, View
from ccs_stream.protocol.ids import (
    NOBODY,
    Fence,
    Micros,
    ParticipantNumber,
    SequenceNumber,
    Version,
)
from ccs_stream.protocol.reclaims import reclaim_sentence
from ccs_stream.protocol.refusal import Refusal, reclaim_of
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.states import GrantState

HOLDERS_MAX: Final = 4_096
"""Copies of one artifact at the same time, at most: naming all of them takes some 12 KB."""
HOLDERS_LEAST: Final = 16
_BYTES_FOR_A_HOLDER: Final = 64
"""Of a decision's size: a number takes up to ten bytes, and the rest is for what else is in the decision."""


def decide_commit(
    view: View, command: Commit, author: ParticipantState, now: Micros, contents: list[bytes]
) -> list[ev.Event]:
    """Events of a commit of `author`; inline bodies are appended to `contents`. Raises `Refusal`."""
    writer = author.number
    changes = command.changes
    if len(changes) > 1:
        _check_changes(view, changes)
    events: list[ev.Event] = []
    for change in changes:
        artifact = view.artifacts.get(change.artifact)
        # Only a new address, or a number that the format cannot hold (a negative one is -1 after the shift).
        if artifact is None or ((change.base_version or 0) | (change.fence or 0)) >> 63:
            check_change(change)
        _check_permission(artifact, change, author, now)
        version = end_expired(artifact, now, events)
        _check_base(artifact, change, version, now)
        if type(change) is Write:
            _check_content(view, change.content, now)
            _write(view, artifact, change, writer, version, now, contents, events)
            continue
        check_change(change)
        if isinstance(change, Erase) and artifact is not None and version == artifact.version and artifact.exists:
            _erase(artifact, change, writer, events)
    return events


def _check_changes(view: View, changes: tuple[ArtifactChange, ...]) -> None:
    if len(changes) > view.settings.maximum_changes:
        detail = f"{len(changes)} changes in one commit, at most {view.settings.maximum_changes} are allowed: split it"
        raise Refusal(ev.RefusalReason.TOO_MANY_CHANGES, detail)
    if len({change.artifact for change in changes}) != len(changes):
        detail = "the commit changes one artifact twice: keep the last change of each"
        raise Refusal(ev.RefusalReason.DUPLICATE_ARTIFACT, detail)


def _check_permission(
    artifact: ArtifactState | None, change: ArtifactChange, author: ParticipantState, now: Micros
) -> None:
    if artifact is None:
        if change.fence is not None:
            raise Refusal(ev.RefusalReason.FENCED, "no reservation stands for this artifact")
        return
    writer, holder = author.number, artifact.reserved_by
    lapsed = holder != NOBODY and artifact.reserved_until <= now
    if writer in artifact.reclaimed or (lapsed and holder == writer):
        raise Refusal(ev.RefusalReason.RECLAIMED, reclaim_sentence(reclaim_of(author, artifact, now)), artifact)
    if holder != NOBODY and not lapsed:
        if change.fence == artifact.fence and holder == writer:
            return
        if change.fence is None:
            detail = "the artifact is reserved: wait for the release, or change it with the reservation's fence"
            raise Refusal(ev.RefusalReason.RESERVED, detail, artifact)
    if change.fence is not None:
        detail = f"fence {change.fence} is not that of a standing reservation of yours: acquire again"
        raise Refusal(ev.RefusalReason.FENCED, detail, artifact)


def _check_base(artifact: ArtifactState | None, change: ArtifactChange, version: Version, now: Micros) -> None:
    """compare_and_set: the base equals the current version, tombstones included; None: nothing may exist."""
    if change.mode is not WriteMode.COMPARE_AND_SET:
        return
    base = change.base_version
    if base is None:
        if artifact is None or not artifact.readable(now):
            return
        detail = f"the artifact exists at version {version}, and the author never read it"
    elif base == version:
        return
    else:
        detail = f"the author read version {base}, the current version is {version}"
    raise Refusal(ev.RefusalReason.VERSION_CONFLICT, f"{detail}: read again, merge, write again", artifact)


def _check_content(view: View, content: Content, now: Micros) -> None:
    settings = view.settings
    if (content.content_type, content.content_encoding) not in PLAIN_MEDIA or content.size >> 63:
        check_content(content)
    if content.size > settings.maximum_content_bytes:
        detail = f"the body has {content.size} bytes, the workspace allows {settings.maximum_content_bytes}"
        raise Refusal(ev.RefusalReason.CONTENT_TOO_LARGE, detail)
    if content.uploaded_at is not None and now - content.uploaded_at > settings.content_grace_us:
        detail = "the upload is older than the grace time and may be collected: upload the body again"
        raise Refusal(ev.RefusalReason.CONTENT_TOO_OLD, detail)


def end_expired(artifact: ArtifactState | None, now: Micros, events: list[ev.Event]) -> Version:
    """End a reservation and a life that have run out where a command meets them; returns the version after that."""
    if artifact is None:
        return Version(0)
    if artifact.reserved_by != NOBODY and artifact.reserved_until <= now:
        events.append(reservation_expired(artifact))
    if artifact.expires_at is not None and artifact.expires_at <= now and artifact.exists:
        expire(artifact, events)
        return Version(artifact.version + 1)
    return artifact.version


def reservation_expired(artifact: ArtifactState) -> ev.ReservationEnded:
    """The end of a reservation whose time is over."""
    return ev.ReservationEnded(
        artifact=artifact.artifact,
        participant=artifact.reserved_by,
        fence=Fence(artifact.fence + 1),
        reason=ev.ReservationEndReason.EXPIRED,
    )


def expire(artifact: ArtifactState, events: list[ev.Event]) -> None:
    """The tombstone of an artifact whose life is over, and the event for the copies that it makes stale."""
    version = Version(artifact.version + 1)
    events.append(
        ev.ArtifactDeleted(
            artifact=artifact.artifact,
            participant=NOBODY,
            version=version,
            base_version=None,
            previous_sequence=artifact.sequence,
            reason=ev.DeleteReason.EXPIRED,
        )
    )
    _invalidate(artifact, version, NOBODY, events)


def crowded_out(view: View, artifact: ArtifactState, events: list[ev.Event]) -> None:
    """Before one more reader: where there are too many for a write to name, the first of them lose their copies.

    So a write, a delete and an expiry always fit into a record, however many have read. Those who lose a copy fetch it
    when they read again. An eighth goes at once, so that this costs little for each reader.
    """
    allowed = holders_allowed(view.settings)
    if len(artifact.sharers) < allowed:
        return
    named = sorted(artifact.sharers)[: min(max(len(artifact.sharers) - allowed + 1, allowed // 8), allowed * 4)]
    events.append(
        ev.GrantsInvalidated(
            artifact=artifact.artifact,
            version=artifact.version,
            owner=NOBODY,
            owner_state=GrantState.INVALID,
            sharers=named,
        )
    )


def holders_allowed(settings: WorkspaceSettings) -> int:
    """How many participants may hold copies of one artifact."""
    return min(max(settings.maximum_decision_bytes // _BYTES_FOR_A_HOLDER, HOLDERS_LEAST), HOLDERS_MAX)


def _replaced(view: View, artifact: ArtifactState | None, version: Version, events: list[ev.Event]) -> SequenceNumber:
    """Sequence of the event that made `version`, which may be the tombstone just decided."""
    if artifact is None:
        return SequenceNumber(0)
    if version == artifact.version:
        return artifact.sequence
    index = next(i for i in range(len(events) - 1, -1, -1) if type(events[i]) is ev.ArtifactDeleted)
    return SequenceNumber(view.sequence + index + 1)


def _write(
    view: View,
    artifact: ArtifactState | None,
    change: Write,
    writer: ParticipantNumber,
    version: Version,
    now: Micros,
    contents: list[bytes],
    events: list[ev.Event],
) -> None:
    if artifact is None:
        events.append(ev.ArtifactRegistered(artifact=change.artifact, scope=change.scope, key=change.key))
    content = change.content
    content_index: int | None = None
    if content.body is None:
        check_content(content)
    else:
        content_index = len(contents)
        contents.append(content.body)
    written = Version(version + 1)
    events.append(
        ev.WriteCommitted(
            artifact=change.artifact,
            participant=writer,
            version=written,
            base_version=change.base_version,
            previous_sequence=_replaced(view, artifact, version, events),
            content_type=content.content_type,
            content_encoding=content.content_encoding,
            content_hash=content.content_hash,
            content_size=content.size,
            content_index=content_index,
            content_locator=content.locator,
            options=_options(change, now),
        )
    )
    # The tombstone of an expired life has named the holders already.
    if artifact is not None and version == artifact.version:
        _invalidate(artifact, written, writer, events)


def _options(change: Write, now: Micros) -> ev.WriteOptions | None:
    """The options of a write; None where it has none, as most writes."""
    ttl_us, index_fields = change.ttl_us, change.index_fields
    if ttl_us is None and index_fields is None and change.reason is None and change.trace_parent is None:
        return None
    check_options(change)
    return ev.WriteOptions(
        expires_at=None if ttl_us is None else ends_at(now, ttl_us, "a life"),
        ttl_us=ttl_us,
        index_fields=index_fields,
        reason=change.reason,
        trace_parent=change.trace_parent,
    )


def _erase(artifact: ArtifactState, change: Erase, writer: ParticipantNumber, events: list[ev.Event]) -> None:
    version = Version(artifact.version + 1)
    events.append(
        ev.ArtifactDeleted(
            artifact=artifact.artifact,
            participant=writer,
            version=version,
            base_version=change.base_version,
            previous_sequence=artifact.sequence,
            reason=ev.DeleteReason.DELETED,
            note=change.reason,
        )
    )
    _invalidate(artifact, version, NOBODY, events)


def _invalidate(artifact: ArtifactState, version: Version, writer: ParticipantNumber, events: list[ev.Event]) -> None:
    """One event for all holders but the writer: a write costs O(holders) bytes once."""
    owner = artifact.owner if artifact.owner != writer else NOBODY
    sharers = artifact.sharers
    if owner == NOBODY and (not sharers or (len(sharers) == 1 and writer in sharers)):
        return
    named = sorted(sharers)
    if writer in sharers:
        named.remove(writer)
    events.append(
        ev.GrantsInvalidated(
            artifact=artifact.artifact,
            version=version,
            owner=owner,
            owner_state=artifact.owner_state if owner != NOBODY else GrantState.INVALID,
            sharers=named,
        )
    )
