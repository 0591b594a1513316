"""Leadership holds at small scope, and each rule is needed: without it, a history that breaks something is found."""

from pathlib import Path

import pytest

from ccs_stream.protocol.leadership import LeadershipLoop
from ccs_stream.protocol.records import DecisionRecord, LeaderClaimed
from formal import leader_world
from formal.leader_facts import Entry
from formal.leader_moves import Scope
from formal.leader_mutations import MUTATIONS, REDUNDANT
from formal.leader_scope import SCOPES, explore

DOCS = Path(__file__).resolve().parents[2] / "docs" / "small-scope.md"
DEPTHS = (6, 5, 6, 5)
"""By scope, so many moves that it takes seconds."""
CAUGHT_WITHIN_MOVES = 10


@pytest.mark.parametrize(("scope", "depth"), list(zip(SCOPES, DEPTHS, strict=True)))
def test_every_history_of_so_many_moves_keeps_the_rules_and_heals(scope: Scope, depth: int) -> None:
    found = explore(scope, depth=depth, seconds=100)
    assert found.broken is None, (found.broken, found.history)
    assert found.depth == depth
    assert found.states > 4_000


def test_a_scope_can_be_explored_to_its_end() -> None:
    found = explore(Scope(commands={"a1": "topic direct", "b1": "topic"}, at_most=1), seconds=100)
    assert found.broken is None, (found.broken, found.history)
    assert found.exhausted
    assert found.states > 4_000


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_weakened_rule_is_caught_where_the_rule_holds(name: str) -> None:
    rules, scope = MUTATIONS[name]
    weakened = explore(scope, depth=CAUGHT_WITHIN_MOVES, seconds=100, rules=rules)
    assert weakened.broken is not None
    assert len(weakened.history) > 1
    real = explore(scope, depth=CAUGHT_WITHIN_MOVES, seconds=100)
    assert real.broken is None, (real.broken, real.history)


@pytest.mark.parametrize("name", REDUNDANT)
def test_a_redundant_rule_is_not_missed(name: str) -> None:
    rules, scope = REDUNDANT[name]
    found = explore(scope, depth=7, seconds=100, rules=rules)
    assert found.broken is None, "it is needed after all: give it a row among the mutations"


def test_records_that_a_coordinator_reads_at_once_make_no_difference_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    matters, skipped = leader_world.matters, 0

    def checked(loop: LeadershipLoop, entry: Entry) -> bool:
        nonlocal skipped
        if matters(loop, entry):
            return True
        skipped += 1
        probe, record = leader_world.fork(loop), entry.record
        role = probe.role
        if isinstance(record, DecisionRecord):
            effects = probe.decision_read(record.leader_id, record.index, entry.verdict)
        elif isinstance(record, LeaderClaimed):
            effects = probe.claim_read(record.epoch, record.leader_id, entry.verdict)
        else:
            effects = probe.resignation_read(record.leader_id, entry.verdict)
        assert (effects, probe.role) == ([], role)
        return False

    monkeypatch.setattr(leader_world, "matters", checked)
    for scope in SCOPES:
        assert explore(scope, depth=4, seconds=100).broken is None
    assert skipped > 1_000


def test_nothing_is_missed_because_some_reads_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_world, "matters", lambda _loop, _entry: True)
    found = explore(Scope(commands={"a1": "topic direct"}, at_most=1), seconds=100)
    assert found.broken is None, (found.broken, found.history)
    assert found.exhausted


def test_everything_a_loop_remembers_tells_worlds_apart() -> None:
    known = {"_batch", "_pending", "_proved", "_refused", "_unread", "assigned", "epoch", "leader_id", "role"}
    assert set(LeadershipLoop.__slots__) == known, "let `leader_world` look at what is new, too"


def test_the_docs_name_every_mutation() -> None:
    lines = DOCS.read_text("utf-8").partition("## Leaders")[2].splitlines()
    rows = [line.split(" | ")[0] for line in lines if " | " in line and not line.startswith("rule weakened")]
    assert rows == [*MUTATIONS, *REDUNDANT]
