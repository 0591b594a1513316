"""The table of background threads in docs/architecture.md is that of the code."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.tree import PACKAGE, ROOMS, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
TABLE = PAGE.partition("## Background threads")[2]
MAKERS = frozenset(
    {"BackgroundQueue", "DecisionFollower", "PeriodicTask", "for_each", "job_queue", "run_in_background"}
)
LEFT_OUT = ("background", "testing", "cli")
"""The classes themselves; and what is not part of a workspace or a coordinator."""


def names() -> Iterator[str]:
    """The beginning of the name of each thread, up to what is put into it when it is made."""
    rooms = [room for room in ROOMS if room not in LEFT_OUT]
    for path in (path for room in rooms for path in (PACKAGE / room).resolve().rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                maker = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = [each.value for each in node.keywords if each.arg == "name"]
                if maker == "Thread":
                    yield beginning(given[0]).removeprefix("ccs-")
                elif maker in MAKERS:
                    yield from (name for each in (given or node.args[:1]) if (name := beginning(each)))


def beginning(node: ast.expr) -> str:
    """The text that a name begins with; nothing where it is a variable."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return str(node.value).rstrip("-") if isinstance(node, ast.Constant) else ""


def test_every_thread_is_in_the_table_and_no_other() -> None:
    said = {re.sub(r"-[A-Z]+$", "", name) for name in re.findall(r"^\| `ccs-([\w-]+)` ", TABLE, re.MULTILINE)}
    made = {name for name in names() if name}
    assert made - said == set()
    assert said - made == set()
    assert len(made) > 15
