"""No broker outlives the process that started it."""

import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ccs_stream.testing.broker import NoBroker
from tests.testing.kafka_io import PATIENCE_S

pytestmark = pytest.mark.kafka

OWNER = textwrap.dedent("""
    import sys, threading, time
    from ccs_stream.testing.broker import NoBroker, start_broker

    def start():
        try:
            broker = start_broker()
        except NoBroker as error:
            print(f"none {error}", flush=True)
        else:
            print(broker.bootstrap_servers, broker.log_of(1).parent, flush=True)

    starter = threading.Thread(target=start)  # which ends before the process does
    starter.start()
    starter.join()
    sys.stdin.read()
""")


def answers(address: str) -> bool:
    """Whether anybody listens there."""
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_broker_ends_with_an_owner_that_is_killed() -> None:
    # given
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        address, folder = owner.stdout.readline().split(maxsplit=1)
        if address == "none":
            raise NoBroker(folder)
        time.sleep(0.5)  # longer than the thread that started it lives
        assert answers(address)
        # when
        owner.send_signal(signal.SIGKILL)
        owner.wait(PATIENCE_S)
    # then
    deadline = time.monotonic() + PATIENCE_S
    while answers(address) or Path(folder.strip()).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
