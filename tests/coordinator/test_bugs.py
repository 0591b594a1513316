"""Bugs of our own code: the command is refused, the refusal is recorded, and the next command is served."""

from collections.abc import Callable
from typing import Any

import pytest

import ccs_stream
from ccs_stream.coordinator import batch
from ccs_stream.protocol.commands import Commit, Join
from ccs_stream.protocol.ids import CommandNumber


@pytest.mark.parametrize("where", ["decide", "encode_head"])
def test_a_bug_harms_only_the_command_that_meets_it(
    where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound: Callable[..., Any] = getattr(batch, where)

    def faulty(*args: Any, **options: Any) -> Any:
        if "poison" in repr(args) and "internal_error" not in repr(args):
            raise AssertionError("a bug")
        return sound(*args, **options)

    with ccs_stream.connect() as workspace:
        agent = workspace.agent("a")
        agent.write("k", 1)
        monkeypatch.setattr(batch, where, faulty)
        with pytest.raises(ccs_stream.Refused, match="this is a bug of ccs-stream"):
            agent.write("poison", 2)
        assert "is refused as internal_error" in caplog.text
        assert agent.write("k", 2).version == 2
        assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()


@pytest.mark.parametrize("what", ["changes that are none", "a name that is no text"])
def test_a_command_that_no_client_of_ours_makes_is_refused_by_name(what: str) -> None:
    with ccs_stream.connect() as workspace:
        agent = workspace.agent("a")
        agent.write("k", 1)
        session = workspace.engine.session.current
        nonsense: Any = (None,)
        broken: Any = {
            "changes that are none": Commit(
                session_id=session.session_id, number=CommandNumber(0), agent="a", changes=nonsense
            ),
            "a name that is no text": Join(session_id=session.session_id, number=CommandNumber(0), agent="\ud800"),
        }[what]
        answer = workspace.coordinator.execute(broken, session.numbers)
        assert answer.refusal is not None
        assert answer.refusal.reason == "decision_too_large"
        assert agent.write("k", 2).version == 2
        assert workspace.as_of(workspace.position).state_hash() == workspace.state_hash()
