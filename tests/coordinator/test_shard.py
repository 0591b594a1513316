"""One partition led, step by step, on a real broker: what a shard does between a claim and its first command."""

import hashlib
import time
from collections.abc import Iterable

import pytest

from ccs_stream.clock import SYSTEM_CLOCK, wall_clock
from ccs_stream.coordinator.batch import plan_shard
from ccs_stream.coordinator.kafka.shard.coordinator import ShardCoordinator
from ccs_stream.coordinator.kafka.shard.leader_log import WarmProducers, largest_batch
from ccs_stream.log.kafka.settings import KafkaSettings
from ccs_stream.log.kafka.store import KafkaLog
from ccs_stream.protocol.admit import Cursor, advance
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Read, Write
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.errors import CcsError
from ccs_stream.protocol.events import CommandAnswered, CommandRefused
from ccs_stream.protocol.evolve import fold_decision
from ccs_stream.protocol.ids import CommandNumber, Hash, SessionId, artifact_id
from ccs_stream.protocol.leadership import QueuedCommand, Role
from ccs_stream.protocol.settings import DEFAULT_SETTINGS
from ccs_stream.testing.broker import Broker
from tests.kafka import make_topics

SESSION = SessionId(b"s" * 16)


class Noting:
    """Surroundings that do nothing of themselves."""

    def __init__(self) -> None:
        self.seeks: list[tuple[int, int, int]] = []
        self.forwarded: list[QueuedCommand] = []

    def prove_membership(self, partition: int) -> None:
        """Nothing: the assignment is the proof."""

    def seek_commands(self, partition: int, offset: int, term: int) -> None:
        """Noted."""
        self.seeks.append((partition, offset, term))

    def forward(self, batch: Iterable[QueuedCommand]) -> None:
        """Noted."""
        self.forwarded.extend(batch)

    def cannot_lead(self, partition: int, error: CcsError) -> None:
        """Not expected here."""
        raise error


def read_on(store: KafkaLog, shard: ShardCoordinator, until: object) -> None:
    assert callable(until)
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        shard.tick(at_end=True)
        shard.take(store.messages(0, shard.reader.offset))


@pytest.mark.kafka
def test_nothing_fetched_before_the_seek_is_decided(kafka_broker: Broker, kafka_prefix: str) -> None:
    url = f"kafka://{kafka_broker.bootstrap_servers}?prefix={kafka_prefix}"
    make_topics(url, 1)
    store, around = KafkaLog(KafkaSettings.parse(url)), Noting()
    producers = WarmProducers(store.clients, batch_bytes=largest_batch(store), spare=1)
    shard = ShardCoordinator(store, 0, around, producers, clock=SYSTEM_CLOCK)
    shard.on_assigned()
    read_on(store, shard, lambda: shard.loop.role is Role.LEADING)
    assert around.seeks == [(0, 0, 1)]
    opening = Open(session_id=SESSION, number=CommandNumber(1), settings=DEFAULT_SETTINGS)
    joining = Join(session_id=SESSION, number=CommandNumber(2), agent="a")
    # given a command that the consumer had fetched before the shard's seek
    shard.submit(QueuedCommand(workspace="w", command=joining, offset=5))
    assert shard.loop.waiting == 0
    # when it comes again, after the seek
    shard.on_seek_done(1)
    shard.submit(QueuedCommand(workspace="w", command=opening, offset=4))
    shard.submit(QueuedCommand(workspace="w", command=joining, offset=5))
    read_on(store, shard, lambda: shard.loop.waiting == 0)
    assert shard.next_command_offset() == 6
    assert shard.states["w"].participants_ever == 1
    store.close()


def write(number: int) -> Command:
    body = b"x"
    content = Content(
        content_type="",
        content_encoding="",
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=1,
        body=body,
    )
    change = Write(artifact=artifact_id("w", (), "k"), scope=(), key="k", content=content)
    return Commit(session_id=SESSION, number=CommandNumber(number), agent="a", changes=(change,))


def test_a_repeated_command_keeps_its_decision_though_a_new_record_of_it_is_too_large() -> None:
    state, cursor = Directory(), Cursor()

    def decide(pending: QueuedCommand) -> object:
        (planned,) = plan_shard(lambda _: state, cursor, [pending], wall_clock())
        if planned.record is not None and planned.digest is not None:
            fold_decision(state, planned.decision.events, planned.record)
            advance(cursor, planned.record, planned.digest)
        return planned.decision.events[-1]

    opening = Open(session_id=SESSION, number=CommandNumber(1), settings=DEFAULT_SETTINGS)
    decide(QueuedCommand(workspace="w", command=opening, offset=0))
    decide(QueuedCommand(workspace="w", command=Join(session_id=SESSION, number=CommandNumber(2), agent="a"), offset=1))
    decide(QueuedCommand(workspace="w", command=write(3), offset=None))
    again = decide(QueuedCommand(workspace="w", command=write(3), offset=2, refused="too large"))
    assert isinstance(again, CommandAnswered)
    other = decide(QueuedCommand(workspace="w", command=write(4), offset=3, refused="too large"))
    assert isinstance(other, CommandRefused)


def test_the_record_of_a_refusal_is_small_whatever_was_asked() -> None:
    state, cursor = Directory(), Cursor()
    huge = "a" * 1_048_300
    asked: list[Command] = [
        Open(session_id=SESSION, number=CommandNumber(1), settings=DEFAULT_SETTINGS),
        Join(session_id=SESSION, number=CommandNumber(2), agent=huge),
        Read(session_id=SESSION, number=CommandNumber(3), agent=huge, artifact=artifact_id("w", (), "k")),
    ]
    batch = [QueuedCommand(workspace="w", command=command, offset=number) for number, command in enumerate(asked)]
    opened, joined, read = plan_shard(lambda _: state, cursor, batch, wall_clock())
    assert opened.decision.refusal is None
    for each in (joined, read):
        assert each.decision.refusal is not None
        assert each.draft is not None
        assert len(each.draft.head) < 10_000
