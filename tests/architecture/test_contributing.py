"""What CONTRIBUTING says of files and folders is so."""

import re

import pytest

from tests.architecture.tree import PACKAGE, ROOMS, ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CHANGES = PAGE.partition("## Where does a change go?")[2].partition("\n## ")[0]
HOUSE = PAGE.partition("## The house")[2].partition("\n## ")[0]
PATHS = sorted({name for name in re.findall(r"`([^`\s]+)`", CHANGES) if "/" in name or re.search(r"\.\w+$", name)})


def exists(name: str) -> bool:
    """Whether a name is a file or folder of the tree, of the package, or of one of its rooms."""
    places = (ROOT, PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and "/" not in name))
    return any((place / name).exists() for place in places)


def test_there_are_paths_to_check() -> None:
    assert len(PATHS) > 15


@pytest.mark.parametrize("name", PATHS)
def test_where_a_change_goes_is_a_place_that_exists(name: str) -> None:
    assert exists(name), name


def test_the_map_of_the_house_shows_every_room() -> None:
    shown = re.findall(r"^ {0,2}(\w+)/ ", HOUSE, re.MULTILINE)
    assert sorted({*ROOMS} - {*shown}) == []
    assert [name for name in shown if name != "ccs_stream" and not exists(name)] == []


def test_the_folders_of_tests_that_cut_across_the_rooms_are_named() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    crossing = set(re.findall(r"`tests/(\w+)`", PAGE))
    assert folders - {*ROOMS} == crossing
