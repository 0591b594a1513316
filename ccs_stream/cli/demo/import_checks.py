"""The architecture check: who imports whom, found by syntax alone.

Guarantees: only imports that run when a module is loaded count; those inside functions and under TYPE_CHECKING do not
tie modules together. Does not: know what imports do at run time, or follow packages outside the sources.
"""

import ast
import dataclasses
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ccs_stream.cli.demo.source_checks import ReviewFinding, Sources, parse

MODULE_LINES_MAX: Final = 400
"""Longer modules usually hold two subjects."""
FAN_IN_MIN: Final = 5
"""Fewer importers are not reported."""
FAN_IN_SHOWN: Final = 3
FAN_OUT_MAX: Final = 20
"""A module that imports more of its siblings than this knows too much."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import that runs when `importer` is loaded; `name` is what it takes from `imported`, if anything."""

    importer: str
    imported: str
    name: str
    path: str
    line: int


def architecture(sources: Sources) -> list[ReviewFinding]:
    """Cycles of imports, imports up the layers, private names across packages, modules that too many depend on."""
    modules = _modules(sources)
    imports = [each for module, path in modules.items() for each in _imports(module, path, sources[path], modules)]
    found = [
        *_cycles(imports, modules),
        *_upward(imports),
        *_private(imports),
        *_crowded(imports, modules),
        *_long(sources),
    ]
    return sorted(found, key=lambda each: (each.path, each.line, each.rule))


# Who imports whom.


def _modules(sources: Sources) -> dict[str, str]:
    """The path of each module, by its dotted name.

    A folder without `__init__.py` may be part of the name (a namespace package) or not (`src`). The longest name that
    some import uses is taken, else the one that begins at the outermost package.
    """
    used = {name for text in sources.values() for name in _absolute(text)}
    named: dict[str, str] = {}
    for path in sources:
        parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
        starts = [0]
        while starts[-1] < len(parts) - 1 and "/".join([*parts[: starts[-1] + 1], "__init__.py"]) not in sources:
            starts.append(starts[-1] + 1)
        names = [".".join(parts[start:]) for start in starts]
        named[next((name for name in names if name in used), names[-1])] = path
    return named


def _absolute(text: str) -> Iterator[str]:
    """Every name by which absolute imports of a file may mean a module."""
    tree = parse(text)
    for node in ast.walk(tree) if isinstance(tree, ast.Module) else ():
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _imports(module: str, path: str, text: str, modules: Mapping[str, str]) -> Iterator[Import]:
    tree = parse(text)
    if not isinstance(tree, ast.Module):
        return
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    for node in _loaded(tree.body):
        for target, name in _targets(node, package, modules):
            if target != module:
                yield Import(importer=module, imported=target, name=name, path=path, line=node.lineno)


def _loaded(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports among statements that run when the module is loaded."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _loaded(node.body)
            yield from _loaded(node.orelse)
        elif isinstance(node, ast.Try):
            parts = [node.body, node.orelse, node.finalbody, *(each.body for each in node.handlers)]
            yield from _loaded(statement for part in parts for statement in part)


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((each.name, "") for each in node.names if each.name in modules and not _standard(each.name))
        return
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    elif _standard(base):
        return
    for each in node.names:
        if f"{base}.{each.name}" in modules:
            yield f"{base}.{each.name}", ""
        elif base in modules:
            yield base, each.name


def _standard(name: str) -> bool:
    """True if a name belongs to the standard library, even if a file has the same name."""
    return name.partition(".")[0] in sys.stdlib_module_names


# What is wrong with it.


def _cycles(imports: Sequence[Import], modules: Mapping[str, str]) -> Iterator[ReviewFinding]:
    graph: dict[str, set[str]] = defaultdict(set)
    for each in imports:
        graph[each.importer].add(each.imported)
    for ring in rings(graph):
        first = min(ring)
        line = min(each.line for each in imports if each.importer == first and each.imported in ring)
        names = ", ".join(sorted(ring))
        message = f"{len(ring)} modules import each other in a circle: {names}"
        yield ReviewFinding(rule="cycle", path=modules[first], line=line, severity=3, message=message, name=first)


def rings(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components with more than one member (Tarjan, without recursion)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []
    for root in sorted(graph):
        if root in order:
            continue
        work = [(root, iter(sorted(graph[root])))]
        order[root] = low[root] = len(order)
        stack.append(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    ring = set(stack[stack.index(node) :])
                    del stack[stack.index(node) :]
                    found.extend([ring] if len(ring) > 1 else [])
            elif following not in order:
                order[following] = low[following] = len(order)
                stack.append(following)
                work.append((following, iter(sorted(graph.get(following, ())))))
            elif following in stack:
                low[node] = min(low[node], order[following])
    return found


def _upward(imports: Sequence[Import]) -> Iterator[ReviewFinding]:
    """Where two packages import each other, the direction with fewer imports goes up the layers."""
    pairs: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Import] = {}
    for each in imports:
        pair = each.importer.rpartition(".")[0], each.imported.rpartition(".")[0]
        if not _inside(*pair) and not _inside(pair[1], pair[0]):
            pairs[pair] += 1
            first.setdefault(pair, each)
    for (lower, upper), count in sorted(pairs.items()):
        against = pairs[upper, lower]
        if against > count or (against == count and lower < upper):
            message = f"{lower} imports {upper} ({count}x), which imports it ({against}x): up the layers"
            at = first[lower, upper]
            yield ReviewFinding(rule="upward", path=at.path, line=at.line, severity=2, message=message, name=lower)


def _inside(package: str, other: str) -> bool:
    """True if `package` is `other` or inside it."""
    return f"{package}.".startswith(f"{other}.")


def _private(imports: Sequence[Import]) -> Iterator[ReviewFinding]:
    for each in imports:
        # Everything in a private module is private; its neighbours may use that.
        private_module = each.imported.rpartition(".")[2].startswith("_")
        if each.name.startswith("_") and not each.name.startswith("__") and not private_module:
            message = f"takes {each.name}, which is private to {each.imported}"
            yield ReviewFinding(
                rule="private", path=each.path, line=each.line, severity=1, message=message, name=each.name
            )


def _crowded(imports: Sequence[Import], modules: Mapping[str, str]) -> Iterator[ReviewFinding]:
    pairs = {(each.importer, each.imported) for each in imports}
    fan_in = Counter(imported for _, imported in pairs)
    fan_out = Counter(importer for importer, _ in pairs)
    for module, count in sorted(fan_in.items(), key=lambda each: (-each[1], each[0]))[:FAN_IN_SHOWN]:
        if count >= FAN_IN_MIN:
            message = f"{count} of {len(modules)} modules import {module}: what changes here changes everywhere"
            yield ReviewFinding(rule="fan-in", path=modules[module], line=1, severity=1, message=message, name=module)
    for module, count in sorted(fan_out.items()):
        if count > FAN_OUT_MAX:
            message = f"{module} imports {count} of its siblings: it knows too much"
            yield ReviewFinding(rule="fan-out", path=modules[module], line=1, severity=2, message=message, name=module)


def _long(sources: Sources) -> Iterator[ReviewFinding]:
    for path, text in sources.items():
        lines = text.count("\n") + 1
        if lines > MODULE_LINES_MAX:
            message = f"{lines} lines: more than one subject, probably"
            yield ReviewFinding(rule="long-module", path=path, line=1, severity=1, message=message)
