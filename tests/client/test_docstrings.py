"""The examples in the docstrings of what users call run as they stand, and print what they say."""

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ccs_stream
from ccs_stream.adapters.langgraph import CoherentStore
from ccs_stream.client.agent import Agent

WITH_EXAMPLES: list[Callable[..., Any]] = [
    ccs_stream.connect,
    Agent.read,
    Agent.write,
    Agent.compare_and_set,
    Agent.acquire,
    ccs_stream.Workspace.watch,
    ccs_stream.Workspace.health,
    CoherentStore,
]


def examples(thing: Callable[..., Any]) -> list[str]:
    return [
        textwrap.dedent(block) for block in re.findall(r"```python\n(.*?)```", inspect.getdoc(thing) or "", re.DOTALL)
    ]


@pytest.mark.parametrize("thing", WITH_EXAMPLES, ids=lambda thing: thing.__qualname__)
def test_the_example_runs_and_prints_what_it_says(
    thing: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = examples(thing)
    exec(compile(example, thing.__qualname__, "exec"), {})
    said = re.findall(r"print\(.*?\)  # (.*)", example)
    assert capsys.readouterr().out.splitlines()[: len(said)] == said
