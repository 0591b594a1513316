"""Several coordinators, one shard, and a network that loses, delays and repeats: around the real loop.

Guarantees: the loop, `plan`, `admit` and the fold are those of the product; the log is an ordered list that any of them
may append to. Does not: know Kafka.
"""

import dataclasses
import random
import uuid

from ccs_stream.coordinator.batch import plan_shard
from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.protocol.admit import Cursor, Verdict, admit, advance
from ccs_stream.protocol.commands import Command
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.events import Event
from ccs_stream.protocol.evolve import fold
from ccs_stream.protocol.ids import DecisionIndex, LeaderId, LogId, Micros
from ccs_stream.protocol.leadership import (
    AnswerBatch,
    AppendClaim,
    AppendResignation,
    DecideAndAppend,
    DestroyProducer,
    Effect,
    ForwardToTopic,
    LeadershipLoop,
    ProveMembership,
    QueuedCommand,
    SeekCommands,
)
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed, LeaderResigned, LogOpened

WORKSPACE = "w"
LOG_ID = LogId(bytes(16))
START = 1_750_000_000_000_000


@dataclasses.dataclass(slots=True)
class InFlight:
    """Records on their way from one producer to the log; late when their producer has given up on them."""

    records: list[bytes]
    producer: int


class Node:
    """One coordinator."""

    def __init__(self, name: int) -> None:
        self.name = name
        self.loop = LeadershipLoop()
        self.state = Directory()
        self.cursor = Cursor()
        self.read = 0
        self.folded_offset = -1
        """Highest offset of the commands topic that an admitted decision carries."""
        self.taken = 0
        """Next offset of the commands topic to take."""
        self.producer = 0
        self.member = False
        self.handed: list[Command] = []
        """Commands handed over directly to this node."""


class Cluster:
    """The log, the commands topic, the network and the nodes."""

    def __init__(self, nodes: int, chance: random.Random) -> None:
        self.chance = chance
        opened = LogOpened(log_id=LOG_ID, shards=1, partitioner="murmur2", format=1, opened_at=Micros(START))
        self.log: list[bytes] = [DEFAULT_CODEC.encode_record(opened)]
        self.topic: list[Command] = []
        self.network: list[InFlight] = []
        self.nodes = [Node(number) for number in range(nodes)]
        self.answered: dict[tuple[bytes, int], int] = {}
        """By session and number, how often a command was answered."""
        self.orphans: list[Command] = []
        """Commands handed over directly to nodes that died before answering."""
        self.producers = 0
        self.now = START

    # What may happen.

    def assign(self, node: Node) -> None:
        """The group gives the shard to a node; another may not have noticed yet that it lost it."""
        node.member = True
        self.do(node, node.loop.assigned_now())

    def lose(self, node: Node) -> None:
        """A node notices that it lost the shard."""
        node.member = False
        self.do(node, node.loop.assignment_lost())

    def crash(self, node: Node) -> None:
        """A node dies with its clients, and starts again, knowing nothing. What it had sent may still arrive."""
        self.orphans += [command for command in node.handed if not self.is_answered(command)]
        self.nodes[node.name] = Node(node.name)

    def is_answered(self, command: Command) -> bool:
        """True if the command was answered."""
        return (bytes(command.session_id), int(command.number)) in self.answered

    def deliver(self, number: int, *, keep: bool = False) -> None:
        """Something on its way arrives at the end of the log; with `keep`, a copy stays on its way."""
        self.log.extend(self.network[number].records)
        if not keep:
            del self.network[number]

    def lose_part(self, number: int) -> None:
        """One record of a batch is lost, the rest arrives: the epoch's gap."""
        flight = self.network[number]
        if len(flight.records) > 1:
            del flight.records[self.chance.randrange(len(flight.records))]
        else:
            del self.network[number]

    def time_out(self, node: Node) -> None:
        """A node's producer gives up; what it sent may still arrive, or be lost."""
        if any(flight.producer == node.producer for flight in self.network):
            self.do(node, node.loop.append_unknown())

    def read_one(self, node: Node) -> bool:
        """A node reads its next record; whether there was one."""
        if node.read >= len(self.log):
            return False
        raw = self.log[node.read]
        node.read += 1
        record, _ = DEFAULT_CODEC.decode_record(raw)
        verdict = admit(node.cursor, record)
        if verdict is Verdict.ADMITTED:
            digest = chain_hash(raw)
            if isinstance(record, DecisionRecord):
                assert record.prev_hash == node.cursor.end(WORKSPACE).hash
                self.fold(node, record)
            advance(node.cursor, record, digest)
        else:
            node.cursor.void += 1
        if isinstance(record, LeaderClaimed):
            self.do(node, node.loop.claim_read(record.epoch, record.leader_id, verdict))
        elif isinstance(record, LeaderResigned):
            self.do(node, node.loop.resignation_read(record.leader_id, verdict))
        elif isinstance(record, DecisionRecord):
            self.do(node, node.loop.decision_read(record.leader_id, record.index, verdict))
        return True

    def fold(self, node: Node, record: DecisionRecord) -> None:
        """Fold an admitted decision."""
        events: list[Event] = [DEFAULT_CODEC.decode_event(each) for each in record.events]
        fold(
            node.state,
            events,
            recorded_at=record.recorded_at,
            session_id=record.session_id,
            number=record.number,
            kind=record.command_kind,
        )
        if record.command_offset is not None:
            node.folded_offset = max(node.folded_offset, record.command_offset)

    def catch_up(self, node: Node) -> None:
        """A node reads to the end, and its timer fires."""
        while self.read_one(node):
            pass
        self.do(
            node, node.loop.caught_up(node.cursor.epoch, LeaderId(uuid.UUID(int=self.chance.getrandbits(128)).bytes))
        )

    def take(self, node: Node) -> None:
        """A leader takes its next command from the topic."""
        if node.loop.role == "leading" and node.taken < len(self.topic):
            pending = QueuedCommand(workspace=WORKSPACE, command=self.topic[node.taken], offset=node.taken)
            node.taken += 1
            self.do(node, node.loop.command(pending))

    def hand_over(self, node: Node, command: Command) -> None:
        """A client in a node's own process hands its command over directly."""
        node.handed.append(command)
        self.do(node, node.loop.command(QueuedCommand(workspace=WORKSPACE, command=command, offset=None)))

    # Effects.

    def do(self, node: Node, effects: list[Effect]) -> None:
        """Carry out what the loop says."""
        for effect in effects:
            match effect:
                case ProveMembership():
                    if node.member:
                        self.do(node, node.loop.membership_proved())
                case AppendClaim():
                    self.send(
                        node,
                        [
                            DEFAULT_CODEC.encode_record(
                                LeaderClaimed(
                                    log_id=LOG_ID,
                                    epoch=effect.epoch,
                                    leader_id=effect.leader_id,
                                    commands_log_id=LOG_ID,
                                    claimed_at=Micros(self.now),
                                    build="",
                                )
                            )
                        ],
                    )
                case AppendResignation():
                    resigned = LeaderResigned(epoch=effect.epoch, leader_id=effect.leader_id)
                    self.send(node, [DEFAULT_CODEC.encode_record(resigned)])
                case DecideAndAppend():
                    self.decide(node, effect.batch)
                case AnswerBatch():
                    for pending in effect.batch:
                        key = (bytes(pending.command.session_id), int(pending.command.number))
                        self.answered[key] = self.answered.get(key, 0) + 1
                case ForwardToTopic():
                    self.topic.extend(pending.command for pending in effect.batch)
                case DestroyProducer():
                    # What is still on its way no longer tells anybody how it went.
                    self.new_producer(node)
                case SeekCommands():
                    node.taken = node.folded_offset + 1

    def decide(self, node: Node, batch: tuple[QueuedCommand, ...]) -> None:
        """Decide a batch where the node stands, and send it."""
        self.now += 1
        planned = plan_shard(lambda _: node.state, node.cursor, batch, Micros(self.now))
        records = [each.draft.head for each in planned if each.draft is not None]
        indexes = tuple(DecisionIndex(each.record.index) for each in planned if each.record is not None)
        self.send(node, records)
        self.do(node, node.loop.appended(indexes))

    def send(self, node: Node, records: list[bytes]) -> None:
        """Put records on their way."""
        if records:
            if not node.producer:
                self.new_producer(node)
            self.network.append(InFlight(records, node.producer))

    def new_producer(self, node: Node) -> None:
        """A new producer."""
        self.producers += 1
        node.producer = self.producers
