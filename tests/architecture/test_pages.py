"""The pages about the inside of the package name classes, functions and files that exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGE, ROOT

PAGES = [ROOT / "docs" / name for name in ("architecture.md", "glossary.md")]
WORDS = frozenset(
    {
        *("latest", "own_writes", "local", "lazy", "eager", "lease", "access_count", "broadcast"),
        *("on_metric=", "state_log=", "content_audit_log=", "formal/"),
    }
)
"""Values of options and folders outside the package that the pages put in code."""


def defined() -> set[str]:
    """Every name that a module of the package defines, and the modules and folders themselves."""
    found: set[str] = set()
    for path in [
        *PACKAGE.rglob("*.py"),
        *(each for room in PACKAGE.iterdir() for each in room.resolve().rglob("*.py")),
    ]:
        found.update((path.stem, path.parent.name))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                    found.add(node.name)
                case ast.Assign():
                    found.update(each.id for each in node.targets if isinstance(each, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
                case _:
                    pass
    return found


DEFINED = defined()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_name_in_code_exists(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    missing = []
    for name in re.findall(r"`([^`]+)`", prose):
        if "/" in name:
            known = (ROOT / name).exists() or (PACKAGE / name).exists()
        else:
            known = name.partition("(")[0].rpartition(".")[2] in DEFINED
        if not known and name not in WORDS and not name.startswith("ccs-"):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_class_in_a_diagram_exists(page: Path) -> None:
    blocks = "\n".join(re.findall(r"```mermaid\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    names = set(re.findall(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", blocks)) - {"LangGraph"}
    assert sorted(names - DEFINED) == []
