"""Faults of leaders: killed, stopped, frozen; two at once; many that race.

Guarantees: each function hurts a run, waits until it goes on, and returns what the checker says of it. Does not: pass
a run in which the fault did not happen.
"""

import itertools
import signal
import statistics
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Final

from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.protocol.leadership import Role
from tests.faults.checker import chained, decode, encode
from tests.faults.cluster import Cluster, Outcome, Worker
from tests.faults.environment import Environment
from tests.faults.table import NOTHING, RETRYABLE, Row
from tests.waiting import until

_GRACE_S: Final = 3.0
"""How long, beyond the session time-out, there may be no leader."""
_EMBEDDED_GRACE_S: Final = 8.0
"""The same where clients lead: they look every 2 s whether a dedicated one is still there, and only then join."""
"""Errors that clients may get while leadership moves."""


def killed(env: Environment) -> Row:
    """SIGKILL of the leading coordinator, under load, again and again."""
    row = Row("leader killed")
    with env.cluster(session_timeout_s=env.session_s, timeout_s=env.session_s / 2) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        for _ in range(env.size(2, 20)):
            cluster.progress()
            cluster.leader().kill()
            cluster.start_coordinators(1, ready=False)
            cluster.progress()
            row.rounds += 1
        outcome = cluster.finish()
    row.add(outcome, rounds=0)
    limit = env.session_s + _GRACE_S + slowness_s(outcome)
    row.expect(row.unavailable_s <= limit, f"there was no leader for {row.unavailable_s:.1f} s")
    row.expect_told(outcome, RETRYABLE)
    return row


def embedded_killed(env: Environment) -> Row:
    """SIGKILL of the client that leads, where no dedicated coordinator runs; then one joins, and leaves again."""
    row = Row("embedded leader killed")
    with env.cluster(session_timeout_s=env.session_s, timeout_s=env.session_s / 2) as cluster:
        cluster.start_workers(env.size(3, 8), env.workspaces, url=cluster.url, agents=1)
        for number in range(env.size(1, 10)):
            cluster.progress()
            _leading_worker(cluster).kill()
            cluster.start_workers(1, env.workspaces, url=cluster.url, agents=1)
            cluster.progress()
            (dedicated,) = cluster.start_coordinators(1)
            until("the dedicated coordinator leads", dedicated.leads)
            cluster.progress(10)
            if number % 2:
                dedicated.kill()
            else:
                row.expect(dedicated.stop() == 0, f"a stopped coordinator did not exit with 0: {dedicated.said[-500:]}")
            cluster.progress()
            row.rounds += 1
        outcome = cluster.finish()
    row.add(outcome, rounds=0)
    limit = env.session_s + _EMBEDDED_GRACE_S + slowness_s(outcome)
    row.expect(row.unavailable_s <= limit, f"there was no leader for {row.unavailable_s:.1f} s")
    row.expect_told(outcome, RETRYABLE)
    return row


def _leading_worker(cluster: Cluster) -> Worker:
    found: list[Worker] = []

    def look() -> bool:
        for each in cluster.workers:
            if each.runs:
                each.order("leads")
                if each.expect("leads")["leads"]:
                    found.append(each)
        return bool(found)

    until("a client leads", look)
    return found[-1]


def stopped(env: Environment) -> Row:
    """SIGTERM of the leading coordinator, under load: a hand-over that clients do not notice."""
    row = Row("leader stopped")
    at: list[float] = []
    with env.cluster(session_timeout_s=env.session_s) as cluster:
        cluster.start_coordinators(1)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        for _ in range(env.size(2, 20)):
            cluster.start_coordinators(1)
            cluster.progress()  # meanwhile it joins the group, which moves nothing yet
            leader = cluster.leader()
            at.append(time.monotonic())
            row.expect(leader.stop() == 0, f"a stopped coordinator did not exit with 0: {leader.said[-500:]}")
            cluster.progress()
            row.rounds += 1
        outcome = cluster.finish()
    row.add(outcome, rounds=0)
    gaps = [gap_around(outcome, each) for each in at]
    row.notes.append(f"gap of a hand-over: p50 {statistics.median(gaps):.2f} s, longest {max(gaps):.2f} s")
    limit = 1.0 + slowness_s(outcome)
    row.expect(
        statistics.median(gaps) <= limit, f"half of the hand-overs took more than {statistics.median(gaps):.2f} s"
    )
    row.expect_told(outcome, NOTHING)
    return row


def slowness_s(outcome: Outcome) -> float:
    """The time that a busy machine adds: ten of its calls; a tenth of a second where it is idle."""
    times = [each.ended_at - each.invoked_at for each in outcome.operations if each.ended_at is not None]
    return 10 * statistics.median(times)


def gap_around(outcome: Outcome, at: float, within_s: float = 2.0) -> float:
    """The longest time without a write acknowledged, of those that begin soon after an instant."""
    times = sorted(
        each.ended_at
        for each in outcome.operations
        if each.outcome == "ok" and each.kind != "read" and each.ended_at is not None
    )
    pairs = itertools.pairwise(times)
    return max((later - earlier for earlier, later in pairs if later > at and earlier < at + within_s), default=0.0)


def frozen(env: Environment) -> Row:
    """SIGSTOP of the leader for longer than its session, then SIGCONT, while its epoch goes on being written to."""
    row = Row("leader frozen, two leaders at once")
    with env.cluster(session_timeout_s=env.session_s, timeout_s=env.session_s / 2) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        for _ in range(env.size(1, 10)):
            _freeze(cluster, row, env.session_s)
        cluster.stop_workers()
        _write_as_the_leader_before(cluster)
        row.add(outcome := cluster.finish(), rounds=0)
        said = [each.status()["partitions"][0]["void"] for each in cluster.coordinators]
        row.expect(all(sum(each.values()) == row.void.total() for each in said), f"{row.void} void, counted {said}")
    row.expect_told(outcome, RETRYABLE)
    for _ in range(env.size(1, 5)):
        _zombie(env, row)
    return row


def _freeze(cluster: Cluster, row: Row, session_s: float) -> None:
    cluster.progress()
    leader = cluster.leader()
    other = next(each for each in cluster.coordinators if each is not leader)
    leader.signal(signal.SIGSTOP)
    until("another leader", other.leads, session_s + 30)
    impostor = Impostor(cluster)
    time.sleep(0.5)
    leader.signal(signal.SIGCONT)
    cluster.progress()
    sent = impostor.stop()
    row.notes.append(f"{sent} decisions were written for the epoch before, while the next leader led")
    row.expect(sent > 0, "nothing was written for the epoch before")
    until("the frozen leader follows", lambda: leader.status().get("ready") and not leader.leads())
    row.rounds += 1


def _write_as_the_leader_before(cluster: Cluster) -> None:
    """With everything at rest: the very next decision, in all but its epoch and its leader."""
    (records,) = cluster.settled()
    decisions = [
        (raw, found[1]) for raw in records if (found := decode(raw.value)) is not None and found[0] == "Decision"
    ]
    epoch = max(fields["epoch"] for _, fields in decisions)
    last, fields = next(each for each in reversed(decisions) if each[1]["epoch"] == epoch)
    before = next(fields for _, fields in reversed(decisions) if fields["epoch"] < epoch)
    assert last.value is not None
    following = {
        **fields,
        "epoch": before["epoch"],
        "leader_id": before["leader_id"],
        "index": fields["index"] + 1,
        "first_sequence": fields["first_sequence"] + len(fields["events"]),
        "prev_hash": chained(last.value, fields["contents"]),
    }
    cluster.produce(cluster.log_topic, [(fields["workspace"].encode(), encode("Decision", following))])


class Impostor:
    """Goes on writing for the epoch before the current one, as its leader would; past all of our code."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        decisions = [found[1] for raw in cluster.read()[0] if (found := decode(raw.value)) and found[0] == "Decision"]
        epochs = sorted({each["epoch"] for each in decisions})
        claims = [found[1] for raw in cluster.read()[0] if (found := decode(raw.value)) and found[0] == "LeaderClaimed"]
        current = claims[-1]["epoch"]
        old = max(each for each in epochs if each < current)
        self._last = next(each for each in reversed(decisions) if each["epoch"] == old)
        self._claim = claims[-1]
        self._sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            fields = dict(self._last)
            self._last = fields
            fields["index"] += 1
            fields["first_sequence"] += len(fields["events"])
            late = {**self._claim, "leader_id": uuid.uuid4().bytes}
            key = fields["workspace"].encode()
            records = [(key, encode("Decision", fields)), (None, encode("LeaderClaimed", late))]
            self._cluster.produce(self._cluster.log_topic, records)
            self._sent += 1
            self._stop.wait(0.01)

    def stop(self) -> int:
        """How many decisions it has written."""
        self._stop.set()
        self._thread.join()
        return self._sent


def _zombie(env: Environment, row: Row) -> None:
    """A leader frozen between deciding and sending: it sends when another leads already."""
    with env.cluster(session_timeout_s=env.session_s, timeout_s=env.session_s / 2) as cluster:
        service = cluster.start_service()
        shard = service.follower.shards[0]
        until("the service leads", lambda: shard.loop.role is Role.LEADING)
        held = Held(service)
        (other,) = cluster.start_coordinators(1)
        cluster.start_workers(2, env.workspaces)
        cluster.progress(10)
        held.armed.set()
        until("another leader", other.leads, env.session_s + 30)
        held.release.set()
        cluster.progress(10)
        until("the zombie follows", lambda: shard.loop.role is Role.FOLLOWING)
        outcome = cluster.finish()
        row.add(outcome)
        row.expect(outcome.report.void["old_epoch"] >= 1, f"the zombie wrote nothing: {outcome.report.void}")
        row.expect(
            shard.reader.cursor.void == outcome.report.void.total(),
            f"{outcome.report.void} void, and the zombie counts {shard.counts.void}",
        )
        row.expect_told(outcome, RETRYABLE)


class Held:
    """Holds back what a leader in this process appends, once armed, until it is released."""

    def __init__(self, service: CoordinatorService) -> None:
        self.armed = threading.Event()
        self.release = threading.Event()
        log = service.follower.shards[0]._log
        original = log.append

        def append(messages: Sequence[tuple[object, bytes | None, bytes]]) -> None:
            held = self.armed.is_set()
            if held:
                self.release.wait(120)
                self.armed.clear()
            original(messages)
            if held:
                log.flush(10)  # or the claim that it reads next would throw away what has not left yet

        log.append = append  # type: ignore[method-assign]


def racing(env: Environment) -> Row:
    """Three coordinators start at once, others come and go, and stray claims win: one of them always goes on."""
    row = Row("claims racing, members coming and going")
    with env.cluster(partitions=3, session_timeout_s=env.session_s, timeout_s=10) as cluster:
        cluster.start_coordinators(env.size(2, 3), ready=False)
        cluster.start_service()
        cluster.start_workers(env.size(2, 6), [f"w{number}" for number in range(4)])
        cluster.progress()
        for _ in range(env.size(3, 20)):
            _churn(cluster)
            cluster.progress(10, 30)
            row.rounds += 1
        for each in cluster.coordinators:
            each.wait_ready()
        outcome = cluster.finish()
        row.add(outcome, rounds=0)
        epochs = outcome.facts.claims
        row.notes.append(f"{epochs} claims won in {row.rounds} rounds")
    row.expect_told(outcome, RETRYABLE)
    return row


def _churn(cluster: Cluster) -> None:
    """A member joins and leaves within a second or so, and a claim without a coordinator wins in each partition."""
    service = cluster.start_service()
    time.sleep(0.5)
    for number, records in enumerate(cluster.read()):
        claims = [found[1] for raw in records if (found := decode(raw.value)) and found[0] == "LeaderClaimed"]
        if claims:
            late = {**claims[-1], "epoch": claims[-1]["epoch"] + 1, "leader_id": uuid.uuid4().bytes}
            cluster.produce(cluster.log_topic, [(None, encode("LeaderClaimed", late))], number)
    time.sleep(0.5)
    cluster.services.remove(service)
    service.close()
