"""A small budget of random calls; `python -m tests.fuzz --minutes N` has no end but the one it is given."""

from pathlib import Path

import pytest

from tests.fuzz.driver import run_one


@pytest.mark.parametrize("seed", range(6))
def test_no_call_with_odd_values_breaks_a_log(seed: int, tmp_path: Path) -> None:
    report = run_one(seed, tmp_path, calls=150)

    assert report.faults == [], f"again: python -m tests.fuzz --seed {seed} --calls 150"
    assert report.by_outcome["returned"] > 0
    assert report.by_outcome["UsageError"] > 0, "the values were not odd"
