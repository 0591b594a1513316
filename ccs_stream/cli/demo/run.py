"""Runs the demo, from the first file to the last check.

Guarantees: it returns one data object, from which both outputs are made; it sends nothing over the network. Does not:
print.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Final

import ccs_stream
from ccs_stream.cli.demo import expectations, processes
from ccs_stream.cli.demo.evidence import Evidence
from ccs_stream.cli.demo.graph import CODE, FINDINGS, REVIEW, REVIEWERS, ROUNDS, build_graph, read
from ccs_stream.cli.demo.result import DemoLog, DemoResult, ReplayCommand, Review, ReviewerResult
from ccs_stream.cli.demo.scripted_model import ScriptedModel
from ccs_stream.cli.demo.source_checks import ReviewFinding, parse
from ccs_stream.cli.demo.sources import SourceFiles
from ccs_stream.cli.demo.tokens import MeteredStore, count
from ccs_stream.log.urls import open_log
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.events import CommandRefused, RefusalReason

WORKSPACE: Final = "demo"
REPLAY: Final = (
    ("{replay} {workspace}{url} timeline --artifact reserved/plan", "shows the stopped holder, event by event"),
    ("{replay} {workspace}{url} artifact race/unguarded", "shows who wrote over whom, and what each had read"),
    ("{replay} {workspace}{url} verify", "checks every rule; it finds the lost updates, and exits with 3"),
)
"""The commands that the demo ends with, and what each shows. `workspace` is an option, needed if the log holds several.
"""

ShowProgress = Callable[[str], None]


def check_log(url: str | None) -> DemoLog:
    """The log to write: `url`, or a new file in a folder of its own, which is kept. Raises `UsageError`.

    If the log holds a demo already, the next one gets a workspace of its own.
    """
    if os.name != "posix":
        raise UsageError("the demo stops and continues processes, which takes a POSIX system")
    if url is None:
        folder = tempfile.mkdtemp(prefix="ccs-stream-demo-")
        return DemoLog(url=f"sqlite:///{folder}/demo.db", workspace=WORKSPACE, bytes=0)
    if urllib.parse.urlsplit(url).scheme != "sqlite":
        raise UsageError(f"{url!r}: several processes share the demo's log, so it is kept in SQLite: sqlite:///demo.db")
    store = open_log(url)
    try:
        taken = {each for each in store.workspaces() if re.fullmatch(rf"{WORKSPACE}(-\d+)?", each)}
    finally:
        store.close()
    return DemoLog(url=url, workspace=f"{WORKSPACE}-{len(taken) + 1}" if taken else WORKSPACE, bytes=0)


def run_demo(sources: SourceFiles, log: DemoLog, *, show_progress: ShowProgress) -> DemoResult:
    """Run all parts, in order. Raises `CcsError`s of the log, and `ChildFailed`."""
    # Whatever the environment says: the demo sends nothing to anybody.
    os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
    began = time.perf_counter()
    with MeteredStore(log.url, workspace=log.workspace) as store:
        show_progress(f"four agents review {len(sources.files)} files")
        review, before_races = reviewed(sources, store, log)
        workspace = store.workspace
        show_progress("two processes race, unguarded")
        unguarded = processes.race(log.url, workspace, guarded=False)
        show_progress("two processes race, guarded")
        guarded = processes.race(log.url, workspace, guarded=True)
        show_progress("a process is stopped while it holds a reservation")
        stopped = processes.stopped_holder(log.url, workspace)
        show_progress("writers are killed")
        killed = processes.killed_writers(log.url, workspace)
        show_progress("the state is rebuilt from the log")
        rebuilt = processes.rebuilt_elsewhere(log.url, workspace)
    evidence = Evidence.read(log.url, log.workspace)
    checks = [
        *expectations.of_races(unguarded, guarded),
        *expectations.of_processes(stopped, killed),
        *expectations.of_log(before_races, rebuilt, evidence, unguarded),
    ]
    return DemoResult(
        version=ccs_stream.__version__,
        log=DemoLog(url=log.url, workspace=log.workspace, bytes=_size(log.url)),
        review=review,
        unguarded=unguarded,
        guarded=guarded,
        stopped=stopped,
        killed=killed,
        rebuilt=rebuilt,
        violations=evidence.invariants.violations,
        lost_updates=evidence.invariants.losses,
        checks=checks,
        held=all(each.held for each in checks),
        seconds=round(time.perf_counter() - began, 3),
        replay=replay_commands(log),
    )


def reviewed(sources: SourceFiles, store: MeteredStore, log: DemoLog) -> tuple[Review, Evidence]:
    """Run the graph, and collect its results from the store and the log."""
    began = time.perf_counter()
    build_graph(ScriptedModel(), store).invoke({"files": sources.files})
    seconds = time.perf_counter() - began
    # Syntax trees are large, and left to the end of the process they take seconds to take apart.
    parse.cache_clear()
    evidence = Evidence.read(log.url, log.workspace)
    readings = count(store.reads, evidence)
    board = read(store, REVIEW, "board")
    reviewers: list[ReviewerResult] = []
    for name in REVIEWERS:
        value = read(store, FINDINGS, name)
        reviewers.append(
            ReviewerResult(
                agent=name,
                at_first=board["round 1"][name],
                at_last=board[f"round {ROUNDS}"][name],
                summary=value["summary"],
                findings=[ReviewFinding(**each) for each in value["findings"]],
            )
        )
    tokens, rereading = sum(each.tokens for each in readings), sum(each.tokens_rereading for each in readings)
    refusals = [each.event for each in evidence.events if isinstance(each.event, CommandRefused)]
    review = Review(
        path=sources.root,
        files=len(sources.files),
        lines=sum(text.count("\n") for text in sources.files.values()),
        left_out=sources.left_out,
        rounds=ROUNDS,
        reviewers=reviewers,
        fixed=sorted({evidence.name(event.artifact)[1] for _, event in evidence.writes(CODE) if event.version > 1}),
        report=read(store, REVIEW, "report")["text"],
        merged=sum(each.reason is RefusalReason.VERSION_CONFLICT for each in refusals),
        readings=readings,
        tokens=tokens,
        tokens_rereading=rereading,
        saved_percent=round(100 * (1 - tokens / rereading), 1),
        seconds=round(seconds, 3),
    )
    return review, evidence


def _size(url: str) -> int:
    """Bytes of the file and its write-ahead log."""
    path = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path[1:]))
    return sum(each.stat().st_size for each in (path, path.with_name(f"{path.name}-wal")) if each.exists())


def replay_commands(log: DemoLog) -> list[ReplayCommand]:
    """The commands that look into the log."""
    workspace = "" if log.workspace == WORKSPACE else f"-w {log.workspace} "
    names = {"replay": shlex.quote(_replay_script()), "workspace": workspace, "url": shlex.quote(log.url)}
    return [ReplayCommand(command=each.format_map(names), shows=shows) for each, shows in REPLAY]


def _replay_script() -> str:
    """The command for `ccs-replay`: its name if the shell finds the one beside this Python, else its path."""
    beside = Path(sys.executable).with_name("ccs-replay")
    found = shutil.which("ccs-replay")
    if not beside.exists() or (found is not None and Path(found).resolve() == beside.resolve()):
        return "ccs-replay"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
