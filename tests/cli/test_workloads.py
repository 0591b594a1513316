"""`ccs-stream workloads`: what it prints is what was published, to the token."""

import json
from pathlib import Path

from click.testing import CliRunner

from ccs_stream.cli import main

EXPECTED = Path(__file__).parent / "workloads.json"
"""Drawn up from the published figures; a change here is a change of what users are promised."""


def test_the_figures_are_those_that_were_published() -> None:
    outcome = CliRunner().invoke(main, ["workloads", "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout) == json.loads(EXPECTED.read_text())


def test_the_table_has_a_line_for_each_graph() -> None:
    outcome = CliRunner().invoke(main, ["workloads"])
    assert outcome.exit_code == 0, outcome.output
    for said in ("68.73 %", "46.71 %", "28.71 %", "4,160", "1,301", "InMemoryStore"):
        assert said in outcome.stdout
