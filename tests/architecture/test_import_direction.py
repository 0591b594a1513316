"""The direction of imports holds, and the linter that says so sees every room.

Each room in turn gets a module that imports what the room must not; the linter has to fail, naming the contract and the
planted module. A linter that does not see a folder finds nothing wrong in it, so a clean result alone proves nothing.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOMS, copy_tree, run_tool

LAYERS = "A room imports only rooms below it"
READERS = "Readers of the log need neither client nor coordinator"
PURE = "The core is pure: no I/O, no clock, no randomness, no logging"
FRAMEWORKS = "The core knows no agent framework"

# What each room must not import, by the contract that has to notice.
FORBIDDEN: dict[str, dict[str, str]] = {
    "schemas": {LAYERS: "ccs_stream.protocol", PURE: "pathlib", FRAMEWORKS: "langgraph"},
    "protocol": {LAYERS: "ccs_stream.log", PURE: "time", FRAMEWORKS: "langgraph"},
    "projections": {LAYERS: "ccs_stream.log", PURE: "confluent_kafka", FRAMEWORKS: "langchain"},
    "background": {LAYERS: "ccs_stream.log", FRAMEWORKS: "langgraph"},
    "log": {LAYERS: "ccs_stream.projections", FRAMEWORKS: "langgraph"},
    "coordinator": {LAYERS: "ccs_stream.client", FRAMEWORKS: "langgraph"},
    "client": {LAYERS: "ccs_stream.adapters", FRAMEWORKS: "langchain_core"},
    "simulation": {LAYERS: "ccs_stream.replay", READERS: "ccs_stream.client", FRAMEWORKS: "langgraph"},
    "consumers": {LAYERS: "ccs_stream.adapters", READERS: "ccs_stream.client", FRAMEWORKS: "crewai"},
    "replay": {LAYERS: "ccs_stream.consumers", READERS: "ccs_stream.coordinator", FRAMEWORKS: "autogen_core"},
    "adapters": {LAYERS: "ccs_stream.consumers"},
    "testing": {LAYERS: "ccs_stream.cli", FRAMEWORKS: "langgraph"},
    "cli": {FRAMEWORKS: "agents"},
}

IMPURE_MODULES = ("asyncio", "confluent_kafka", "logging", "random", "sqlite3", "threading", "time")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    return run_tool("lint-imports", cwd=tree)


def broken(report: str) -> set[str]:
    return set(re.findall(r"^(.*?) BROKEN(?: \(\d+ ignored imports?\))?$", report, re.MULTILINE))


def plant(tree: Path, room: str, *modules: str) -> str:
    (tree / "ccs_stream" / room / "planted.py").write_text("".join(f"import {module}\n" for module in modules))
    return f"ccs_stream.{room}.planted"


def test_the_tree_keeps_every_contract(tmp_path: Path) -> None:
    result = lint(copy_tree(tmp_path))

    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_every_room_has_a_violation_to_plant() -> None:
    assert sorted(FORBIDDEN) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_violation_is_caught_in(room: str, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    planted = plant(tree, room, *FORBIDDEN[room].values())

    result = lint(tree)

    assert result.returncode == 1, result.stdout + result.stderr
    assert broken(result.stdout) == set(FORBIDDEN[room])
    for module in FORBIDDEN[room].values():
        assert f"{planted} -> {module} (l." in result.stdout


@pytest.mark.parametrize("room", ["projections", "protocol"])
def test_every_kind_of_effect_is_caught_in(room: str, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    planted = plant(tree, room, *IMPURE_MODULES)

    result = lint(tree)

    assert broken(result.stdout) == {PURE}
    for module in IMPURE_MODULES:
        assert f"{planted} -> {module} (l." in result.stdout


def test_the_demo_alone_may_import_a_framework_in_the_cli(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    demo = tree / "ccs_stream" / "cli" / "demo"
    demo.mkdir(exist_ok=True)
    (demo / "__init__.py").touch()
    (demo / "planted.py").write_text("import langgraph\n")

    assert lint(tree).returncode == 0


def test_a_new_room_must_take_its_place_among_the_layers(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    (tree / "ccs_stream" / "annex").mkdir()
    (tree / "ccs_stream" / "annex" / "__init__.py").touch()

    result = lint(tree)

    assert result.returncode != 0
    assert "annex" in result.stdout
