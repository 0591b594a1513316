"""Deciding a batch of commands into records that continue a log.

Guarantees: pure but for the ids and times it is given; each command is decided on the state that those before it would
leave, on an overlay, so that a batch whose append fails leaves no trace; an exception while deciding becomes a refusal,
and the next command is served. Does not: append.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash, encode_head
from ccs_stream.log.port import Draft
from ccs_stream.protocol.admit import Cursor
from ccs_stream.protocol.commands import Command, Open
from ccs_stream.protocol.decide import Decision, Dropped, decide, refusal_for_bug, refusal_of
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import CommandAnswered, RefusalReason
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import DecisionIndex, Epoch, Hash, LeaderId, Micros, SequenceNumber
from ccs_stream.protocol.leadership import QueuedCommand
from ccs_stream.protocol.overlay import Overlay
from ccs_stream.protocol.records import DecisionRecord

LOG = logging.getLogger(__name__)
_encoders: Final = DEFAULT_CODEC.encoders


class PlannedDecision:
    """One command's decision; `record` and `draft` are None where it appends nothing."""

    __slots__ = ("command", "command_offset", "decision", "digest", "draft", "message", "offset", "record")

    def __init__(self, command: Command, decision: Decision, command_offset: int | None = None) -> None:
        self.command = command
        self.command_offset = command_offset
        self.decision = decision
        self.record: DecisionRecord | None = None
        self.draft: Draft | None = None
        self.digest: Hash | None = None
        self.message = b""
        """Its record as one message, where the log keeps it so."""
        self.offset = -1
        """Where it came to stand in the log."""


class _Line:
    """Where one workspace would stand after what was planned so far."""

    __slots__ = ("hash", "state", "view", "workspace")

    def __init__(self, workspace: str, state: Directory, cursor: Cursor, *, alone: bool) -> None:
        self.workspace = workspace
        self.state = state
        self.view: Directory | Overlay = state if alone else Overlay(state)
        self.hash = cursor.end(workspace).hash


def plan(
    state: Directory, cursor: Cursor, workspace: str, commands: Sequence[Command], now: Micros
) -> list[PlannedDecision]:
    """Decide `commands` in order where `cursor` and `state` stand. Changes neither."""
    alone = len(commands) == 1
    line = _Line(workspace, state, cursor, alone=alone)
    index = cursor.index
    planned: list[PlannedDecision] = []
    for command in commands:
        each = _plan(line, cursor, index, PlannedDecision(command, _decide(line.view, command, now)), now)
        planned.append(each)
        if each.record is not None:
            index = each.record.index
            if not alone:
                fold_decision(line.view, each.decision.events, each.record)
    return planned


def plan_shard(
    state_of: Callable[[str], Directory], cursor: Cursor, batch: Sequence[QueuedCommand], now: Micros
) -> list[PlannedDecision]:
    """Decide a batch of commands of any workspaces of one shard, in order. Changes nothing.

    A command that came by the commands topic gets a decision, be it one that changes nothing, so that the log always
    answers and carries the command's offset on. A command that the log's broker would not take before is refused.
    """
    alone = len(batch) == 1
    lines: dict[str, _Line] = {}
    index = cursor.index
    planned: list[PlannedDecision] = []
    for pending in batch:
        command, offset = pending.command, pending.offset
        line = lines.get(pending.workspace)
        if line is None:
            line = _Line(pending.workspace, state_of(pending.workspace), cursor, alone=alone)
            lines[pending.workspace] = line
        at = max(now, line.state.recorded_at)
        if not line.view.opened and type(command) is not Open:
            # Its author never opened the workspace: what it saw was another log. Nothing may come before sequence 1.
            planned.append(PlannedDecision(command, Decision([], dropped=Dropped.NEVER_OPENED), offset))
            continue
        decision = _decide(line.view, command, at)
        if pending.refused is not None and decision.repeats is None and decision.dropped is None:
            # What was decided before stays decided: only its new record is refused.
            decision = refusal_of(command, RefusalReason.DECISION_TOO_LARGE, pending.refused)
        each = PlannedDecision(command, decision, offset)
        if not decision.events and offset is not None:
            decision.events = [CommandAnswered(original_sequence=decision.repeats or SequenceNumber(0))]
        planned.append(_plan(line, cursor, index, each, at))
        if each.record is not None:
            index = each.record.index
            if not alone:
                fold_decision(line.view, each.decision.events, each.record)
    return planned


def _plan(line: _Line, cursor: Cursor, index: DecisionIndex, each: PlannedDecision, now: Micros) -> PlannedDecision:
    """Frame a decision that has events, behind `index`; as a refusal, where it cannot be encoded or is too large."""
    if not each.decision.events:
        return each
    command, prev_hash, settings = each.command, line.hash, line.state.settings
    index = DecisionIndex(index + 1)
    first = SequenceNumber(line.view.sequence + 1)

    def frame() -> Draft:
        return _frame(each, line.workspace, cursor.epoch, cursor.leader_id, index, first, now, prev_hash)

    try:
        draft = frame()
    except Exception as error:
        LOG.exception("encoding the decision of a %s raised: it is refused as internal_error", command.KIND)
        each.decision = refusal_for_bug(error)
        draft = frame()
    size = len(draft.head)
    for body in draft.contents:
        size += len(body)
    if size > settings.maximum_decision_bytes:
        each.decision = refusal_of(
            command,
            RefusalReason.DECISION_TOO_LARGE,
            f"the decision is larger than the {settings.maximum_decision_bytes} bytes this workspace allows: "
            "change fewer artifacts at once",
        )
        draft = frame()
    line.hash = each.digest = chain_hash(draft.head)
    return each


def _decide(view: Directory | Overlay, command: Command, now: Micros) -> Decision:
    try:
        return decide(view, command, now)
    except Exception as error:
        LOG.exception("deciding a %s raised: it is refused as internal_error", command.KIND)
        return refusal_for_bug(error)


def _frame(  # the fields of an envelope
    planned: PlannedDecision,
    workspace: str,
    epoch: Epoch,
    leader_id: LeaderId,
    index: DecisionIndex,
    first: SequenceNumber,
    now: Micros,
    prev_hash: Hash,
) -> Draft:
    command, events = planned.command, planned.decision.events
    critical = False
    for event in events:
        if event.CRITICAL:
            critical = True
            break
    contents = tuple(planned.decision.contents)
    record = planned.record = DecisionRecord(
        workspace=workspace,
        epoch=epoch,
        leader_id=leader_id,
        index=index,
        first_sequence=first,
        session_id=command.session_id,
        number=command.number,
        command_kind=command.KIND,
        command_offset=planned.command_offset,
        recorded_at=now,
        prev_hash=prev_hash,
        critical=critical,
        events=tuple([_encoders[type(event)](event) for event in events]),
        contents=contents,
    )
    draft = planned.draft = Draft(encode_head(record), contents, first, first + len(events) - 1)
    return draft
