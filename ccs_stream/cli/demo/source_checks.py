"""The checks that the reviewers of the demo make: pure checks of Python source, by its syntax tree.

Guarantees: the same text gives the same findings; nothing is executed or imported. Does not: replace an analyser; the
checks are few, and each finding is worth a look. The check of the architecture is in `import_checks`.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

Sources = Mapping[str, str]
"""Text by path; a path begins at the outermost package."""

FUNCTION_LINES_MAX: Final = 60
"""Longer functions do not fit a screen."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | _Function


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFinding:
    """Something worth a look. `severity` is 3 for a fault, 2 for a risk, 1 for a remark."""

    rule: str
    path: str
    line: int
    severity: int
    message: str
    name: str = ""
    """The name of what it is about, if that has one."""


@functools.lru_cache(maxsize=2_048)
def parse(text: str) -> ast.Module | SyntaxError:
    """The syntax tree, or the syntax error. Cached, because three reviewers look at each file several times."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        return error if isinstance(error, SyntaxError) else SyntaxError(str(error))


def is_test(path: str) -> bool:
    """True if a file holds tests, in which asserts and undocumented names are normal."""
    parts = path.split("/")
    return "tests" in parts or parts[-1].startswith("test_") or parts[-1] == "conftest.py"


def each_file(check: Callable[[str, ast.Module], Iterator[ReviewFinding]], sources: Sources) -> list[ReviewFinding]:
    """The findings of `check` in each file that can be parsed, in the order of paths and lines."""
    found: list[ReviewFinding] = []
    for path, text in sources.items():
        tree = parse(text)
        if isinstance(tree, ast.Module):
            found.extend(check(path, tree))
    return sorted(found, key=lambda each: (each.path, each.line, each.rule))


# Style.


def style(sources: Sources) -> list[ReviewFinding]:
    """Missing docstrings on public names, functions that fit no screen, asserts and defaults that surprise."""
    broken = [
        ReviewFinding(
            rule="no-syntax", path=path, line=tree.lineno or 1, severity=3, message=f"does not parse: {tree.msg}"
        )
        for path, text in sources.items()
        if isinstance(tree := parse(text), SyntaxError)
    ]
    return broken + each_file(_style, sources)


def _style(path: str, tree: ast.Module) -> Iterator[ReviewFinding]:
    test = is_test(path)
    if not test:
        yield from _undocumented(path, tree)
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            yield from _long_or_surprising(path, node)
        elif isinstance(node, ast.Assert) and not test:
            yield ReviewFinding(
                rule="assert",
                path=path,
                line=node.lineno,
                severity=1,
                message="an assert outside tests is gone under python -O",
            )


def _undocumented(path: str, tree: ast.Module) -> Iterator[ReviewFinding]:
    if tree.body and ast.get_docstring(tree) is None:
        yield _missing(path, 1, "module", path)
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | _Function) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield _missing(path, node.lineno, "class" if isinstance(node, ast.ClassDef) else "function", node.name)
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, _Function) and not inner.name.startswith("_") and not _inherits_words(inner):
                    yield _missing(path, inner.lineno, "method", f"{node.name}.{inner.name}")


def _inherits_words(method: _Function) -> bool:
    """True if a method has a docstring, or inherits one by its decorator."""
    names = {ast.unparse(each).rpartition(".")[2] for each in method.decorator_list}
    return ast.get_docstring(method) is not None or bool(names & {"overload", "override", "setter", "deleter"})


def _missing(path: str, line: int, kind: str, name: str) -> ReviewFinding:
    return ReviewFinding(
        rule="docstring",
        path=path,
        line=line,
        severity=1,
        message=f"the public {kind} {name} has no docstring",
        name=name,
    )


def _long_or_surprising(path: str, node: _Function) -> Iterator[ReviewFinding]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > FUNCTION_LINES_MAX:
        message = f"{node.name} has {lines} lines: it fits no screen"
        yield ReviewFinding(
            rule="long-function", path=path, line=node.lineno, severity=2, message=message, name=node.name
        )
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if isinstance(default, ast.List | ast.Dict | ast.Set):
            message = f"{node.name} has a default that all its calls share and may change"
            yield ReviewFinding(
                rule="mutable-default", path=path, line=default.lineno, severity=3, message=message, name=node.name
            )


# Security.

_CALLS: Final[Mapping[str, tuple[int, str]]] = {
    "eval": (3, "runs whatever text it is given"),
    "exec": (3, "runs whatever text it is given"),
    "os.system": (3, "hands its text to a shell"),
    "os.popen": (3, "hands its text to a shell"),
    "pickle.load": (3, "runs code from the data it loads"),
    "pickle.loads": (3, "runs code from the data it loads"),
    "marshal.loads": (3, "crashes, or worse, on data made for it"),
    "shelve.open": (2, "is pickle underneath: it runs code from the data it loads"),
    "tempfile.mktemp": (3, "names a file that somebody else may make first"),
    "hashlib.md5": (2, "collides at will: no good for anything that must be authentic"),
    "hashlib.sha1": (2, "collides for who can pay: no good for anything that must be authentic"),
}
_SECRET_NAME: Final = re.compile(r"(^|[_.])(password|passwd|secret|api_key|apikey|access_token)$", re.IGNORECASE)
_SHARED_FOLDERS: Final = tuple(f"/{each}/" for each in ("tmp", "var/tmp", "dev/shm"))


def security(sources: Sources) -> list[ReviewFinding]:
    """Text that is executed, data that is trusted, secrets and shared folders in the source, swallowed errors."""
    return each_file(_security, sources)


def _security(path: str, tree: ast.Module) -> Iterator[ReviewFinding]:
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _risky_call(path, node, aliases)
        elif isinstance(node, ast.ExceptHandler):
            yield from _swallowed(path, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from _secret(path, node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(_SHARED_FOLDERS):
            message = f"{node.value!r} is in a folder that everybody may write to"
            yield ReviewFinding(rule="shared-folder", path=path, line=node.lineno, severity=2, message=message)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """The full name behind each name, by the imports of the module."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {each.asname: each.name for each in node.names if each.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return known


def _called(node: ast.Call, aliases: Mapping[str, str]) -> str:
    name = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
    first, dot, rest = name.partition(".")
    return aliases.get(first, first) + dot + rest


def _risky_call(path: str, node: ast.Call, aliases: Mapping[str, str]) -> Iterator[ReviewFinding]:
    name = _called(node, aliases)
    options = {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg}
    severity, why = _CALLS.get(name, (0, ""))
    if name.startswith("hashlib.") and options.get("usedforsecurity") == "False":
        severity = 0
    if name.startswith("subprocess.") and options.get("shell") == "True":
        severity, why = 3, "with shell=True hands its text to a shell"
    if name == "yaml.load" and "Safe" not in ast.unparse(node):
        severity, why = 3, "without a safe loader makes any object that the data names"
    if options.get("verify") == "False":
        severity, why = 3, "with verify=False talks to anybody"
    if name.rpartition(".")[2] in ("execute", "executemany") and node.args and _composed(node.args[0]):
        severity, why = 2, "gets SQL put together from parts: a part that comes from outside is run"
    if severity:
        message = f"{name} {why}"
        yield ReviewFinding(
            rule="risky-call", path=path, line=node.lineno, severity=severity, message=message, name=name
        )


def _composed(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
        return isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".format")


def _swallowed(path: str, node: ast.ExceptHandler) -> Iterator[ReviewFinding]:
    caught = "" if node.type is None else ast.unparse(node.type)
    if caught not in ("", "Exception", "BaseException") or any(isinstance(each, ast.Raise) for each in ast.walk(node)):
        return
    silent = all(isinstance(each, ast.Pass | ast.Continue) for each in node.body)
    what = f"except {caught}" if caught else "a bare except"
    does = "swallows every error without a word" if silent else "catches every error, those of bugs included"
    severity = 1 + silent + (not caught)
    yield ReviewFinding(rule="broad-except", path=path, line=node.lineno, severity=severity, message=f"{what} {does}")


def _secret(path: str, node: ast.Assign | ast.AnnAssign) -> Iterator[ReviewFinding]:
    value = node.value
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str) or not value.value:
        return
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        name = ast.unparse(target)
        if _SECRET_NAME.search(name):
            message = f"{name} is a secret in the source"
            yield ReviewFinding(rule="secret", path=path, line=node.lineno, severity=3, message=message, name=name)
