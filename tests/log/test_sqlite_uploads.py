"""Uploads that no decision names are freed after their grace time, and no other body ever is."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream import Workspace, WorkspaceSettings
from ccs_stream.log.sqlite import SqliteLog
from ccs_stream.protocol.errors import ContentMissing
from ccs_stream.protocol.ids import Micros
from ccs_stream.protocol.limits import SECOND_US

GRACE_US = Micros(10 * SECOND_US)
LARGE = "x" * 100_000


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    settings = WorkspaceSettings(content_grace_us=GRACE_US)
    with ccs_stream.connect(f"sqlite:///{tmp_path}/log.db?synchronous=normal", settings=settings) as workspace:
        yield workspace


def now_of(workspace: Workspace) -> int:
    return int(workspace.coordinator.now())


def test_an_upload_that_nobody_names_is_freed_after_its_grace_time(workspace: Workspace) -> None:
    log, now = workspace.coordinator.store, now_of(workspace)
    agent = workspace.agent("a")
    agent.write("kept", LARGE)
    orphan = log.put_content(b"nobody names this")
    assert log.collect_uploads(Micros(now)) == 0  # sets the mark
    agent.write("kept", LARGE + "2")
    later = log.put_content(b"nor this, which is younger")
    assert log.collect_uploads(Micros(now + GRACE_US)) == 0
    assert log.get_content(orphan)
    assert log.collect_uploads(Micros(now + 3 * GRACE_US)) == 1
    with pytest.raises(ContentMissing):
        log.get_content(orphan)
    assert log.get_content(later)
    assert log.collect_uploads(Micros(now + 6 * GRACE_US)) == 1
    with pytest.raises(ContentMissing):
        log.get_content(later)
    assert [each.missing for each in agent.history("kept")] == [None, None]


def test_only_uploads_that_nobody_names_are_freed(workspace: Workspace) -> None:
    log, numbers, now = workspace.coordinator.store, random.Random(11), now_of(workspace)
    agents = [workspace.agent(f"a{number}") for number in range(3)]
    orphans: dict[bytes, int] = {}
    written: dict[str, list[str]] = {}
    for round_number in range(60):
        match numbers.randrange(4):
            case 0:
                key = f"k{numbers.randrange(4)}"
                written.setdefault(key, []).append(f"{round_number}{LARGE}")
                agents[numbers.randrange(3)].write(key, written[key][-1])
            case 1:
                orphans[log.put_content(b"orphan %d" % round_number)] = now
            case 2:
                locator = log.put_content(b"refused")
                log.drop_content(locator)
                assert locator not in orphans
            case _:
                now += numbers.randrange(2 * GRACE_US)
                log.collect_uploads(Micros(now))
    for _ in range(3):
        now += 3 * GRACE_US
        log.collect_uploads(Micros(now))
    for locator in orphans:
        with pytest.raises(ContentMissing):
            log.get_content(locator)
    for key, values in written.items():
        assert [each.value for each in agents[0].history(key)] == values[::-1]


def test_numbers_of_uploads_are_not_used_again_after_a_mark(workspace: Workspace) -> None:
    log, now = workspace.coordinator.store, now_of(workspace)
    first = log.put_content(b"first")
    log.collect_uploads(Micros(now))
    log.drop_content(first)
    second = log.put_content(b"second")
    assert second != first
    assert log.collect_uploads(Micros(now + 3 * GRACE_US)) == 0
    assert log.get_content(second) == b"second"


def test_sweeping_and_closing_collect(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    settings = WorkspaceSettings(content_grace_us=Micros(SECOND_US))
    log = SqliteLog(tmp_path / "log.db")
    with ccs_stream.connect(url, settings=settings) as workspace:
        workspace.agent("a").write("k", LARGE)
        orphan = log.put_content(b"nobody names this")
    time.sleep(2.1)
    with ccs_stream.connect(url) as workspace:
        workspace.sweep()
        with pytest.raises(ContentMissing):
            log.get_content(orphan)
        read = workspace.agent("b").read("k")
        assert read is not None
        assert read.value == LARGE
    log.close()
