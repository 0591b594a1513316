"""Names mean one thing: no class name is defined twice, and modules are called after what they hold."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.architecture.tree import PACKAGE, ROOT

NOUNS = frozenset({"string", "testing", "warning"})
"""Words that end in -ing and are nouns all the same."""


def modules() -> list[Path]:
    """The modules of the package, each once; links lead to the rooms at the top of the tree."""
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts) + sorted(
        path for room in PACKAGE.iterdir() if room.is_symlink() for path in room.resolve().rglob("*.py")
    )


def test_no_class_name_is_defined_twice_in_the_package() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                real = path.resolve().relative_to(ROOT)
                places[node.name.lstrip("_")].add(f"{real}:{node.lineno}")
    assert {name: sorted(each) for name, each in places.items() if len(each) > 1} == {}


def test_no_module_is_named_by_a_gerund() -> None:
    names = {path.stem: path for path in modules()} | {path.parent.name: path.parent for path in modules()}
    last = {name: name.rpartition("_")[2] for name in names}
    assert [str(names[name]) for name, word in last.items() if word.endswith("ing") and word not in NOUNS] == []
