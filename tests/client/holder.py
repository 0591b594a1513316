"""A process that holds a grant: `python holder.py URL WORKSPACE TIMEOUT_S`; an order a line, and so is its answer."""

import json
import sys
from typing import Any

import ccs_stream
from ccs_stream.client.agent import Agent
from ccs_stream.client.recovery import CrashRecoveryConfig
from ccs_stream.protocol.errors import Refused


def obey(agent: Agent, order: str) -> dict[str, Any]:
    """Write or read `k`."""
    try:
        match order.split():
            case ["write", value]:
                return {"version": agent.write("k", value).version}
            case ["read", *freshness]:
                reading = agent.read("k", freshness=freshness[0] if freshness else None)
                return {"value": None if reading is None else reading.value}
            case _:
                return {"error": f"no such order: {order}"}
    except Refused as error:
        return {"refused": error.reason, "said": str(error)}


def main(url: str, workspace: str, timeout_s: str) -> None:
    """Serve until stdin ends."""
    config = CrashRecoveryConfig(enabled=True, heartbeat_timeout_s=float(timeout_s))
    with ccs_stream.connect(url, workspace=workspace, crash_recovery=config) as opened:
        for order in sys.stdin:
            sys.stdout.write(json.dumps(obey(opened.agent("holder"), order)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
