"""A released schema changes only by gaining optional fields; the check that says so finds every other change."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden" / "v1" / "schemas"
CURRENT = Path(__file__).resolve().parents[2] / "schemas"
RELEASED = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*.avsc"))
Schema = dict[str, Any]


def breaches(released: Schema, current: Schema) -> list[str]:
    """Why a log written under `released` could not be read, or would be read as something else, under `current`."""
    found = [f"{key} changed" for key in ("name", "namespace", "type") if released.get(key) != current.get(key)]
    theirs = {field["name"]: field for field in released["fields"]}
    ours = {field["name"]: field for field in current["fields"]}
    found += [f"field {name} was removed or renamed" for name in theirs if name not in ours]
    found += [
        f"field {name} was added without a default"
        for name in ours
        if name not in theirs and "default" not in ours[name]
    ]
    kept = [name for name in ours if name in theirs]
    if kept != [name for name in theirs if name in ours]:
        found.append("fields changed their order")
    for name in kept:
        found += [f"field {name}: {each}" for each in _type_breaches(theirs[name]["type"], ours[name]["type"])]
        if "default" in theirs[name] and theirs[name]["default"] != ours[name].get("default"):
            found.append(f"field {name} changed its default")
    return found


def _type_breaches(released: Any, current: Any) -> list[str]:
    if isinstance(released, dict) and isinstance(current, dict):
        if released.get("type") == current.get("type") == "record":
            return breaches(released, current)
        if released.get("type") == current.get("type") == "enum":
            symbols = current["symbols"][: len(released["symbols"])]
            return [] if symbols == released["symbols"] else ["its symbols changed other than by new ones at the end"]
        if released.get("type") == current.get("type") == "array":
            return _type_breaches(released["items"], current["items"])
        return [] if _bare(released) == _bare(current) else ["its type changed"]
    if isinstance(released, list) and isinstance(current, list) and len(released) == len(current):
        return [each for old, new in zip(released, current, strict=True) for each in _type_breaches(old, new)]
    return [] if released == current else ["its type changed"]


def _bare(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "doc"}


def read(folder: Path, name: str) -> Schema:
    """A schema file."""
    schema: Schema = json.loads((folder / name).read_text("utf-8"))
    return schema


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_schema_can_still_be_read(name: str) -> None:
    assert breaches(read(GOLDEN, name), read(CURRENT, name)) == []


def test_every_schema_was_released_with_a_golden_copy() -> None:
    assert sorted(str(path.relative_to(CURRENT)) for path in CURRENT.rglob("*.avsc")) == RELEASED


def _remove(schema: Schema) -> None:
    del schema["fields"][1]


def _rename(schema: Schema) -> None:
    schema["fields"][1]["name"] = "renamed"


def _retype(schema: Schema) -> None:
    schema["fields"][2]["type"] = "string"


def _add_required(schema: Schema) -> None:
    schema["fields"].append({"name": "added", "type": "long"})


def _reorder(schema: Schema) -> None:
    schema["fields"].reverse()


def _rename_record(schema: Schema) -> None:
    schema["name"] = "Other"


def _drop_symbol(schema: Schema) -> None:
    field = next(field for field in schema["fields"] if field["name"] == "reason")
    field["type"]["symbols"] = field["type"]["symbols"][1:]


def _change_default(schema: Schema) -> None:
    schema["fields"][-1]["default"] = "x"


@pytest.mark.parametrize(
    "change",
    [_remove, _rename, _retype, _add_required, _reorder, _rename_record, _drop_symbol, _change_default],
)
def test_a_breaking_change_is_found(change: Callable[[Schema], None]) -> None:
    released = read(GOLDEN, "log/ArtifactDeleted.avsc")
    changed = copy.deepcopy(released)
    change(changed)
    assert breaches(released, changed) != []


def test_an_optional_field_at_the_end_is_no_breach() -> None:
    released = read(GOLDEN, "log/ArtifactDeleted.avsc")
    changed = copy.deepcopy(released)
    changed["fields"].append({"name": "added", "type": ["null", "long"], "default": None})
    assert breaches(released, changed) == []
