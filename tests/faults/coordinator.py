"""`ccs-stream coordinator`, which also says in `/status` where each workspace stands and the hash of its state.

    python -m tests.faults.coordinator kafka://...

Guarantees: everything else is the command as its operators run it. Does not: change what it does.
"""

from typing import Any

from ccs_stream.cli.kafka.coordinator import coordinator
from ccs_stream.coordinator.kafka import health_server
from ccs_stream.coordinator.kafka.service import CoordinatorService
from ccs_stream.protocol.statehash import state_hash

_status = health_server.status


def status(service: CoordinatorService) -> dict[str, Any]:
    """The result of `health_server.status`, and the states."""
    found = _status(service)
    found["states"] = {}
    for shard in list(service.follower.shards.values()):
        with shard.lock:
            for name, state in shard.states.items():
                found["states"][name] = {"sequence": state.sequence, "hash": state_hash(state)}
    return found


if __name__ == "__main__":
    health_server.status = status
    coordinator()
