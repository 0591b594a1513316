"""Work that runs beside the caller: a queue with a worker, a task that is repeated, and the check for forked processes.

All threads of the package are made here, except those that own a Kafka consumer (`coordinator.kafka`) and the HTTP
server of a dedicated coordinator.

Guarantees: a worker is a daemon thread named `ccs-...`, started when it is first needed; whatever its function raises,
`SystemExit` included, the worker goes on: the first failure is logged with its traceback, later ones are counted
(`on_failure` is called with the first of each row of failures). `health()` is the state of a worker as data. `close`
may be called twice and from the worker itself, and never waits longer than its time-out. At a normal exit of the
interpreter all queues are flushed together, for at most `queue.EXIT_FLUSH_S`. In a forked child a queue is empty and
works; a periodic task is closed, since the parent goes on with it; a `ForkGuard` raises.
Does not: survive a kill; end a function that hangs (its thread ends with the process).
May import: `clock`, `protocol`.
"""

from ccs_stream.background.coroutines import Job, job_queue, run_job
from ccs_stream.background.forks import ForkGuard, when_forked
from ccs_stream.background.periodic import UNTIL_WOKEN, PeriodicTask
from ccs_stream.background.queue import BackgroundQueue
from ccs_stream.background.worker import OnFailure, WorkerHealth, run_in_background

__all__ = [
    "UNTIL_WOKEN",
    "BackgroundQueue",
    "ForkGuard",
    "Job",
    "OnFailure",
    "PeriodicTask",
    "WorkerHealth",
    "job_queue",
    "run_in_background",
    "run_job",
    "when_forked",
]
