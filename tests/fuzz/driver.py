"""Runs of random calls, and what must hold of each call and of the log after it.

Of a call: it returns, or raises an error of ours, `TypeError` or `ValueError`; after a `UsageError`, `TypeError` or
`ValueError` nothing was appended. Of the log afterwards: whoever opens it anew folds the same state, and every command
of `ccs-replay` ends without a traceback.
"""

import collections
import dataclasses
import random
import reprlib
import shutil
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

import ccs_stream
from ccs_stream.adapters.langgraph import CCSStore, CoherentStore
from ccs_stream.client.options import ClientOptions
from ccs_stream.protocol.errors import CcsError, UsageError
from ccs_stream.replay.app import cli as replay
from tests.fuzz.odd_values import GOOD_VALUES, mostly, odd

ALLOWED: Final = (CcsError, TypeError, ValueError)
REPLAY_COMMANDS: Final = (
    ["info"],
    ["info", "--json"],
    ["timeline"],
    ["timeline", "--json"],
    ["state"],
    ["deliveries"],
    ["verify"],
    ["transitions"],
)
Call = tuple[str, Callable[[], Any]]
show: Final = reprlib.repr
"""A short text of any value, however deep."""


@dataclasses.dataclass
class Report:
    """What a run found."""

    calls: int = 0
    by_outcome: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.calls += other.calls
        self.by_outcome.update(other.by_outcome)
        self.faults.extend(other.faults)


class Run:
    """One run: a few calls on one log, from one seed."""

    def __init__(self, seed: int, folder: Path, *, calls: int) -> None:
        self.seed = seed
        self.report = Report()
        self._chance = random.Random(seed)
        self._folder = folder
        self._calls = calls
        self._url = f"sqlite:///{folder}/log.db"

    def go(self) -> Report:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._call_and_check()
        return self.report

    def _call_and_check(self) -> None:
        store = self._open()
        while self.report.calls < self._calls:
            if self._chance.random() < 0.02:
                store.close()
                store = self._open()
            name, call = self._next_call(store)
            self._try(name, call, store)
        store.close()
        self._check_log()

    def _open(self) -> CoherentStore:
        kind = self._chance.choice((CoherentStore, CCSStore))
        return kind(self._url, workspace="w", writes=self._chance.choice(("guarded", "last_writer_wins")))

    def _try(self, name: str, call: Callable[[], Any], store: CoherentStore) -> None:
        self.report.calls += 1
        before = store.workspace.position.offset
        try:
            call()
        except ALLOWED as error:
            outcome = type(error).__name__
            wrong_call = isinstance(error, UsageError) or not isinstance(error, CcsError)
            if "read it as an agent of the workspace does" in str(error):
                wrong_call = False  # what was read is no JSON: the log was right to count the read
            if wrong_call and store.workspace.position.offset != before:
                self._fault(f"{name} raised {outcome} and appended something", error)
            if "internal_error" in str(getattr(error, "reason", "")):
                self._fault(f"{name} ended in internal_error", error)
        except Exception as error:  # noqa: BLE001  # that is what is looked for
            outcome = type(error).__name__
            self._fault(f"{name} raised {outcome}", error)
        else:
            outcome = "returned"
        self.report.by_outcome[outcome] += 1

    def _fault(self, what: str, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        self.report.faults.append(f"seed {self.seed}, call {self.report.calls}: {what[:400]} at {place}: {show(error)}")

    def _check_log(self) -> None:
        with ccs_stream.connect(self._url, workspace="w") as again:
            if again.as_of(again.position).state_hash() != again.state_hash():
                self.report.faults.append(f"seed {self.seed}: opened anew, the state is not the fold of the log")
        for command in REPLAY_COMMANDS:
            result = CliRunner().invoke(replay, [self._url, *command])
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                self._fault(f"ccs-replay {' '.join(command)}", result.exception)

    # Calls.

    def _next_call(self, store: CoherentStore) -> Call:
        kinds = (
            self._put,
            self._get,
            self._delete,
            self._search,
            self._batch,
            self._compare_and_set,
            self._put_all,
            self._get_all,
            self._acquire,
            self._history_call,
            self._agent_write,
            self._agent_read,
            self._agent_delete,
            self._agent_cas,
            self._agent_acquire,
            self._write_all,
            self._read_all,
            self._watch,
            self._as_of,
            self._connect,
            self._list_namespaces,
        )
        return self._chance.choice(kinds)(store)

    def _namespace(self) -> Any:
        return mostly(self._chance, ("team", "docs"), ("team", "plans"), ("user", "x", "y"))

    def _key(self) -> Any:
        return mostly(self._chance, "plan", "notes", "k1", "k2")

    def _value(self) -> Any:
        return mostly(self._chance, *GOOD_VALUES)

    def _number(self) -> Any:
        return mostly(self._chance, None, 1, 2, 5)

    def _put(self, store: CoherentStore) -> Call:
        namespace, key, value = self._namespace(), self._key(), self._value()
        options: dict[str, Any] = {}
        if self._chance.random() < 0.3:
            options["ttl"] = self._number()
        if self._chance.random() < 0.2:
            options["index"] = mostly(self._chance, None, False, ["$"])
        return f"put({show(namespace)}, {show(key)}, {show(value)}, {show(options)})", lambda: store.put(
            namespace, key, value, **options
        )

    def _get(self, store: CoherentStore) -> Call:
        namespace, key = self._namespace(), self._key()
        return f"get({show(namespace)}, {show(key)})", lambda: store.get(namespace, key)

    def _delete(self, store: CoherentStore) -> Call:
        namespace, key = self._namespace(), self._key()
        return f"delete({show(namespace)}, {show(key)})", lambda: store.delete(namespace, key)

    def _search(self, store: CoherentStore) -> Call:
        prefix = self._namespace()
        filter_ = mostly(self._chance, None, {"step": 1}, {"step": {"$gt": odd(self._chance)}}, {"text": {"$lt": "y"}})
        limit, offset = mostly(self._chance, 10, 1), mostly(self._chance, 0, 1)
        return f"search({show(prefix)}, {show(filter_)}, {show(limit)}, {show(offset)})", lambda: store.search(
            prefix, filter=filter_, limit=limit, offset=offset
        )

    def _list_namespaces(self, store: CoherentStore) -> Call:
        prefix, depth = mostly(self._chance, None, ("team",), ("*",)), mostly(self._chance, None, 1)
        return f"list_namespaces({show(prefix)}, {show(depth)})", lambda: store.list_namespaces(
            prefix=prefix, max_depth=depth
        )

    def _batch(self, store: CoherentStore) -> Call:
        ops = [
            self._chance.choice(
                (
                    GetOp(self._namespace(), self._key()),
                    PutOp(self._namespace(), self._key(), self._value(), None, self._number()),
                    SearchOp(self._namespace()),
                    ListNamespacesOp(),
                    odd(self._chance),
                )
            )
            for _ in range(self._chance.randrange(1, 4))
        ]
        return f"batch({show(ops)})", lambda: store.batch(ops)

    def _compare_and_set(self, store: CoherentStore) -> Call:
        namespace, key, value, expected = self._namespace(), self._key(), self._value(), self._number()
        reason = mostly(self._chance, None, "because")
        return (
            f"compare_and_set({show(namespace)}, {show(key)}, …, {show(expected)}, {show(reason)})",
            lambda: store.compare_and_set(namespace, key, value, expected=expected, reason=reason),
        )

    def _put_all(self, store: CoherentStore) -> Call:
        items = mostly(self._chance, [(self._namespace(), self._key(), self._value()) for _ in range(2)])
        return f"put_all({show(items)})", lambda: store.put_all(items)

    def _get_all(self, store: CoherentStore) -> Call:
        addresses = mostly(self._chance, [(self._namespace(), self._key()) for _ in range(2)])
        return f"get_all({show(addresses)})", lambda: store.get_all(addresses)

    def _acquire(self, store: CoherentStore) -> Call:
        namespace, key = self._namespace(), self._key()
        limit, wait = mostly(self._chance, 30.0, 1.0), mostly(self._chance, 0.0)
        if isinstance(wait, float | int) and wait >= 1:
            wait = 0.0  # nobody waits for ever here

        def go() -> None:
            with store.acquire(namespace, key, limit_s=limit, wait_s=wait):
                pass

        return f"acquire({show(namespace)}, {show(key)}, {show(limit)}, {show(wait)})", go

    def _history_call(self, store: CoherentStore) -> Call:
        namespace, key, limit = self._namespace(), self._key(), self._number()
        return f"history({show(namespace)}, {show(key)}, {show(limit)})", lambda: store.history(
            namespace, key, limit=limit
        )

    def _agent(self, store: CoherentStore) -> Any:
        return store.workspace.agent(
            mostly(self._chance, "planner", "reviewer"),
            conversation=mostly(self._chance, None, "c1"),
            generation=mostly(self._chance, None, 1),
        )

    def _agent_write(self, store: CoherentStore) -> Call:
        key, value, scope, ttl = self._key(), self._value(), self._namespace(), self._number()
        reason = mostly(self._chance, None, "because")
        return f"write({show(key)}, …, {show(scope)}, {show(ttl)}, {show(reason)})", lambda: self._agent(store).write(
            key, value, scope=scope, ttl_s=ttl, reason=reason
        )

    def _agent_read(self, store: CoherentStore) -> Call:
        key, scope = self._key(), self._namespace()
        freshness, at_least = mostly(self._chance, None, "local", "latest"), mostly(self._chance, None)
        return f"read({show(key)}, {show(scope)}, {show(freshness)}, {show(at_least)})", lambda: self._agent(
            store
        ).read(key, scope=scope, freshness=freshness, at_least=at_least)

    def _agent_delete(self, store: CoherentStore) -> Call:
        key, scope, expected = self._key(), self._namespace(), self._number()
        return f"delete({show(key)}, {show(scope)}, {show(expected)})", lambda: self._agent(store).delete(
            key, scope=scope, expected=expected
        )

    def _agent_cas(self, store: CoherentStore) -> Call:
        key, value, scope, expected = self._key(), self._value(), self._namespace(), self._number()
        return f"compare_and_set({show(key)}, …, {show(scope)}, {show(expected)})", lambda: self._agent(
            store
        ).compare_and_set(key, value, scope=scope, expected=expected)

    def _agent_acquire(self, store: CoherentStore) -> Call:
        key, scope, limit = self._key(), self._namespace(), mostly(self._chance, 30.0)

        def go() -> None:
            agent = self._agent(store)
            with agent.acquire(key, scope=scope, limit_s=limit):
                agent.write(key, {"step": 1}, scope=scope)

        return f"acquire({show(key)}, {show(scope)}, {show(limit)})", go

    def _write_all(self, store: CoherentStore) -> Call:
        agent = mostly(self._chance, "planner")
        changes = [
            mostly(
                self._chance,
                ccs_stream.Put(self._key(), self._value(), scope=self._namespace(), ttl_s=self._number()),
                ccs_stream.Delete(self._key(), scope=self._namespace(), expected=self._number()),
            )
            for _ in range(2)
        ]
        return f"write_all({show(changes)}, {show(agent)})", lambda: store.workspace.write_all(changes, agent=agent)

    def _read_all(self, store: CoherentStore) -> Call:
        addresses = mostly(self._chance, ["plan", (("team", "docs"), "plan")], [(self._namespace(), self._key())])
        return f"read_all({show(addresses)})", lambda: store.workspace.read_all(addresses)

    def _watch(self, store: CoherentStore) -> Call:
        scope, after = self._namespace(), mostly(self._chance, None)
        return f"watch({show(scope)}, {show(after)})", lambda: store.workspace.watch(scope=scope, after=after).poll()

    def _as_of(self, store: CoherentStore) -> Call:
        at = mostly(self._chance, 1, 2, str(store.workspace.position))
        return f"as_of({show(at)})", lambda: store.workspace.as_of(at).artifacts()

    def _connect(self, store: CoherentStore) -> Call:
        del store
        name = self._chance.choice(sorted(ClientOptions.__annotations__))
        value = odd(self._chance)
        if name in ("state_log", "content_audit_log", "outbox") and isinstance(value, str | Path):
            value = self._folder / "stream"
        return f"connect({name}={show(value)})", lambda: ccs_stream.connect(**{name: value}).close()


def run_one(seed: int, folder: Path, *, calls: int) -> Report:
    """One run, in a folder of its own that is removed afterwards."""
    place = folder / str(seed)
    place.mkdir()
    try:
        return Run(seed, place, calls=calls).go()
    finally:
        shutil.rmtree(place, ignore_errors=True)
