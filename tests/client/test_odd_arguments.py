"""Odd values of every type, for every argument: an error before anything is appended, or a log that all can read."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings

import ccs_stream
from ccs_stream import CcsError, Delete, Put, UsageError, WorkspaceSettings
from ccs_stream.client.options import ClientOptions
from ccs_stream.client.workspace import Workspace
from ccs_stream.log.fold import fold_log
from ccs_stream.log.memory import MemoryLog
from ccs_stream.log.reader import ShardReader
from ccs_stream.log.snapshot import read_snapshot, take_snapshot
from ccs_stream.protocol.directory import Directory
from ccs_stream.protocol.statehash import state_hash
from tests.protocol.test_limits import ANYTHING

Call = Callable[[Workspace, Any], object]


def acquired(workspace: Workspace, key: Any = "r", **options: Any) -> None:
    """Enter and leave a reservation."""
    with workspace.agent("a").acquire(key, **options):
        pass


CALLS: dict[str, Call] = {
    "write(key)": lambda w, v: w.agent("a").write(v, 1),
    "write(value)": lambda w, v: w.agent("a").write("k", v),
    "write(scope)": lambda w, v: w.agent("a").write("k", 1, scope=v),
    "write(scope part)": lambda w, v: w.agent("a").write("k", 1, scope=("s", v)),
    "write(ttl_s)": lambda w, v: w.agent("a").write("t", 1, ttl_s=v),
    "write(reason)": lambda w, v: w.agent("a").write("k", 1, reason=v),
    "compare_and_set(key)": lambda w, v: w.agent("a").compare_and_set(v, 1, expected=None),
    "compare_and_set(expected)": lambda w, v: w.agent("a").compare_and_set("k", 1, expected=v),
    "compare_and_set(scope)": lambda w, v: w.agent("a").compare_and_set("k", 1, expected=1, scope=v),
    "compare_and_set(ttl_s)": lambda w, v: w.agent("a").compare_and_set("n", 1, expected=None, ttl_s=v),
    "delete(key)": lambda w, v: w.agent("a").delete(v),
    "delete(scope)": lambda w, v: w.agent("a").delete("k", scope=v),
    "delete(expected)": lambda w, v: w.agent("a").delete("k", expected=v),
    "delete(reason)": lambda w, v: w.agent("a").delete("k", reason=v),
    "read(key)": lambda w, v: w.agent("a").read(v),
    "read(scope)": lambda w, v: w.agent("a").read("k", scope=v),
    "read(freshness)": lambda w, v: w.agent("a").read("k", freshness=v),
    "read(at_least)": lambda w, v: w.agent("a").read("k", at_least=v),
    "acquire(key)": acquired,
    "acquire(scope)": lambda w, v: acquired(w, scope=v),
    "acquire(limit_s)": lambda w, v: acquired(w, limit_s=v),
    "acquire(wait_s)": lambda w, v: acquired(w, wait_s=v),
    "history(key)": lambda w, v: w.agent("a").history(v),
    "history(scope)": lambda w, v: w.agent("a").history("k", scope=v),
    "history(limit)": lambda w, v: w.agent("a").history("k", limit=v),
    "agent(name)": lambda w, v: w.agent(v).write("k", 1),
    "agent(conversation)": lambda w, v: w.agent("a", conversation=v).read("k"),
    "agent(generation)": lambda w, v: w.agent("a", generation=v).read("k"),
    "write_all(changes)": lambda w, v: w.write_all([v], agent="a"),
    "write_all(agent)": lambda w, v: w.write_all([Put("k", 1)], agent=v),
    "write_all(key)": lambda w, v: w.write_all([Put("x", 1), Put(v, 1)], agent="a"),
    "write_all(value)": lambda w, v: w.write_all([Put("x", 1), Put("k", v)], agent="a"),
    "write_all(scope)": lambda w, v: w.write_all([Put("x", 1), Put("k", 1, scope=v)], agent="a"),
    "write_all(ttl_s)": lambda w, v: w.write_all([Put("x", 1), Put("k", 1, ttl_s=v)], agent="a"),
    "write_all(expected)": lambda w, v: w.write_all([Put("x", 1), Delete("k", expected=v)], agent="a"),
    "write_all(reason)": lambda w, v: w.write_all([Put("x", 1), Delete("k", reason=v)], agent="a"),
    "read_all(addresses)": lambda w, v: w.read_all([v]),
    "read_all(scope)": lambda w, v: w.read_all([(v, "k")]),
    "read_all(key)": lambda w, v: w.read_all([((), v)]),
    "read_all(freshness)": lambda w, v: w.read_all(["k"], freshness=v),
    "read_all(agent)": lambda w, v: w.read_all(["k", "gone"], agent=v),
    "artifacts(scope)": lambda w, v: w.artifacts(scope=v),
    "watch(scope)": lambda w, v: w.watch(scope=v).poll(),
    "watch(after)": lambda w, v: w.watch(after=v).poll(),
    "as_of(at)": lambda w, v: w.as_of(v),
    "as_of.read(key)": lambda w, v: w.as_of(1).read(v),
    "as_of.read(scope)": lambda w, v: w.as_of(1).read("k", scope=v),
    "as_of.artifacts(scope)": lambda w, v: w.as_of(1).artifacts(scope=v),
    "recover(agent)": lambda w, v: w.recover(v),
    "flush(timeout_s)": lambda w, v: w.flush(v),
}


@contextlib.contextmanager
def opened() -> Iterator[tuple[Workspace, MemoryLog]]:
    """A workspace in memory in which agent `a` has written `k`."""
    log = MemoryLog()
    with Workspace(log, "w") as workspace:
        workspace.agent("a").write("k", 1)
        yield workspace, log


def holds(log: MemoryLog, workspace: Workspace) -> None:
    """A fresh reader has the same state, and a snapshot of it is the same."""
    state, reader = Directory(), ShardReader(log, "w")
    for _ in fold_log(reader, state):
        pass
    assert state_hash(state) == workspace.state_hash()
    assert state_hash(read_snapshot(take_snapshot(state, reader.position("w"))).state) == state_hash(state)


def check(call: Call, value: Any) -> None:
    """Call it, and see what came of it."""
    with opened() as (workspace, log):
        before, raised = log.end("w"), None
        try:
            call(workspace, value)
        except (CcsError, TypeError) as error:
            raised = error
        if isinstance(raised, UsageError | TypeError):
            assert log.end("w") == before
        assert getattr(raised, "reason", None) not in ("internal_error", "decision_too_large")
        holds(log, workspace)


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None)
@given(value=ANYTHING)
def test_an_odd_argument_is_refused_before_anything_is_appended(name: str, value: Any) -> None:
    check(CALLS[name], value)


@pytest.mark.parametrize("option", sorted(ClientOptions.__annotations__))
@settings(max_examples=25, deadline=None)
@given(value=ANYTHING.filter(lambda value: not isinstance(value, str)))
def test_an_odd_option_is_refused_when_it_is_given(option: str, value: Any) -> None:
    options: dict[str, Any] = {option: value}
    with contextlib.suppress(UsageError, TypeError):
        ccs_stream.connect(**options).close()


@settings(max_examples=40, deadline=None)
@given(url=ANYTHING.filter(lambda url: url is not None), workspace=ANYTHING)
def test_an_odd_url_or_name_is_refused(url: Any, workspace: Any) -> None:
    with pytest.raises((UsageError, TypeError)):
        ccs_stream.connect(url, workspace="w")
    with contextlib.suppress(UsageError):
        ccs_stream.connect(workspace=workspace).close()


@pytest.mark.parametrize("name", list(WorkspaceSettings.__dataclass_fields__))
@settings(max_examples=40, deadline=None)
@given(value=ANYTHING)
def test_an_odd_setting_is_refused_when_it_is_given(name: str, value: Any) -> None:
    changed: dict[str, Any] = {name: value}
    with contextlib.suppress(UsageError):
        ccs_stream.connect(settings=WorkspaceSettings(**changed)).close()
