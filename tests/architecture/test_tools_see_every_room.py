"""Type checker and linter look into every folder, those behind symbolic links included.

A folder that a tool passes over looks clean for ever. So each folder gets one error of each tool, and both tools, run
as `make check` runs them, have to name every one. Only the shape of the tree is copied: what the modules contain does
not matter here, and leaving it out keeps this to seconds.
"""

import shutil
from pathlib import Path

import pytest

from tests.architecture.tree import LINKED_ROOMS, ROOMS, ROOT, run_tool

OUTSIDE = ("benchmarks", "examples", "tests")
PLANTED = '"""Planted."""\n\nimport schemas\n\nnumber: int = "not a number"\n'


def drop_contents(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if "." in name or name == "__pycache__"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    for folder in ("ccs_stream", *LINKED_ROOMS, *OUTSIDE):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=drop_contents)
    for folder in (*(f"ccs_stream/{room}" for room in ROOMS), *OUTSIDE):
        (tmp_path / folder / "planted.py").write_text(PLANTED)
    return tmp_path


def test_the_linked_rooms_are_links() -> None:
    assert LINKED_ROOMS == ["adapters", "consumers", "replay", "schemas"]


def test_the_type_checker_sees_every_folder(tree: Path) -> None:
    result = run_tool("mypy", cwd=tree)

    for folder in (*(f"ccs_stream/{room}" for room in ROOMS), *OUTSIDE):
        assert f"{folder}/planted.py:5: error: Incompatible types" in result.stdout, result.stdout + result.stderr


def test_the_linter_sees_every_file_once(tree: Path) -> None:
    result = run_tool("ruff", "check", "--no-cache", "--output-format=concise", cwd=tree)

    rooms = [room if room in LINKED_ROOMS else f"ccs_stream/{room}" for room in ROOMS]
    found = sorted(line.partition(":")[0] for line in result.stdout.splitlines() if "TID251" in line)
    assert found == sorted(f"{folder}/planted.py" for folder in (*rooms, *OUTSIDE))
