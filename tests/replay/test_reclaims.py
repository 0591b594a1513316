"""A reclaim, as whoever looks for its reason reads it."""

import pytest

from ccs_stream.protocol.events import GrantReclaimed
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.settings import SECOND_US, WorkspaceSettings
from ccs_stream.replay.event_text import describe_event
from ccs_stream.testing.given_when_then import Story

SETTINGS = WorkspaceSettings(
    crash_recovery=True,
    heartbeat_interval_us=Micros(5 * SECOND_US),
    session_timeout_us=Micros(30 * SECOND_US),
    maximum_hold_us=Micros(40 * SECOND_US),
)


@pytest.mark.parametrize("trigger", ["reclaim_heartbeat", "reclaim_max_hold"])
def test_a_reclaim_is_shown_with_its_trigger(trigger: str) -> None:
    story = Story(SETTINGS)
    story.given(story.write("planner", "plan")).after(20)
    if trigger == "reclaim_max_hold":
        story.given(story.heartbeat("planner"))
    story.after(20).when(story.sweep()).then(GrantReclaimed)
    assert describe_event(story.state, story.events[0]) == f"plan reclaimed from planner ({trigger})"
