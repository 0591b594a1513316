"""The core holds at small scope, and each rule is needed: without it, a history that breaks something is found."""

from pathlib import Path

import pytest

from formal.mutations import MUTATIONS
from formal.small_scope import explore

DOCS = Path(__file__).resolve().parents[2] / "docs" / "small-scope.md"


@pytest.mark.parametrize(("participants", "artifacts", "depth"), [(2, 1, 6), (3, 1, 4), (2, 2, 4)])
def test_every_history_of_so_many_moves_keeps_the_rules(participants: int, artifacts: int, depth: int) -> None:
    found = explore(participants=participants, artifacts=artifacts, depth=depth, seconds=100)
    assert found.broken is None, (found.broken, found.history)
    assert found.finished
    assert found.states > 1_000


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_weakened_rule_is_caught(name: str) -> None:
    decide, fold = MUTATIONS[name]
    found = explore(participants=2, artifacts=1, depth=6, seconds=100, decide=decide, fold=fold)
    assert found.broken is not None


def test_the_docs_name_every_mutation() -> None:
    rows = [line.split("|")[1].strip() for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert rows[1:] == list(MUTATIONS)
