"""The pure rooms are pure, and the check that says so finds what is planted."""

from pathlib import Path

import pytest

from tests.architecture.purity import check, impurities

PACKAGE = Path(__file__).resolve().parents[2] / "ccs_stream"


def test_the_pure_rooms_are_pure() -> None:
    assert check(PACKAGE) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import datetime\nnow = datetime.datetime.now(datetime.UTC)", "datetime.datetime.now"),
        ("from datetime import datetime as dt\nclock = dt.utcnow", "datetime.datetime.utcnow"),
        ("import datetime as d\nclock = d.date.today", "datetime.date.today"),
        ("from uuid import uuid4 as fresh\nfresh()", "uuid.uuid4"),
        ("def inner():\n    from uuid import uuid1\n    return uuid1()", "uuid.uuid1"),
        ("open('x')", "open"),
        ("class Fold:\n    def show(self):\n        print(self)", "print"),
        ("key = hash('x') % 12", "hash"),
    ],
)
def test_an_effect_is_found_under_any_name(source: str, name: str) -> None:
    assert name in [found for _, found in impurities(source)]


@pytest.mark.parametrize(
    "source",
    [
        "from uuid import NAMESPACE_URL, uuid5\nuuid5(NAMESPACE_URL, 'x')",
        "from datetime import UTC, datetime\nepoch = datetime(1970, 1, 1, tzinfo=UTC)",
        "def open(command):\n    return [command]\nopen(1)",
        "workspace.open()\nlease.now()",
    ],
)
def test_values_and_own_names_are_no_effects(source: str) -> None:
    assert list(impurities(source)) == []


def test_the_schemas_may_import_nothing() -> None:
    assert list(impurities("from pathlib import Path", imports_allowed=False)) == [(1, "import")]


@pytest.mark.parametrize("room", ["protocol", "projections", "schemas"])
def test_each_pure_room_is_searched(room: str, tmp_path: Path) -> None:
    planted = tmp_path / room / "deeper" / "planted.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("import uuid\nnew = uuid.uuid4\n")

    found = check(tmp_path)

    assert any(line.startswith(f"{planted}:2: uuid.uuid4") for line in found)
