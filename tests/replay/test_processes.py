"""Which process acted, as `info`, `timeline` and `deliveries` show it."""

import dataclasses
import json

import pytest

from ccs_stream.log.deliveries import encode_delivery
from ccs_stream.protocol.ids import SessionId
from ccs_stream.replay import deliveries, info, timeline
from ccs_stream.replay.source import Source
from tests.log.delivered import DELIVERED
from tests.log.scenario import IDENTITY, ONE, THREE, TWO, WORKSPACE
from tests.log.test_golden import IDENTIFIED, LATEST, GoldenLog

SHORT = "worker-3:4711 app.py run=7"


@pytest.fixture
def source() -> Source:
    """A log whose three sessions joined with an identity; some have ended."""
    return Source(GoldenLog(IDENTIFIED), WORKSPACE)


def test_info_lists_the_processes(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.LogSummary(source).described()["processes"] == [
        {"session_id": session.hex(), "agents": [agent], **IDENTITY.members()}
        for session, agent in ((ONE, "planner"), (TWO, "reviewer"), (THREE, "ünïcode"))
    ]
    info.run(source, as_json=False)
    shown = capsys.readouterr().out
    assert "worker-3" in shown
    assert "run=7" in shown


def test_info_says_nothing_where_no_process_said_anything(capsys: pytest.CaptureFixture[str]) -> None:
    info.run(Source(GoldenLog(LATEST), WORKSPACE), as_json=False)
    assert "processes" not in capsys.readouterr().out


def test_timeline_shows_the_process_behind_each_command(source: Source) -> None:
    lines = list(timeline.Timeline(source, timeline.TimelineOptions()).read())
    asked = [line for line in lines if line["event"] == "WriteCommitted"]
    assert all(line["process"] == IDENTITY.members() for line in asked)
    assert timeline.text_of(asked[0]).endswith(f"[{SHORT}]")
    swept = [line for line in lines if line["event"] == "GrantReclaimed"]
    assert swept
    assert all(line["process"] is None for line in swept)


def test_deliveries_show_the_process_that_was_given_something(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    for session in (TWO, SessionId(bytes(16))):
        delivery = dataclasses.replace(DELIVERED["least"], session_id=session, number=1)
        source.store.append_deliveries(WORKSPACE, [encode_delivery(delivery)])
    deliveries.run(source, None, None, as_json=False)
    known, unknown = capsys.readouterr().out.splitlines()
    assert known.endswith(f"[{TWO.hex()[:8]} 1 {SHORT}]")
    assert unknown.endswith("[00000000 1]")
    deliveries.run(source, None, None, as_json=True)
    found = [json.loads(line)["process"] for line in capsys.readouterr().out.splitlines()]
    assert found == [IDENTITY.members(), None]
