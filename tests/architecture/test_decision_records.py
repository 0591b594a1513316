"""The records of decisions have one form, so that a reader finds the same part in the same place."""

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_has_its_number_in_the_title_and_the_four_headings(record: Path) -> None:
    text = record.read_text("utf-8")
    number = int(record.name.partition("-")[0])
    assert text.startswith(f"# {number}. ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Rejected", "Consequences"]


def test_the_records_are_numbered_without_a_gap() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
