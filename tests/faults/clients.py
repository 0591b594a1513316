"""Faults of clients: killed with commands in flight, whose session others go on with.

Guarantees: as for leaders. What is sent again is sent from another process, under the same session and numbers.
"""

import hashlib
import json
import signal
import time

from ccs_stream.log.commands import decode_command, encode_command
from ccs_stream.protocol.commands import Command, Commit, Content, Write
from ccs_stream.protocol.errors import CorruptRecord
from ccs_stream.protocol.ids import CommandNumber, Hash, SessionId, artifact_id
from tests.faults.cluster import Cluster, Worker
from tests.faults.environment import Environment
from tests.faults.history import Operation
from tests.faults.table import Row

_WORKSPACE = "w0"


def killed(env: Environment) -> Row:
    """SIGKILL of a client with commands in flight, and of its leader; all it asked for is sent again, twice."""
    row = Row("client killed, its session retried")
    operations: list[Operation] = []
    with env.cluster(session_timeout_s=env.session_s, timeout_s=10) as cluster:
        cluster.start_coordinators(1)
        cluster.start_workers(1, [_WORKSPACE])
        for number in range(env.size(2, 10)):
            cluster.start_workers(1, [_WORKSPACE], pause_s=0.0)
            cluster.progress()
            victim, leader = cluster.workers[-1], cluster.leader()
            leader.signal(signal.SIGSTOP)
            time.sleep(0.3)
            victim.kill()
            theirs = [each for each in cluster.operations() if each.process == victim.name]
            row.expect(any(each.ended_at is None for each in theirs), "nothing was in flight")
            operations += _send_again(cluster, env, victim)
            if number % 2:  # commands that are not sent again are found by the next leader
                leader.kill()
                cluster.start_coordinators(1)
            else:
                leader.signal(signal.SIGCONT)
            cluster.progress()
            row.rounds += 1
        outcome = cluster.finish(operations)
    row.add(outcome, rounds=0)
    landed = {each.value["op"] for each in outcome.facts.writes}
    missing = [each.id for each in operations if each.id not in landed]
    row.expect(not missing, f"{len(missing)} commands that were sent twice were never decided")
    return row


def _send_again(cluster: Cluster, env: Environment, victim: Worker) -> list[Operation]:
    """Everything the client asked for, in any order, and new commands of its session; what is new is returned."""
    agent = f"{victim.name}-0"
    theirs = _commands_of(cluster, victim)
    session = next(each.session_id for each in theirs if isinstance(each, Commit) and each.agent == agent)
    highest = max(each.number for each in theirs)
    operations: list[Operation] = []
    new: list[Command] = []
    for number in range(env.size(20, 100)):
        operation = Operation(
            id=f"{agent}/again/{number}",
            process="again",
            agent=agent,
            workspace=_WORKSPACE,
            kind="write",
            key="again",
            invoked_at=time.monotonic(),
        )
        operations.append(operation)
        new.append(_write(session, CommandNumber(highest + 1 + number), agent, operation))
    # A client never sends a number while one is unresolved that is a window older: neither does this.
    env.choose.shuffle(theirs)
    for batch in (theirs, [*new, *new]):
        encoded = [encode_command(_WORKSPACE, each) for each in batch]
        env.choose.shuffle(encoded)
        cluster.produce(cluster.commands_topic, [(_WORKSPACE.encode(), value) for value in encoded])
    return operations


def _commands_of(cluster: Cluster, victim: Worker) -> list[Command]:
    """The commands of a client's sessions in the topic."""
    found: list[Command] = []
    for raw in cluster.read(cluster.commands_topic)[0]:
        try:
            found.append(decode_command(raw.value or b"")[1])
        except CorruptRecord:
            continue
    sessions = {each.session_id for each in found if str(getattr(each, "agent", "")).startswith(f"{victim.name}-")}
    return [each for each in found if each.session_id in sessions]


def _write(session: SessionId, number: CommandNumber, agent: str, operation: Operation) -> Command:
    body = json.dumps({"op": operation.id}).encode()
    content = Content(
        content_type="application/json",
        content_encoding="",
        content_hash=Hash(hashlib.sha256(body).digest()),
        size=len(body),
        body=body,
    )
    artifact = artifact_id(_WORKSPACE, (), operation.key)
    change = Write(artifact=artifact, scope=(), key=operation.key, content=content)
    return Commit(session_id=session, number=number, agent=agent, changes=(change,))
