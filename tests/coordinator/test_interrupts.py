"""An interrupt may come between any two lines of a call: the next call works, and the state is a fold of the log."""

import random
from pathlib import Path

import pytest

from ccs_stream.log.reader import ShardReader
from ccs_stream.protocol.events import CommandRefused
from tests.coordinator import interrupts


@pytest.mark.parametrize("call", ["write", "write anew", "read", "delete", "join", "acquire", "sweep"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_call_that_is_interrupted_at_any_point_leaves_the_store_whole(tmp_path: Path, kind: str, call: str) -> None:
    points, faults = interrupts.every_point(kind, call, tmp_path, step=7)
    assert faults == {}
    assert points > 20


def test_random_interrupts_of_random_calls_leave_nothing_wrong() -> None:
    seed = random.randrange(1 << 32)
    print(f"python -m tests.coordinator.interrupts --count 150 --seed {seed}")
    found = interrupts.run(150, seed)
    assert {name: found[name] for name in interrupts.FAULTS} == dict.fromkeys(interrupts.FAULTS, 0)


def test_an_exception_that_a_signal_handler_raises_while_a_command_is_decided_is_no_refusal(tmp_path: Path) -> None:
    tried = interrupts.Tried("sqlite", tmp_path)
    for at in range(1, 400, 3):
        interrupts.interrupted(tried.calls()["write"], at, interrupts.TimedOut)
    entries = list(ShardReader(tried.log, "w").read())
    tried.close()
    assert not [event for entry in entries for event in entry.events if type(event) is CommandRefused]
