"""What an import cannot show: effects that the pure rooms could reach through modules they may import.

Guarantees: finds each use of a name below in `protocol` and `projections`, under whatever alias it was imported, and
any import at all in `schemas`.
Does not: follow calls into other modules (the contracts of import-linter say which modules can be reached), or see
through `getattr` and other ways of hiding a name.
Runs as a script for `make check`, and from the tests, which plant effects and see them found.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PURE_ROOMS = ("protocol", "projections")
DATA_ROOMS = ("schemas",)

# Modules that are wanted for their values (a uuid5, a timestamp's arithmetic) and also offer an effect.
IMPURE_NAMES = frozenset(
    {
        "datetime.date.fromtimestamp",  # without a zone the result depends on where it runs, as does the next one
        "datetime.date.today",
        "datetime.datetime.fromtimestamp",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "io.FileIO",
        "io.open",
        "uuid.getnode",
        "uuid.uuid1",
        "uuid.uuid4",
        "uuid.uuid6",
        "uuid.uuid7",
    }
)
# `hash` of text differs from one process to the next, so nothing that is stored or ordered may depend on it.
IMPURE_BUILTINS = frozenset({"__import__", "breakpoint", "eval", "exec", "hash", "input", "open", "print"})


def impurities(source: str, *, imports_allowed: bool = True) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each effect in a module's source."""
    tree = ast.parse(source)
    origins = _origins(tree)
    own_names = _own_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom() if not imports_allowed:
                yield node.lineno, "import"
            case ast.Name() | ast.Attribute() if (name := _dotted(node, origins)) in IMPURE_NAMES:
                yield node.lineno, name
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS and name not in own_names:
                yield node.lineno, name
            case _:
                pass


def _origins(tree: ast.Module) -> dict[str, str]:
    """Where each imported name comes from: `from datetime import datetime as dt` gives dt -> datetime.datetime."""
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                # `import a.b` binds a; `import a.b as c` binds c to a.b.
                origins.update({name.asname: name.name for name in names if name.asname})
                origins.update({top: top for name in names if not name.asname for top in [name.name.partition(".")[0]]})
            case ast.ImportFrom(module=str(module), names=names):
                origins.update({name.asname or name.name: f"{module}.{name.name}" for name in names})
            case _:
                pass
    return origins


def _own_names(tree: ast.Module) -> set[str]:
    """The functions and classes the module defines; a command named `open` is not the builtin."""
    return {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def _dotted(node: ast.expr, origins: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return origins.get(name, "")
        case ast.Attribute(value=value, attr=attribute) if outer := _dotted(value, origins):
            return f"{outer}.{attribute}"
        case _:
            return ""


def check(package: Path) -> list[str]:
    """Name each effect in the pure rooms of a package, as `file:line: what`."""
    return [
        f"{path}:{line}: {name} in a room that must stay pure"
        for room in (*PURE_ROOMS, *DATA_ROOMS)
        for path in sorted((package / room).rglob("*.py"))
        for line, name in impurities(path.read_text(encoding="utf-8"), imports_allowed=room not in DATA_ROOMS)
    ]


if __name__ == "__main__":
    found = check(Path(__file__).resolve().parents[2] / "ccs_stream")
    print("\n".join(found) or "The core is pure.")  # noqa: T201 - a script's result
    sys.exit(bool(found))
