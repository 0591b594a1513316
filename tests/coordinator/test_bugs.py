"""Bugs of our own code: the command is refused, the refusal is recorded, and the next command is served."""

from typing import Any

import pytest

import ccs_stream
from ccs_stream.protocol.commands import Commit, Join
from ccs_stream.protocol.ids import CommandNumber


def test_a_command_that_kills_every_leader_in_turn(caplog: pytest.LogCaptureFixture) -> None:
    with ccs_stream.connect() as workspace:
        agent = workspace.agent("a")
        agent.write("k", 1)
        session = workspace.engine.session.current
        nonsense: Any = (None,)
        broken = Commit(session_id=session.session_id, number=CommandNumber(0), agent="a", changes=nonsense)
        answer = workspace.coordinator.execute(broken, session.numbers)
        assert answer.refusal is not None
        assert answer.refusal.reason == "internal_error"
        assert "is refused as internal_error" in caplog.text
        assert agent.write("k", 2).version == 2
        assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()


def test_a_decision_that_cannot_be_encoded_harms_no_other_command() -> None:
    with ccs_stream.connect() as workspace:
        session = workspace.engine.session.current
        broken = Join(session_id=session.session_id, number=CommandNumber(0), agent="\ud800")
        answer = workspace.coordinator.execute(broken, session.numbers)
        assert answer.refusal is not None
        assert answer.refusal.reason == "internal_error"
        assert workspace.agent("a").write("k", 1).version == 1
        assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()
