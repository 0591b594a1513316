"""Faults of brokers: one of three killed; the only one away, or silent for longer than a producer tries.

Guarantees: as for leaders. Calls are timed: each must return within its deadline, whatever the brokers do.
"""

import time
from typing import Final

from confluent_kafka.admin import AdminClient

from tests.faults.cluster import Cluster, Outcome
from tests.faults.environment import Environment, own_broker
from tests.faults.table import RETRYABLE, Row
from tests.waiting import until

_SLACK_S: Final = 2.5
"""Beyond its time-out, how long a call may take on a busy machine."""
_STOP_S: Final = 15.0
"""Half the time that a process usually gets to stop."""
FAILOVER: Final = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


def killed(env: Environment) -> Row:
    """SIGKILL of the node that leads the log's partition, of three: nothing acknowledged is lost."""
    row = Row("one of three brokers killed")
    with (
        own_broker(3, **FAILOVER) as broker,
        env.cluster(broker=broker, session_timeout_s=6, timeout_s=5) as cluster,
    ):
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        down: int | None = None
        for _ in range(env.size(1, 6)):
            if down is not None:
                broker.restart(down)
            cluster.progress()
            down = _leading_node(cluster)
            broker.kill(down)
            cluster.progress(timeout_s=90)
            row.rounds += 1
        row.add(outcome := cluster.finish(), rounds=0)
    row.expect_told(outcome, RETRYABLE)
    _expect_in_time(row, outcome, cluster.settings.timeout_s)
    return row


def _leading_node(cluster: Cluster) -> int:
    admin = AdminClient({"bootstrap.servers": cluster.broker.bootstrap_servers})
    return int(admin.list_topics(cluster.log_topic, timeout=10).topics[cluster.log_topic].partitions[0].leader)


def away(env: Environment) -> Row:
    """The only broker is killed and comes back: reads go on, marked stale, writes return, and all is well again."""
    row = Row("the only broker away")
    away_s = env.size(6, 30)
    with env.cluster(session_timeout_s=env.session_s, timeout_s=3) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        cluster.start_workers(1, env.workspaces, kinds=["look"], agents=1, pause_s=0.1)
        for _ in range(env.size(1, 3)):
            cluster.progress()
            gone = time.monotonic()
            env.broker.kill(1)
            time.sleep(away_s)
            back = time.monotonic()
            env.broker.restart(1)
            _expect_back(row, cluster)
            row.rounds += 1
            _expect_degraded(row, cluster, gone + 2.0, back)
        row.add(outcome := cluster.finish(), rounds=0)
    row.expect_told(outcome, RETRYABLE)
    _expect_in_time(row, outcome, cluster.settings.timeout_s)
    return row


def silent(env: Environment) -> Row:
    """The only broker stands still for longer than producers try, and goes on with what it was sent before."""
    row = Row("broker silent beyond the delivery time-out")
    with env.cluster(session_timeout_s=6, timeout_s=3, delivery_timeout_s=2) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(env.size(2, 8), env.workspaces)
        cluster.start_workers(1, env.workspaces, kinds=["look"], agents=1, pause_s=0.1)
        for _ in range(env.size(1, 6)):
            cluster.progress()
            gone = time.monotonic()
            env.broker.pause(1)
            time.sleep(env.choose.uniform(6.0, 7.0))
            back = time.monotonic()
            env.broker.resume(1)
            _expect_back(row, cluster)
            row.rounds += 1
            _expect_degraded(row, cluster, gone + 4.0, back)
        row.add(outcome := cluster.finish(), rounds=0)
        _expect_to_stop(env, row, cluster)
    row.expect(row.unknown > 0, "no outcome was unknown: the fault did not happen")
    row.expect_told(outcome, RETRYABLE)
    _expect_in_time(row, outcome, cluster.settings.timeout_s)
    return row


def _expect_to_stop(env: Environment, row: Row, cluster: Cluster) -> None:
    """A coordinator that is asked to stop does so while the broker is silent."""
    leader = cluster.leader()
    env.broker.pause(1)
    time.sleep(1.0)
    began = time.monotonic()
    leader.stop(60)
    took = time.monotonic() - began
    env.broker.resume(1)
    row.notes.append(f"a leader that was asked to stop meanwhile ended after {took:.1f} s")
    row.expect(took < _STOP_S, f"a leader that was asked to stop while the broker was silent took {took:.0f} s")


def _expect_back(row: Row, cluster: Cluster) -> None:
    """All clients and coordinators go on by themselves, and none reports an error any more."""
    back = time.monotonic()
    cluster.progress(timeout_s=90)
    writes = [each for each in cluster.operations() if each.kind != "read" and each.outcome == "ok"]
    first = min(each.ended_at for each in writes if each.ended_at is not None and each.ended_at > back)
    row.notes.append(f"a write was acknowledged {first - back:.2f} s after the broker was back")
    until("ready coordinators", lambda: all(each.status().get("ready") for each in cluster.coordinators if each.runs))


def _expect_degraded(row: Row, cluster: Cluster, begin: float, end: float) -> None:
    """Between these instants reads of what is known were served, and said to be perhaps stale."""
    operations = [each for each in cluster.operations() if each.kind == "read" and each.outcome == "ok"]
    during = [each for each in operations if begin < each.invoked_at and (each.ended_at or end) < end]
    fresh = [each for each in during if not each.stale]
    row.expect(during, "no read was served while the broker was away")
    row.expect(not fresh, f"{len(fresh)} of {len(during)} reads were not marked stale while the broker was away")
    late = [each for each in operations if each.invoked_at > end]
    row.expect(not late or not late[-1].stale, "the last read is still marked stale")


def _expect_in_time(row: Row, outcome: Outcome, timeout_s: float) -> None:
    """Every call returned within its deadline."""
    times = [(each.ended_at - each.invoked_at, each) for each in outcome.operations if each.ended_at is not None]
    longest, operation = max(times, key=lambda pair: pair[0])
    row.notes.append(f"longest call {longest:.2f} s, a {operation.kind} ({operation.freshness}), {operation.error}")
    row.expect(longest <= timeout_s + _SLACK_S, f"a call with a time-out of {timeout_s:g} s took {longest:.2f} s")
