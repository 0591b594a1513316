"""Decides a batch of commands into records that continue a log.

`LocalCoordinator` uses `plan`, `ShardCoordinator` uses `plan_shard`. Guarantees: pure but for the ids and times it is
given; each command is decided on the state that those before it would leave, on an overlay, so that a batch whose
append fails leaves no trace; an exception while deciding becomes a refusal, and the next command is served. Does not:
append.
"""

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head
from ccs_stream.log.port import Draft
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.decide import Decision, DropReason, decide, refusal_for_bug, refusal_of, refusal_of_invalid
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandAnswered, RefusalReason
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import GENESIS_HASH, DecisionIndex, Hash, Micros, SequenceNumber
from ccs_stream.protocol.leadership import QueuedCommand
from ccs_stream.protocol.overlay import Overlay
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)
_encoders: Final = DEFAULT_CODEC.encoders


class PlannedDecision:
    """The decision on one command; `record` and `draft` are None where it appends nothing."""

    __slots__ = ("command", "command_offset", "decision", "digest", "draft", "message", "offset", "record")

    def __init__(self, command: Command, decision: Decision, command_offset: int | None = None) -> None:
        self.command = command
        self.command_offset = command_offset
        self.decision = decision
        self.record: DecisionRecord | None = None
        self.draft: Draft | None = None
        self.digest: Hash | None = None
        self.message = b""
        """The record as one message, where the log is on Kafka."""
        self.offset = -1
        """Offset of the record, once it is in the log."""


class _WorkspaceEnd:
    """The end of one workspace as it would be after the decisions planned so far."""

    __slots__ = ("hash", "state", "view", "workspace")

    def __init__(self, workspace: str, state: Directory, cursor: Cursor, *, alone: bool) -> None:
        self.workspace = workspace
        self.state = state
        self.view: Directory | Overlay = state if alone else Overlay(state)
        end = cursor.workspaces.get(workspace)
        self.hash = GENESIS_HASH if end is None else end.hash


def plan(
    state: Directory, cursor: Cursor, workspace: str, commands: Sequence[Command], now: Micros
) -> list[PlannedDecision]:
    """Decide `commands` of one workspace in order, behind the place of `cursor` and `state`. Changes neither."""
    alone = len(commands) == 1
    end = _WorkspaceEnd(workspace, state, cursor, alone=alone)
    index = cursor.index
    batch: list[PlannedDecision] = []
    for command in commands:
        planned = PlannedDecision(command, _decide(end.view, command, now))
        batch.append(planned)
        if planned.decision.events:
            index = DecisionIndex(index + 1)
            _frame_checked(planned, end, cursor, index, now)
            if not alone and planned.record is not None:
                fold_decision(end.view, planned.decision.events, planned.record)
    return batch


def plan_shard(
    state_of: Callable[[str], Directory], cursor: Cursor, commands: Sequence[QueuedCommand], now: Micros
) -> list[PlannedDecision]:
    """Decide a batch of commands of any workspaces of one shard, in order. Changes nothing.

    A command that came by the commands topic always gets a decision, even if that changes nothing, so that the log
    answers it and carries its offset on. A command whose decision the broker did not take before is refused.
    """
    alone = len(commands) == 1
    ends: dict[str, _WorkspaceEnd] = {}
    index = cursor.index
    batch: list[PlannedDecision] = []
    for queued in commands:
        command, offset = queued.command, queued.offset
        end = ends.get(queued.workspace)
        if end is None:
            end = _WorkspaceEnd(queued.workspace, state_of(queued.workspace), cursor, alone=alone)
            ends[queued.workspace] = end
        at = max(now, end.state.recorded_at)
        if not end.view.opened and type(command) is not Open:
            # Its author never opened the workspace: it saw another log. No event may come before sequence 1.
            batch.append(PlannedDecision(command, Decision([], dropped=DropReason.NEVER_OPENED), offset))
            continue
        decision = _decide(end.view, command, at)
        if queued.refused is not None and decision.repeats is None and decision.dropped is None:
            # A decision that is in the log stays: only a new record for it is refused.
            decision = refusal_of(command, RefusalReason.DECISION_TOO_LARGE, queued.refused)
        if not decision.events and offset is not None:
            decision.events = [CommandAnswered(original_sequence=decision.repeats or SequenceNumber(0))]
        planned = PlannedDecision(command, decision, offset)
        batch.append(planned)
        if decision.events:
            index = DecisionIndex(index + 1)
            _frame_checked(planned, end, cursor, index, at)
            if not alone and planned.record is not None:
                fold_decision(end.view, planned.decision.events, planned.record)
    return batch


def _decide(view: Directory | Overlay, command: Command, now: Micros) -> Decision:
    try:
        return decide(view, command, now)
    except Exception as error:
        _raise_if_interrupted(error, functools.partial(decide, view, command, now))
        LOG.exception("deciding a %s raised: it is refused as internal_error", command.KIND)
        return refusal_for_bug(error)


def _raise_if_interrupted(error: Exception, work: Callable[[], object]) -> None:
    """Raise `error` again where it is not that of `work`, but of a signal handler which interrupted it.

    Deciding and encoding depend on nothing but what they are given: a bug shows the second time, too. Signal handlers
    run in the main thread only.
    """
    if threading.current_thread() is threading.main_thread():
        try:
            work()
        except Exception:  # noqa: BLE001  # a bug: its command is refused
            return
        raise error


def _frame_checked(
    planned: PlannedDecision, end: _WorkspaceEnd, cursor: Cursor, index: DecisionIndex, now: Micros
) -> None:
    """Frame a decision; where it cannot be encoded or is too large, its command is refused instead."""
    command, limit = planned.command, end.state.settings.maximum_decision_bytes
    try:
        draft = _frame(planned, end, cursor, index, now)
    except Exception as error:
        invalid = refusal_of_invalid(command)
        if invalid is None:
            _raise_if_interrupted(error, functools.partial(_frame, planned, end, cursor, index, now))
            LOG.exception("encoding the decision of a %s raised: it is refused as internal_error", command.KIND)
        planned.decision = invalid or refusal_for_bug(error)
        draft = _frame(planned, end, cursor, index, now)
    size = len(draft.head)
    for content in draft.contents:
        size += len(content)
    if size > limit:
        detail = f"the decision is larger than the {limit} bytes this workspace allows: change fewer artifacts at once"
        planned.decision = refusal_of(command, RefusalReason.DECISION_TOO_LARGE, detail)
        draft = _frame(planned, end, cursor, index, now)
    end.hash = planned.digest = chain_hash(draft.head)


def _frame(planned: PlannedDecision, end: _WorkspaceEnd, cursor: Cursor, index: DecisionIndex, now: Micros) -> Draft:
    """Put a decision into its envelope, behind the end of its workspace."""
    command, events = planned.command, planned.decision.events
    first = SequenceNumber(end.view.sequence + 1)
    critical = False
    for event in events:
        if event.CRITICAL:
            critical = True
            break
    contents = tuple(planned.decision.contents)
    record = planned.record = DecisionRecord(
        workspace=end.workspace,
        epoch=cursor.epoch,
        leader_id=cursor.leader_id,
        index=index,
        first_sequence=first,
        session_id=command.session_id,
        number=command.number,
        command_kind=command.KIND,
        command_offset=planned.command_offset,
        recorded_at=now,
        prev_hash=end.hash,
        critical=critical,
        events=tuple([_encoders[type(event)](event) for event in events]),
        contents=contents,
    )
    draft = planned.draft = Draft(encode_head(record), contents, first, first + len(events) - 1, events)
    return draft
