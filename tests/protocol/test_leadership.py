"""The leadership loop, step by step, and in a cluster where everything that can go wrong does."""

import collections
import hashlib
import random

import pytest

from ccs_stream.log.codec import DEFAULT_CODEC
from ccs_stream.log.envelope import chain_hash
from ccs_stream.protocol.admit import Cursor, Verdict, admit, advance
from ccs_stream.protocol.commands import Command, Commit, Content, Join, Open, Write
from ccs_stream.protocol.events import WriteCommitted
from ccs_stream.protocol.ids import (
    NO_SESSION,
    CommandNumber,
    DecisionIndex,
    Epoch,
    Hash,
    LeaderId,
    SessionId,
    artifact_id,
)
from ccs_stream.protocol.leadership import (
    AnswerBatch,
    AppendClaim,
    AppendResignation,
    DecideAndAppend,
    DestroyProducer,
    ForwardToTopic,
    LeadershipLoop,
    ProveMembership,
    QueuedCommand,
    Role,
    SeekCommands,
)
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed
from ccs_stream.protocol.settings import WorkspaceSettings
from ccs_stream.protocol.statehash import state_hash
from tests.protocol.leadership_cluster import WORKSPACE, Cluster, Node

ME, OTHER = LeaderId(b"m" * 16), LeaderId(b"o" * 16)
SESSION = SessionId(b"s" * 16)


def write(number: int) -> Command:
    """A write with a body of its own."""
    body = str(number).encode()
    content = Content(
        content_type="",
        content_encoding="",
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=len(body),
        body=body,
    )
    key = f"k{number % 3}"
    change = Write(artifact=artifact_id(WORKSPACE, (), key), scope=(), key=key, content=content)
    return Commit(session_id=SESSION, number=CommandNumber(number), agent="a", changes=(change,))


def pending(number: int, *, offset: int | None = None) -> QueuedCommand:
    """A command on its way."""
    return QueuedCommand(workspace=WORKSPACE, command=write(number), offset=offset)


def leading() -> LeadershipLoop:
    """A loop that leads epoch 1."""
    loop = LeadershipLoop()
    loop.assigned_now()
    assert loop.caught_up(Epoch(0), ME) == [AppendClaim(Epoch(1), ME)]
    assert loop.claim_read(Epoch(1), ME, Verdict.ADMITTED) == [SeekCommands()]
    return loop


def test_a_claim_needs_an_assignment_and_each_proof_is_good_for_one() -> None:
    loop = LeadershipLoop()
    assert loop.caught_up(Epoch(0), ME) == []
    loop.assigned_now()
    assert loop.caught_up(Epoch(0), ME) == [AppendClaim(Epoch(1), ME)]
    assert loop.caught_up(Epoch(0), ME) == []
    assert loop.claim_read(Epoch(1), OTHER, Verdict.ADMITTED) == [DestroyProducer()]
    assert loop.role is Role.FOLLOWING
    assert loop.caught_up(Epoch(1), ME) == [ProveMembership()]
    loop.membership_proved()
    assert loop.caught_up(Epoch(1), ME) == [AppendClaim(Epoch(2), ME)]


def test_nothing_is_answered_before_it_was_read_back_admitted() -> None:
    loop, asked = leading(), pending(1, offset=0)
    (decide,) = loop.command(asked)
    assert decide == DecideAndAppend((asked,))
    assert loop.appended((DecisionIndex(1),)) == []
    assert loop.decision_read(OTHER, DecisionIndex(1), Verdict.NOT_LEADER) == []
    assert loop.decision_read(ME, DecisionIndex(1), Verdict.ADMITTED) == [AnswerBatch((asked,))]
    assert loop.decision_read(ME, DecisionIndex(1), Verdict.INDEX_GAP) == []  # a copy that came twice


def test_one_batch_is_under_way_at_a_time_and_waiting_commands_share_the_next() -> None:
    loop = leading()
    first, second, third = pending(1), pending(2), pending(3)
    loop.command(first)
    loop.appended((DecisionIndex(1),))
    assert loop.command(second) == []
    assert loop.command(third) == []
    effects = loop.decision_read(ME, DecisionIndex(1), Verdict.ADMITTED)
    assert effects == [AnswerBatch((first,)), DecideAndAppend((second, third))]


def test_a_foreign_claim_makes_a_leader_renounce_without_failing_any_command() -> None:
    loop = leading()
    direct, by_topic = pending(1), pending(2, offset=7)
    loop.command(direct)
    loop.appended((DecisionIndex(1),))
    loop.command(by_topic)
    effects = loop.claim_read(Epoch(2), OTHER, Verdict.ADMITTED)
    assert effects == [DestroyProducer(), ForwardToTopic((direct,))]
    assert (loop.role, loop.waiting, loop.epoch) == (Role.FOLLOWING, 0, 2)


def test_after_a_produce_error_the_leader_claims_anew_and_decides_again() -> None:
    loop = leading()
    direct, by_topic = pending(1), pending(2, offset=7)
    loop.command(direct)
    loop.appended((DecisionIndex(1),))
    loop.command(by_topic)
    assert loop.append_unknown() == [DestroyProducer(), ProveMembership()]
    assert loop.caught_up(Epoch(1), OTHER) == [ProveMembership()]
    loop.membership_proved()
    assert loop.caught_up(Epoch(1), OTHER) == [AppendClaim(Epoch(2), OTHER)]
    effects = loop.claim_read(Epoch(2), OTHER, Verdict.ADMITTED)
    assert effects == [SeekCommands(), DecideAndAppend((direct,))]  # the other comes again from the topic


def test_a_void_decision_of_one_s_own_is_a_produce_error() -> None:
    loop = leading()
    loop.command(pending(1))
    loop.appended((DecisionIndex(1),))
    assert loop.decision_read(ME, DecisionIndex(1), Verdict.INDEX_GAP) == [DestroyProducer(), ProveMembership()]
    assert loop.role is Role.RECOVERING


def test_a_decision_that_the_broker_refuses_becomes_a_refusal_and_the_next_command_is_served() -> None:
    loop = leading()
    first, second = pending(1), pending(2)
    loop.command(first)
    loop.appended((DecisionIndex(1),))
    loop.command(second)
    assert loop.append_refused(first, "too large") == [DecideAndAppend((first,))]
    assert (loop.role, first.refused) == (Role.LEADING, "too large")
    loop.appended((DecisionIndex(1),))
    assert loop.decision_read(ME, DecisionIndex(1), Verdict.ADMITTED) == [
        AnswerBatch((first,)),
        DecideAndAppend((second,)),
    ]


def test_a_decision_refused_within_a_batch_leaves_a_gap_and_is_refused_when_its_command_comes_again() -> None:
    loop = leading()
    loop.command(pending(0))
    loop.appended((DecisionIndex(1),))
    for number in (1, 2, 3):
        loop.command(pending(number, offset=number))
    effects = loop.decision_read(ME, DecisionIndex(1), Verdict.ADMITTED)
    (batch,) = [effect.batch for effect in effects if isinstance(effect, DecideAndAppend)]
    loop.appended((DecisionIndex(2), DecisionIndex(3), DecisionIndex(4)))
    assert loop.append_refused(batch[1], "too large") == [DestroyProducer(), ProveMembership()]
    loop.membership_proved()
    loop.caught_up(Epoch(1), OTHER)
    assert loop.claim_read(Epoch(2), OTHER, Verdict.ADMITTED) == [SeekCommands()]
    again = [pending(number, offset=number) for number in (1, 2, 3)]
    for each in again:
        loop.command(each)
    assert [each.refused for each in again] == [None, "too large", None]


def test_a_batch_that_needs_no_decision_is_answered_from_the_state() -> None:
    loop, asked = leading(), pending(1)
    loop.command(asked)
    assert loop.appended(()) == [AnswerBatch((asked,))]


def test_a_coordinator_that_does_not_lead_forwards_direct_commands_and_leaves_the_topic_alone() -> None:
    loop, asked = LeadershipLoop(), pending(1)
    assert loop.command(asked) == [ForwardToTopic((asked,))]
    assert loop.command(pending(2, offset=3)) == []
    loop.assigned_now()
    loop.caught_up(Epoch(0), ME)
    assert loop.command(asked) == []  # it may lead in a moment
    assert loop.claim_read(Epoch(1), ME, Verdict.EPOCH_NOT_NEXT) == [ForwardToTopic((asked,))]


def test_a_graceful_stop_resigns_on_the_log() -> None:
    loop, asked = leading(), pending(1)
    loop.command(asked)
    loop.appended((DecisionIndex(1),))
    effects = loop.stop()
    assert effects == [DestroyProducer(), ForwardToTopic((asked,)), AppendResignation(Epoch(1), ME)]
    loop.assigned_now()
    assert loop.caught_up(Epoch(1), OTHER) == []


def play(seed: int) -> tuple[Cluster, int]:
    """A history in which everything goes wrong at random, and then heals; returns how many commands were asked for."""
    chance = random.Random(seed)
    cluster = Cluster(3, chance)
    cluster.topic.append(Open(session_id=NO_SESSION, number=CommandNumber(0), settings=WorkspaceSettings()))
    cluster.topic.append(Join(session_id=SESSION, number=CommandNumber(1), agent="a"))
    cluster.assign(cluster.nodes[0])
    settle(cluster, cluster.nodes[0])
    number = trouble(cluster, chance)
    heal(cluster, chance)
    return cluster, number


def settle(cluster: Cluster, leader: Node) -> None:
    """The network works, and one node serves everything that waits."""
    for _ in range(3_000):
        cluster.catch_up(leader)
        while cluster.network:
            cluster.deliver(0)
        cluster.take(leader)
        if leader.taken >= len(cluster.topic) and not leader.loop.waiting and leader.read >= len(cluster.log):
            return
    raise AssertionError("the cluster does not settle")


def trouble(cluster: Cluster, chance: random.Random) -> int:
    """Everything goes wrong at random, while commands come; returns the last one's number."""
    number = 1
    for _ in range(chance.randint(100, 500)):
        node = chance.choice(cluster.nodes)
        dice = chance.random()
        if dice < 0.25:
            cluster.read_one(node)
        elif dice < 0.45 and cluster.network:
            cluster.deliver(chance.randrange(len(cluster.network)), keep=chance.random() < 0.1)
        elif dice < 0.60:
            cluster.catch_up(node)
        elif dice < 0.75:
            cluster.take(node)
        elif dice < 0.85 and number < 60:
            number += 1
            if chance.random() < 0.5:
                cluster.topic.append(write(number))
            else:
                cluster.hand_over(node, write(number))
        elif dice < 0.89:
            cluster.assign(node)
        elif dice < 0.92:
            cluster.lose(node)
        elif dice < 0.95:
            cluster.time_out(node)
        elif dice < 0.97 and cluster.network:
            cluster.lose_part(chance.randrange(len(cluster.network)))
        elif dice < 0.98:
            cluster.crash(node)
    return number


def heal(cluster: Cluster, chance: random.Random) -> None:
    """Let records on their way arrive, or be lost and given up on; one node leads.

    Only clients that died with their node ask again: for all the others the loops must have done what is needed.
    """
    while cluster.network:
        which = chance.randrange(len(cluster.network))
        if chance.random() < 0.5:
            cluster.deliver(which)
        else:
            del cluster.network[which]
    for node in cluster.nodes:
        while cluster.read_one(node):
            pass
        cluster.do(node, node.loop.append_unknown() if node.loop.waiting or node.loop.role == "claiming" else [])
    for node in cluster.nodes[1:]:
        cluster.lose(node)
    if chance.random() < 0.5:
        cluster.crash(cluster.nodes[0])
    cluster.topic.extend(cluster.orphans)
    cluster.assign(cluster.nodes[0])
    settle(cluster, cluster.nodes[0])
    for node in cluster.nodes:
        while cluster.read_one(node):
            pass


def admitted(cluster: Cluster) -> tuple[list[DecisionRecord], list[LeaderClaimed], int]:
    """The log of an onlooker who only knows `admit`: decisions, claims, and the number of void records."""
    cursor, decisions, claims, void = Cursor(), [], [], 0
    for raw in cluster.log:
        record, _ = DEFAULT_CODEC.decode_record(raw)
        if admit(cursor, record) is not Verdict.ADMITTED:
            void += 1
            continue
        advance(cursor, record, chain_hash(raw))
        if isinstance(record, DecisionRecord):
            decisions.append(record)
        elif isinstance(record, LeaderClaimed):
            claims.append(record)
    return decisions, claims, void


@pytest.mark.parametrize("block", range(6))
def test_whatever_goes_wrong_every_command_is_decided_once_and_answered_only_from_the_log(block: int) -> None:
    seen_void = 0
    for seed in range(block * 40, block * 40 + 40):
        cluster, last = play(seed)
        decisions, claims, void = admitted(cluster)
        seen_void += void
        written: collections.Counter[bytes] = collections.Counter()
        for record in decisions:
            for encoded in record.events:
                event = DEFAULT_CODEC.decode_event(encoded)
                if isinstance(event, WriteCommitted):
                    written[event.content_hash] += 1
        wanted = {hashlib.sha256(str(number).encode()).digest() for number in range(2, last + 1)}
        assert set(written) == wanted, f"seed {seed}: lost {len(wanted - set(written))}"
        assert set(written.values()) <= {1}, f"seed {seed}: applied twice"
        assert len({claim.epoch for claim in claims}) == len(claims), f"seed {seed}: two leaders in one epoch"
        sequences = [
            number
            for record in decisions
            for number in range(record.first_sequence, record.first_sequence + len(record.events))
        ]
        assert sequences == list(range(1, len(sequences) + 1)), f"seed {seed}: a gap"
        assert len({state_hash(node.state) for node in cluster.nodes}) == 1, f"seed {seed}: states differ"
        decided = {(bytes(record.session_id), int(record.number)) for record in decisions}
        assert {key for key in cluster.answered if key[1] > 1} <= decided, f"seed {seed}: answered and not in the log"
    assert seen_void  # else nothing went wrong, and the test showed nothing
