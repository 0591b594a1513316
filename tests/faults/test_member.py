"""A member of the coordinators' group that meets trouble: it waits where waiting helps, and ends where it does not.

Smaller than a fault: one coordinator in this process, whose calls of the broker are made to fail.
"""

import logging
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream.coordinator.kafka.remote import RemoteCoordinator
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.restore import restore
from ccs_stream.log.commands import encode_command
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.commands import Heartbeat
from ccs_stream.protocol.errors import LogError, LogUnavailable
from ccs_stream.protocol.ids import CommandNumber, SessionId
from ccs_stream.protocol.leadership import QueuedCommand, Role
from ccs_stream.testing.broker import Broker
from tests.faults.cluster import Cluster
from tests.faults.environment import heal
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.faults]


@pytest.fixture
def cluster(own: Broker, tmp_path: Path) -> Iterator[Cluster]:
    heal(own)
    with Cluster(own, tmp_path, seed="", session_timeout_s=2, timeout_s=10) as cluster:
        yield cluster


@pytest.fixture
def service(cluster: Cluster) -> CoordinatorService:
    """Not started yet."""
    service = CoordinatorService(KafkaLog(KafkaSettings.parse(cluster.url)))
    cluster.services.append(service)
    return service


def leads(service: CoordinatorService) -> bool:
    shard = service.follower.shards.get(0)
    return shard is not None and shard.loop.role is Role.LEADING


class Failing:
    """Calls that fail so many times, as if no broker answered, and then do what they should."""

    def __init__(self, original: Any, times: int, when: Any = None) -> None:
        self.left = times
        self._original = original
        self._when = when or (lambda *_: True)

    def __call__(self, *args: Any) -> Any:
        if self.left and self._when(*args):
            self.left -= 1
            raise LogUnavailable("planted")
        return self._original(*args)


def test_a_leader_that_cannot_ask_where_its_commands_are_asks_again(
    cluster: Cluster, service: CoordinatorService, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(service.store.bounds, 2, lambda topic, _: topic == cluster.commands_topic)
    monkeypatch.setattr(service.store, "bounds", failing)
    service.start()
    with ccs_stream.connect(cluster.client_url, workspace="w") as workspace:
        assert workspace.agent("a").write("k", 1).version == 1
    assert failing.left == 0
    assert service.follower.error is None


def test_a_partition_that_cannot_be_restored_yet_is_restored_later(
    own: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heal(own)
    # Those that the group suggests are restored in threads of the node.
    failing = Failing(restore, 2, lambda _: threading.current_thread().name.startswith("ccs-restore"))
    monkeypatch.setattr("ccs_stream.coordinator.kafka.follower.followed_shards.restore", failing)
    with Cluster(own, tmp_path, seed="", partitions=2) as cluster, ccs_stream.connect(cluster.url) as workspace:
        coordinator = workspace.coordinator
        assert isinstance(coordinator, RemoteCoordinator)
        until("all is followed", lambda: len(coordinator.follower.shards) == 2)
        assert workspace.agent("a").write("k", 1).version == 1
        assert failing.left == 0


def test_a_command_that_leading_itself_cannot_bear_ends_the_coordinator_aloud(
    cluster: Cluster, service: CoordinatorService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(shard: ShardCoordinator, pending: QueuedCommand) -> None:
        raise ZeroDivisionError("planted")

    service.start()
    until("it leads", lambda: leads(service))
    monkeypatch.setattr(ShardCoordinator, "submit", broken)
    monkeypatch.setattr(logging.getLogger("ccs_stream.coordinator.kafka.group.member"), "disabled", True)
    cluster.produce(cluster.commands_topic, [(b"w", command())])
    until("it ends", lambda: service.follower.error is not None)
    assert type(service.follower.error) is LogError
    assert "a bug of ccs-stream" in str(service.follower.error)


def command() -> bytes:
    """A sound one, of a workspace in partition 0 of 1."""

    return encode_command("w", Heartbeat(session_id=SessionId(uuid.uuid4().bytes), number=CommandNumber(1)))
