"""The demo's checks find what is there, where it is, and leave alone what is right."""

import textwrap

import pytest

from ccs_stream.cli.demo.import_checks import FAN_IN_MIN, FAN_OUT_MAX, MODULE_LINES_MAX, architecture, rings
from ccs_stream.cli.demo.source_checks import FUNCTION_LINES_MAX, ReviewFinding, Sources, security, style

DOCUMENTED = '"""Says what it is."""\n\n'


def places(findings: list[ReviewFinding]) -> list[tuple[str, int]]:
    """Rule and line of each finding."""
    return [(each.rule, each.line) for each in findings]


def one(text: str) -> Sources:
    """One documented module with this text after its docstring, so that the text begins in line 3."""
    return {"pkg/mod.py": DOCUMENTED + textwrap.dedent(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(): ...\n", [("docstring", 3)]),
        ("async def f(): ...\n", [("docstring", 3)]),
        ("def _f(): ...\n", []),
        ("class A:\n    '''A.'''\n    def m(self): ...\n    def _m(self): ...\n", [("docstring", 5)]),
        ("class A:\n    '''A.'''\n    @override\n    def m(self): ...\n", []),
        ("class A:\n    '''A.'''\n    @x.setter\n    def x(self, v): ...\n", []),
        ("def _f():\n    def inner(): ...\n", []),
        ("assert 1\n", [("assert", 3)]),
        ("def _f(a=[]): ...\n", [("mutable-default", 3)]),
        ("def _f(*, a={}): ...\n", [("mutable-default", 3)]),
        ("def _f(a=()): ...\n", []),
        ("def _f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX, [("long-function", 3)]),
        ("def _f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1), []),
    ],
)
def test_style(text: str, expected: list[tuple[str, int]]) -> None:
    assert places(style(one(text))) == expected


def test_style_of_modules_and_of_tests() -> None:
    assert places(style({"a.py": "x = 1\n"})) == [("docstring", 1)]
    assert style({"a.py": ""}) == []
    assert style({"tests/test_a.py": "def test_a():\n    assert 1\n"}) == []


def test_a_file_that_does_not_parse_is_reported_once() -> None:
    sources = {"bad.py": "def f(:\n", "null.py": "\0", "good.py": "x = eval('1')\n"}
    assert [(each.path, each.rule) for each in style(sources)] == [
        ("bad.py", "no-syntax"),
        ("null.py", "no-syntax"),
        ("good.py", "docstring"),
    ]
    assert [(each.path, each.rule) for each in security(sources)] == [("good.py", "risky-call")]
    assert architecture(sources) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eval(x)\n", [("risky-call", 3)]),
        ("import os\nos.system(x)\n", [("risky-call", 4)]),
        ("from os import system as run\nrun(x)\n", [("risky-call", 4)]),
        ("import pickle as p\np.loads(x)\n", [("risky-call", 4)]),
        ("import subprocess\nsubprocess.run(x, shell=True)\n", [("risky-call", 4)]),
        ("import subprocess\nsubprocess.run([x])\n", []),
        ("import yaml\nyaml.load(x)\nyaml.load(x, Loader=yaml.SafeLoader)\n", [("risky-call", 4)]),
        ("import hashlib\nhashlib.md5(x)\nhashlib.md5(x, usedforsecurity=False)\n", [("risky-call", 4)]),
        ("get(x, verify=False)\n", [("risky-call", 3)]),
        ("db.execute(f'SELECT {x}')\n", [("risky-call", 3)]),
        ("db.execute('SELECT ' + x)\n", [("risky-call", 3)]),
        ("db.execute('SELECT {}'.format(x))\n", [("risky-call", 3)]),
        ("db.execute('SELECT ?', (x,))\n", []),
        ("model.eval()\n", []),
        ("try:\n    f()\nexcept:\n    pass\n", [("broad-except", 5)]),
        ("try:\n    f()\nexcept Exception:\n    log()\n", [("broad-except", 5)]),
        ("try:\n    f()\nexcept Exception:\n    log()\n    raise\n", []),
        ("try:\n    f()\nexcept ValueError:\n    pass\n", []),
        ("password = 'hunter2'\n", [("secret", 3)]),
        ("self.api_key: str = 'abc'\n", [("secret", 3)]),
        ("password = ''\npassword = ask()\n", []),
        ("open('/tmp/x')\n", [("shared-folder", 3)]),
    ],
)
def test_security(text: str, expected: list[tuple[str, int]]) -> None:
    assert places(security(one(text))) == expected


def test_a_bare_silent_except_is_worse_than_a_broad_one() -> None:
    found = security(one("try:\n    f()\nexcept:\n    pass\ntry:\n    f()\nexcept Exception:\n    log()\n"))
    assert [each.severity for each in found] == [3, 1]


PACKAGE = {"pkg/__init__.py": "", "pkg/low/__init__.py": "", "pkg/high/__init__.py": ""}


def test_a_cycle_of_imports() -> None:
    sources = {
        **PACKAGE,
        "pkg/a.py": "import pkg.b\n",
        "pkg/b.py": "from . import c\n",
        "pkg/c.py": "from .a import x\n",
    }
    (found,) = architecture(sources)
    assert (found.rule, found.path, found.line, found.severity) == ("cycle", "pkg/a.py", 1, 3)
    assert "pkg.a, pkg.b, pkg.c" in found.message


@pytest.mark.parametrize(
    "back",
    ["def f():\n    import pkg.a\n", "if TYPE_CHECKING:\n    import pkg.a\n", "import pkg.other\n", "import ast\n"],
)
def test_imports_that_do_not_tie_modules_together(back: str) -> None:
    assert architecture({**PACKAGE, "pkg/a.py": "import pkg.b\n", "pkg/b.py": back}) == []


def test_an_import_up_the_layers() -> None:
    sources = {
        **PACKAGE,
        "pkg/low/one.py": "",
        "pkg/low/two.py": "\nfrom pkg.high.b import x\n",
        "pkg/high/a.py": "from pkg.low.one import x\nfrom pkg.low.two import y\n",
        "pkg/high/b.py": "",
    }
    (found,) = architecture(sources)
    assert (found.rule, found.path, found.line) == ("upward", "pkg/low/two.py", 2)
    assert "pkg.low imports pkg.high (1x), which imports it (2x)" in found.message


def test_private_names_across_modules() -> None:
    sources = {**PACKAGE, "pkg/a.py": "_x = __y__ = 1\n", "pkg/b.py": "from pkg.a import _x, __y__\n", "pkg/_c.py": ""}
    assert places(architecture(sources)) == [("private", 1)]
    assert architecture({**PACKAGE, "pkg/_c.py": "", "pkg/b.py": "from pkg._c import _x\n"}) == []


def test_modules_that_many_others_import() -> None:
    users = {f"pkg/m{number}.py": "import pkg.low.ids\n" for number in range(FAN_IN_MIN)}
    (found,) = architecture({**PACKAGE, "pkg/low/ids.py": "", **users})
    assert (found.rule, found.path) == ("fan-in", "pkg/low/ids.py")
    many = {f"pkg/m{number}.py": "" for number in range(FAN_OUT_MAX + 1)}
    (found,) = architecture({**PACKAGE, **many, "pkg/z.py": "".join(f"import pkg.m{n}\n" for n in range(len(many)))})
    assert (found.rule, found.path) == ("fan-out", "pkg/z.py")


def test_long_modules() -> None:
    assert places(architecture({"a.py": "x = 1\n" * MODULE_LINES_MAX})) == [("long-module", 1)]
    assert architecture({"a.py": "x = 1\n" * (MODULE_LINES_MAX - 1)}) == []


@pytest.mark.parametrize("top", ["src", "space"])
def test_folders_that_are_no_packages_may_be_part_of_a_name_or_not(top: str) -> None:
    prefix = "space." if top == "space" else ""
    sources = {
        f"{top}/app/__init__.py": "",
        f"{top}/app/a.py": f"import {prefix}app.b\n",
        f"{top}/app/b.py": f"import {prefix}app.a\n",
    }
    assert [each.rule for each in architecture(sources)] == ["cycle"]


def test_a_file_named_like_a_standard_module_is_not_taken_for_it() -> None:
    assert architecture({"x/types.py": "import x.a\n", "x/a.py": "import types\n"}) == []


def test_rings_of_a_graph() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"f", "a"}}
    assert sorted(map(sorted, rings(graph))) == [["a", "b", "c"], ["d", "e"]]
    assert rings({str(n): {str(n + 1)} for n in range(5_000)} | {"5000": {"0"}})[0] == {str(n) for n in range(5_001)}
