"""Faults of leaders: killed, stopped, frozen; two at once; many that race.

Guarantees: each function hurts a run, waits until it goes on, and returns what the checker says of it. Does not: pass
a run in which the fault did not happen.
"""

import signal
import statistics
import time
from collections.abc import Iterator

from tests.faults.cluster import Cluster, Coordinator, Outcome
from tests.faults.environment import Environment
from tests.faults.table import Row

SESSION_S = 2.0
"""Session time-out of coordinators in small runs; in full ones it is what is shipped, 6 s."""
_GRACE_S = 3.0
"""Beyond the session time-out, how long nobody may lead."""


def _session_s(env: Environment) -> float:
    return 6.0 if env.full else SESSION_S


def killed(env: Environment) -> Row:
    """SIGKILL of the leading coordinator, under load, again and again."""
    row = Row("leader killed")
    session_s = _session_s(env)
    workspaces = ["w0", "w1", "w2"][: 3 if env.full else 2]
    with env.cluster(session_timeout_s=session_s, timeout_s=session_s + 1.5) as cluster:
        cluster.start_coordinators(2)
        cluster.start_workers(8 if env.full else 2, workspaces)
        for _ in range(env.size(2, 20)):
            cluster.progress()
            cluster.leader().kill()
            cluster.start_coordinators(1, ready=False)
            cluster.progress(timeout_s=session_s + 60)
            row.rounds += 1
        row.add(cluster.finish(), rounds=0)
    row.expect(row.unavailable_s <= session_s + _GRACE_S, f"nobody led for {row.unavailable_s:.1f} s")
    return row
