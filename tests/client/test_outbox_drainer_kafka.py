"""An outbox for a log on Kafka: its changes come to the log once, while the broker goes and comes back."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccs_stream.client.degraded.mode import CoherenceDegradedWarning, DegradedMode, is_log_unavailable
from ccs_stream.client.degraded.outbox_drainer import require_log
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import CcsError
from ccs_stream.testing.broker import Broker
from tests.client.drains import Rig
from tests.faults.environment import own_broker
from tests.kafka import CoordinatorProcess, make_topics
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def own() -> Iterator[Broker]:
    """A broker that may be hurt."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
def rig(own: Broker, tmp_path: Path) -> Iterator[Rig]:
    """On a log of its own, with a coordinator in a process of its own, as where a broker may go."""
    url = f"kafka://{own.bootstrap_servers}?prefix=outbox-{uuid.uuid4().hex[:8]}&session_timeout_s=2"
    make_topics(url, 1)
    coordinator = CoordinatorProcess(url).wait_ready()
    rig = Rig(open_log(f"{url}&coordinator=remote&timeout_s=5"), tmp_path)
    yield rig
    rig.close()
    coordinator.stop()


def test_changes_are_made_in_order_and_once_and_conflicts_are_reported(rig: Rig) -> None:
    large = b'"' + b"x" * 100_000 + b'"'
    rig.put("a", b"1", 0)
    rig.put("a", large, 0)
    rig.put("b", None, 0)
    rig.put("b", b"3", 0)
    rig.put("c", b"4", 0)
    rig.other.write("c", "theirs", scope=("s",))
    for _ in range(3):
        rig.die_after_marks(1)
    drained = rig.drain()
    assert drained.error is None
    assert drained.left == 0
    assert [(entry.number, entry.outcome) for entry in rig.outbox.conflicts()] == [(5, "version_conflict")]
    assert rig.outbox.counts.done == 4
    assert rig.made() == [(1, b'"theirs"'), (1, b"1"), (2, large), (1, b"3")]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_change_that_was_decided_is_not_made_again_by_another_session(rig: Rig, forgotten: bool) -> None:
    rig.put("a", b"1", None)
    rig.put("b", b"2", None)
    rig.die_after_marks(0)
    rig.evict()
    rig.other.write("a", "theirs", scope=("s",))
    rig.other.delete("a", scope=("s",))
    if forgotten:
        rig.forget_ended()
    drained = rig.drain()
    assert drained.error is None
    assert [(each.entry.number, each.version) for each in drained.done] == [(1, 1), (2, 1)]
    assert rig.made() == [(1, b"1"), (2, b'"theirs"'), (3, None), (1, b"2")]


def test_a_broker_that_goes_and_comes_back(own: Broker, rig: Rig) -> None:
    rig.ours.agent("ann").write("a", "live", scope=("s",))
    mode = DegradedMode("w", lambda: require_log(rig.ours.coordinator), rig.drainer)
    rig.put("b", b"0", 0)
    assert mode.attempt()
    own.kill(1)
    with pytest.raises(CcsError) as failed:
        rig.ours.agent("ann").write("other", "never queued", scope=("s",))
    assert is_log_unavailable(failed.value)
    with pytest.warns(CoherenceDegradedWarning):
        mode.failed(failed.value)
    rig.put("a", b"1", 1)
    rig.put("b", b"2", 1)
    rig.put("a", b"3", 1)
    mode.watch()
    until("the log was tried", lambda: mode.last_error is not failed.value)
    assert mode.is_degraded
    assert rig.outbox.counts.waiting == 3
    own.restart(1)
    until("the mode is normal", lambda: not mode.is_degraded, 120)
    assert mode.close(10)
    assert rig.outbox.counts.conflicts == 0
    made = [each for each in rig.made() if each[1] != b'"never queued"']
    assert made == [(1, b'"live"'), (1, b"0"), (2, b"1"), (2, b"2"), (3, b"3")]


def test_a_broker_that_goes_in_the_middle_of_a_replay(own: Broker, rig: Rig) -> None:
    for number in range(200):
        rig.put("ab"[number % 2], str(number).encode(), 0)
    mode = DegradedMode("w", lambda: require_log(rig.ours.coordinator), rig.drainer)
    mode.watch()
    until("some are done", lambda: rig.outbox.counts.done > 20)
    own.kill(1)
    own.restart(1)
    until("the mode is normal", lambda: not mode.is_degraded, 120)
    assert mode.close(10)
    assert rig.outbox.counts.conflicts == 0
    assert [int(body or b"") for _, body in rig.made()] == list(range(200))
