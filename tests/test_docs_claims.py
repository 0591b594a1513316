"""What pages say of the code in tables is so."""

import inspect
import re
from pathlib import Path

import pytest

from ccs_stream.adapters.langgraph import CCSStore, StoreMetricEvent
from ccs_stream.client.options import ClientOptions
from ccs_stream.protocol.strategies import NAMES, build_strategy

ROOT = Path(__file__).resolve().parents[1]
FROM = (ROOT / "docs" / "from-agent-coherence.md").read_text("utf-8")
STRATEGIES = (ROOT / "docs" / "strategies.md").read_text("utf-8")
OPTIONS = {*inspect.signature(CCSStore).parameters, *ClientOptions.__annotations__} - {"options"}
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))
}


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table beneath a heading."""
    _, found, section = page.partition(f"# {heading}\n")
    assert found, heading
    _, bar, table = section.partition("\n|")
    lines = (bar.strip() + table).partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell: str) -> set[str]:
    """Options or methods that a cell names."""
    return set(re.findall(r"`([a-z_]+)(?:=|\()", cell))


def test_options_that_are_the_same_are_there_and_the_others_are_not() -> None:
    for there, here, _ in rows(FROM, "The store's options"):
        for option in named(there):
            assert (option in OPTIONS) is here.startswith("same"), f"{option}: {here}"


def test_every_new_option_is_named() -> None:
    new = re.search(r"^New: (.*?)\(\[", FROM, re.DOTALL | re.MULTILINE)
    assert new is not None
    told = set(re.findall(r"`([a-z_]+)", new[1]))
    of_old = {option for row in rows(FROM, "The store's options") for option in named(row[0])}
    assert OPTIONS - of_old - {"url"} == told


def test_methods_that_are_there_are_there_and_the_others_are_not() -> None:
    for there, here, _ in rows(FROM, "Methods, properties, events")[:12]:
        moved = here == "not there" or here.startswith("`store.workspace")
        for name in re.findall(r"`([a-z_]+)[`(]", there):
            assert hasattr(CCSStore, name) is not moved, f"{name}: {here}"


def test_fields_of_metric_events_are_all_named() -> None:
    row = next(row for row in rows(FROM, "Methods, properties, events") if row[0].startswith("`StoreMetricEvent`"))
    assert re.findall(r"`([a-z_]+)`", row[0]) == list(StoreMetricEvent.__annotations__)


def test_each_defect_has_a_test_of_that_name() -> None:
    defects = rows(FROM, "Defects that are gone")
    assert [row[0] for row in defects] == [f"C{number}" for number in range(1, 16)]
    for defect, _, _, tests in defects:
        for test in re.findall(r"`(test_\w+)`", tests) or [""]:
            assert test in TESTS, f"{defect}: {test!r}"


def test_the_table_of_strategies_is_that_of_the_code() -> None:
    table = {row[0].strip("`"): row for row in rows(STRATEGIES, "The table")}
    assert set(table) == set(NAMES)
    for name, row in table.items():
        strategy = build_strategy(name)
        said = (strategy.broadcasts_content_on_commit, strategy.pushes_to_everybody)
        assert tuple(cell == "yes" for cell in row[3:5]) == said, name


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), f"{target}#{anchor}"


def anchors(page: str) -> set[str]:
    """What headings may be linked by, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))], ids=lambda page: page.name
)
def test_lines_of_prose_have_at_most_125_columns(page: Path) -> None:
    lines = enumerate(page.read_text("utf-8").splitlines(), start=1)
    prose = [(number, line) for number, line in lines if not line.startswith("    ") and " | " not in line]
    assert [number for number, line in prose if len(line) > 125] == []


def test_the_list_of_pages_has_every_page() -> None:
    listed = re.findall(r"^\| \[(.*?)\]", (ROOT / "docs" / "README.md").read_text("utf-8"), re.MULTILINE)
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert sorted(listed) == sorted([*pages, "decisions/"])
