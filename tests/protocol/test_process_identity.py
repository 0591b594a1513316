"""What a process says about itself: its limits, its way into the state, and what it does not change."""

import dataclasses
from typing import Any

import pytest

from ccs_stream.projections.processes import Processes, describe_process
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import ParticipantJoined, RefusalReason
from ccs_stream.protocol.limits import LABEL_BYTES_MAX, LABELS_MAX, PROCESS_TEXT_BYTES_MAX
from ccs_stream.protocol.process_identity import ProcessIdentity
from ccs_stream.protocol.statehash import state_hash
from ccs_stream.testing.given_when_then import Story

IDENTITY = ProcessIdentity(host="worker-3", pid=4711, program="/srv/app.py", release="1.2.3", labels={"run": "7"})


def test_a_session_is_known_by_what_its_process_said_when_it_joined() -> None:
    story = Story()
    silent = story.join("b@2")
    story.given(dataclasses.replace(story.join("a@1"), **IDENTITY.members()), silent)
    session = story.state.sessions.get(story.join("a@1").session_id)
    assert session is not None
    assert (session.process, session.fork().process) == (IDENTITY, IDENTITY)
    other = story.state.sessions.get(silent.session_id)
    assert other is not None
    assert other.process is None


def test_the_state_hash_does_not_cover_it() -> None:
    one, other = Story(), Story()
    one.given(one.join("a"))
    other.given(dataclasses.replace(other.join("a"), **IDENTITY.members()))
    assert state_hash(one.state) == state_hash(other.state)


@pytest.mark.parametrize(
    "members",
    [
        {"host": "x" * (PROCESS_TEXT_BYTES_MAX + 1)},
        {"program": "\ud800"},
        {"release": 1},
        {"pid": -1},
        {"pid": 2**31},
        {"pid": "4711"},
        {"pid": True},
        {"labels": "run=7"},
        {"labels": {"run": 7}},
        {"labels": {7: "run"}},
        {"labels": {"run": "ü" * LABEL_BYTES_MAX}},
        {"labels": {str(number): "" for number in range(LABELS_MAX + 1)}},
    ],
)
def test_what_is_too_large_or_no_text_is_refused_at_the_edge_and_by_decide(members: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"process|label"):
        ProcessIdentity(**members).check()
    story = Story()
    story.when(dataclasses.replace(story.join("a"), **members)).refused(RefusalReason.DECISION_TOO_LARGE)
    assert story.state.session_count() == 0


def test_the_largest_identity_is_taken() -> None:
    largest = ProcessIdentity(
        host="h" * PROCESS_TEXT_BYTES_MAX,
        pid=2**31 - 1,
        program="p" * PROCESS_TEXT_BYTES_MAX,
        release="r" * PROCESS_TEXT_BYTES_MAX,
        labels={f"{number:0{LABEL_BYTES_MAX}}": "v" * LABEL_BYTES_MAX for number in range(LABELS_MAX)},
    )
    story = Story()
    story.when(dataclasses.replace(story.join("a"), **largest.check().members())).then(ParticipantJoined)


def test_it_is_described_in_few_words() -> None:
    assert describe_process(IDENTITY) == "worker-3:4711 app.py run=7"
    assert describe_process(ProcessIdentity(release="1.2.3", labels={"run": "7"})) == "run=7"
    assert describe_process(ProcessIdentity(pid=1, program=r"C:\app\train.exe")) == ":1 train.exe"
    assert describe_process(None) == ""


def test_processes_are_known_after_their_sessions_ended() -> None:
    story, processes = Story(), Processes()
    first = dataclasses.replace(story.join("a@1"), **IDENTITY.members())
    second = dataclasses.replace(story.join("b@1"), **IDENTITY.members())
    for command in (first, second, story.leave("a@1"), story.join("c@2")):
        decision = story.when(command).decision
        assert decision is not None
        processes.decision(decision.events)
    assert processes.by_session == {first.session_id: IDENTITY}
    assert processes.described() == [{"session_id": first.session_id.hex(), "agents": ["a", "b"], **IDENTITY.members()}]
