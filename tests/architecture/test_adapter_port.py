"""Adapters reach into the client through its port, and through nothing else."""

import ast
from pathlib import Path

import pytest

from ccs_stream.client.adapter_port import AdapterPort
from ccs_stream.client.operations.engine import Engine
from tests.architecture.test_import_direction import broken, lint
from tests.architecture.tree import ROOT, copy_tree

CONTRACT = "Adapters use the client's port and its public face"
BEHIND_THE_PORT = {"coordinator", "copies", "engine", "observers", "recorder", "session"}
"""Attributes of a workspace and its engine that are no part of the port."""


def reaches(path: Path) -> list[str]:
    """Where a module takes an attribute that is behind the port."""
    tree = ast.parse(path.read_text())
    return [
        f"{path.name}:{node.lineno} .{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in BEHIND_THE_PORT
    ]


def test_no_adapter_takes_an_attribute_that_is_behind_the_port() -> None:
    modules = sorted((ROOT / "adapters").rglob("*.py"))
    assert len(modules) > 5
    assert [found for module in modules for found in reaches(module)] == []


def test_a_reach_behind_the_port_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def state(workspace):\n    return workspace.engine.state\n")
    assert reaches(planted) == ["planted.py:2 .engine"]


@pytest.mark.parametrize(
    "module",
    [
        "ccs_stream.client.operations.engine",
        "ccs_stream.client.cache.content_cache",
        "ccs_stream.client.degraded.mode",
        "ccs_stream.client.observers.metrics",
        "ccs_stream.coordinator.local",
        "ccs_stream.log.memory",
        "ccs_stream.protocol.events",
    ],
)
def test_an_import_from_behind_the_port_breaks_the_contract(tmp_path: Path, module: str) -> None:
    tree = copy_tree(tmp_path)
    (tree / "adapters" / "langgraph" / "planted.py").write_text(f"import {module}\n")
    report = lint(tree)
    assert report.returncode == 1
    assert CONTRACT in broken(report.stdout)


def test_the_port_names_nothing_that_the_engine_has_not() -> None:
    names = {name for name in vars(AdapterPort) if not name.startswith("_")}
    assert len(names) > 15
    made = {
        target.attr
        for node in ast.walk(ast.parse(Path(str(ROOT / "ccs_stream/client/operations/engine.py")).read_text()))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for each in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(each)
        if isinstance(target, ast.Attribute)
    }
    assert names <= made | set(vars(Engine))
