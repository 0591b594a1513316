"""Every Python block of the documentation and of the README runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in [README, *sorted((ROOT / "docs").glob("*.md"))]
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL), start=1)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) > 8


def test_the_first_lines_of_the_readme_lose_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(str(BLOCKS[0].values[0]), "README", "exec"), {})
    printed = capsys.readouterr().out
    assert [step for step in ("design", "build", "test") if f"'{step}'" not in printed] == []
