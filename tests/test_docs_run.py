"""Every Python block of the documentation runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL), start=1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block: str) -> None:
    exec(compile(block, "docs", "exec"), {})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) > 7
