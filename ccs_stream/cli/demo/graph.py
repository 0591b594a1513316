"""The graph of the demo: three reviewers in parallel, then a synthesizer, in rounds. Copy it, and give it a real model.

Guarantees: it is plain LangGraph; everything shared goes through the store, whose agent is the running node. `model` is
any chat model: `build_graph(init_chat_model("..."), store)`. It uses one thing that LangGraph's own stores do not have:
with `writes="guarded"` the store raises `VersionConflict` when a node would overwrite what it has not read. Does not:
touch a file; what is fixed is fixed in the store.
"""

import ast
import contextlib
import dataclasses
import json
import operator
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore, Item

from ccs_stream import VersionConflict
from ccs_stream.cli.demo.import_checks import architecture
from ccs_stream.cli.demo.source_checks import ReviewFinding, Sources, parse, security, style

CODE: Final = ("code",)
FINDINGS: Final = ("findings",)
REVIEW: Final = ("review",)
REVIEWERS: Final[dict[str, Callable[[Sources], list[ReviewFinding]]]] = {
    "style": style,
    "security": security,
    "architecture": architecture,
}
ROUNDS: Final = 3
FILES_FIXED: Final = 4
"""Files that the synthesizer documents in a round: few, as a careful author would."""
WORST: Final = 8
"""Findings whose code the synthesizer reads for its report."""


class ReviewState(TypedDict, total=False):
    """The state that travels along the edges. It is small, because what is shared is in the store."""

    files: dict[str, str]
    paths: list[str]
    round: int
    fixed: Annotated[list[str], operator.add]


def build_graph(
    model: BaseChatModel, store: BaseStore
) -> CompiledStateGraph[ReviewState, None, ReviewState, ReviewState]:
    """The graph, ready to be invoked with `{"files": {path: text}}`."""
    graph = StateGraph(ReviewState)
    graph.add_node("setup", setup)
    graph.add_edge(START, "setup")
    graph.add_node("synthesizer", synthesizer(model))
    for name in REVIEWERS:
        graph.add_node(name, reviewer(name, model))
        graph.add_edge("setup", name)
    graph.add_edge(list(REVIEWERS), "synthesizer")
    graph.add_conditional_edges("synthesizer", again, [*REVIEWERS, END])
    return graph.compile(store=store)


def again(state: ReviewState) -> list[str]:
    """The next nodes: all reviewers, until the rounds are over."""
    return list(REVIEWERS) if state["round"] <= ROUNDS else [END]


def setup(state: ReviewState, *, store: BaseStore) -> ReviewState:
    """Put the files into the store."""
    for path, text in state["files"].items():
        store.put(CODE, path, {"text": text})
    return {"paths": list(state["files"]), "round": 1, "files": {}}


def reviewer(name: str, model: BaseChatModel) -> Callable[..., ReviewState]:
    """The node of one reviewer."""

    def review(state: ReviewState, *, store: BaseStore) -> ReviewState:
        board = store.get(REVIEW, "board")
        sources = {path: read(store, CODE, path)["text"] for path in state["paths"]}
        found = sorted(REVIEWERS[name](sources), key=lambda each: -each.severity)
        report = [dataclasses.asdict(each) for each in found]
        summary = ask(model, f"You review {name}.", "Sum up these findings.", findings=report)
        before = store.get(FINDINGS, name)
        if before is None or before.value["findings"] != report:
            store.put(FINDINGS, name, {"findings": report, "summary": summary})
        tally(store, board, f"round {state['round']}", {name: len(report)})
        return {}

    return review


def tally(store: BaseStore, board: Item | None, column: str, counts: dict[str, int]) -> None:
    """Add counts to the board, which all reviewers read when they begin and write when they are done."""
    while True:
        columns = dict(board.value) if board is not None else {}
        columns[column] = {**columns.get(column, {}), **counts}
        try:
            store.put(REVIEW, "board", columns)
            return
        except VersionConflict:
            board = store.get(REVIEW, "board")  # somebody was faster: add ours to theirs, and try again


def synthesizer(model: BaseChatModel) -> Callable[..., ReviewState]:
    """The node that reads the findings and the code, documents a few files, and writes the report."""

    def synthesize(state: ReviewState, *, store: BaseStore) -> ReviewState:
        board = read(store, REVIEW, "board")[f"round {state['round']}"]
        findings = [ReviewFinding(**each) for name in REVIEWERS for each in read(store, FINDINGS, name)["findings"]]
        worst = sorted(findings, key=lambda each: -each.severity)[:WORST]
        quoted = [{**dataclasses.asdict(each), "code": _line(store, each)} for each in worst]
        fixed = document(findings, model, store) if state["round"] < ROUNDS else []
        done = sorted({*state.get("fixed", []), *fixed})
        report = ask(model, "You write the report.", "Write it.", reviewers=board, worst=quoted, fixed=done)
        store.get(REVIEW, "report")
        store.put(REVIEW, "report", {"text": report})
        return {"round": state["round"] + 1, "fixed": fixed}

    return synthesize


def document(findings: Iterable[ReviewFinding], model: BaseChatModel, store: BaseStore) -> list[str]:
    """Write the missing docstrings of the files that lack most; returns the paths of the changed files."""
    lacking: dict[str, list[ReviewFinding]] = {}
    for each in findings:
        if each.rule == "docstring":
            lacking.setdefault(each.path, []).append(each)
    chosen = sorted(lacking, key=lambda path: (-len(lacking[path]), path))[:FILES_FIXED]
    fixed: list[str] = []
    for path in chosen:
        text = before = str(read(store, CODE, path)["text"])
        # From the end, so that the lines of what is still to be done stay where they are.
        for each in sorted(lacking[path], key=lambda each: (-each.line, each.name == path)):
            words = ask(model, "You write docstrings.", "Write one sentence.", undocumented=each.name)
            text = with_docstring(text, each.line, words, module=each.name == path)
        if text != before:
            store.put(CODE, path, {"text": text})
            fixed.append(path)
    return fixed


def with_docstring(text: str, line: int, words: str, *, module: bool = False) -> str:
    """The text with a docstring for the module, or for the definition at `line`; unchanged if that is not possible."""
    tree = parse(text)
    if not isinstance(tree, ast.Module):
        return text
    lines = text.split("\n")
    docstring = f'"""{words}"""'
    if module:
        head = 0
        while head < len(lines) and lines[head].startswith("#"):
            head += 1
        lines[head:head] = [docstring, ""]
    else:
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        node = next((each for each in ast.walk(tree) if isinstance(each, kinds) and each.lineno == line), None)
        if node is None or node.body[0].lineno == line:
            return text
        first = node.body[0]
        decorators = getattr(first, "decorator_list", [])
        at = min([first.lineno, *(each.lineno for each in decorators)])
        lines.insert(at - 1, " " * first.col_offset + docstring)
    changed = "\n".join(lines)
    return changed if isinstance(parse(changed), ast.Module) else text


def read(store: BaseStore, namespace: tuple[str, ...], key: str) -> dict[str, Any]:
    """A value that must be there."""
    item = store.get(namespace, key)
    if item is None:
        raise LookupError(f"{key} is not in {namespace}")
    return item.value


def ask(model: BaseChatModel, role: str, question: str, **facts: Any) -> str:
    """The model's answer to a question about some facts."""
    answer = model.invoke([SystemMessage(role), HumanMessage(f"{question}\n{json.dumps(facts)}")])
    return str(answer.text)


def _line(store: BaseStore, finding: ReviewFinding) -> str:
    with contextlib.suppress(IndexError):
        return str(read(store, CODE, finding.path)["text"].split("\n")[finding.line - 1]).strip()
    return ""
