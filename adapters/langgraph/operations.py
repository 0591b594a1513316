"""LangGraph's operations as steps on a workspace: what a batch reads, and what it then writes.

Guarantees: the reads of a batch come before its writes, and see one position; its writes are encoded before anything is
read. Does not: call an embedding model itself; that is a step, so that it may be awaited.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp, validate_op_namespace

from ccs_stream.adapters.langgraph.filters import check_filter, listed, matches
from ccs_stream.adapters.langgraph.identity import Addressing, CallContext, GraphContext, Namespace
from ccs_stream.adapters.langgraph.items import CoherentSearchItem, item
from ccs_stream.adapters.langgraph.vectors import VectorIndex
from ccs_stream.adapters.langgraph.writes import Writes
from ccs_stream.client.cache.content_cache import CachedContent
from ccs_stream.client.cache.read_result import ReadResult
from ccs_stream.client.observers.metrics import NO_TIME, OperationMetrics
from ccs_stream.client.observers.telemetry import trace_on_log
from ccs_stream.client.operations.engine import Engine
from ccs_stream.client.operations.steps import Steps, SyncOrAsync
from ccs_stream.client.results import instant
from ccs_stream.client.values import JSON, decode
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import Scope, SequenceNumber


class SearchHit:
    """One artifact a search has found: its state at the search's position, and its value."""

    __slots__ = ("namespace", "score", "state", "texts", "value")

    def __init__(self, state: ArtifactState, namespace: Namespace, value: Any) -> None:
        self.state = state
        self.namespace = namespace
        self.value = value
        self.texts: list[str] = []
        self.score: float | None = None


class Operations:
    """The operations of one store."""

    def __init__(
        self,
        engine: Engine,
        addressing: Addressing,
        running: GraphContext,
        *,
        guarded: bool,
        vectors: VectorIndex | None,
        meter: OperationMetrics | None = None,
    ) -> None:
        self.engine = engine
        self.addressing = addressing
        self.running = running
        self.vectors = vectors
        self.meter = meter
        if meter is not None:
            meter.look_up = functools.partial(trace_on_log, engine.coordinator.store, engine.coordinator.workspace)
        self.writes = Writes(engine, addressing, self.caller, guarded=guarded, meter=meter)

    def batch(self, asked: Iterable[Op], caller: CallContext) -> Steps[list[Result]]:
        """The results of a batch, in the order of its operations."""
        ops = list(asked)
        for op in ops:
            validate_op_namespace(op)
        puts = self.writes.puts_of(ops, caller)
        tick = self.engine.copies.tick()
        results: list[Result] = [None] * len(ops)
        if len(puts) < len(ops):
            yield from self.engine.fresh(None, None)
        for index, op in enumerate(ops):
            if isinstance(op, GetOp):
                results[index] = yield from self.get(op, caller, tick)
            elif isinstance(op, SearchOp):
                found: list[SearchItem] = list((yield from self.search(op, caller, tick)))
                results[index] = found
            elif isinstance(op, ListNamespacesOp):
                results[index] = self.list_namespaces(op)
            elif not isinstance(op, PutOp):
                raise UsageError(f"unknown operation {type(op).__name__}: a batch takes the operations of LangGraph")
        for each in puts.values():
            yield from self.writes.commit(each, tick, atomic=False)  # LangGraph's batches promise no more
        return results

    # Reading.

    def caller(self) -> CallContext:
        """Whoever is calling now: to be asked when a method is called, not when its steps are taken."""
        return self.running.caller(self.engine.scopes)

    def get(self, op: GetOp, caller: CallContext, tick: int) -> Steps[Any]:
        """One item, or None."""
        agent, scope = self.addressing.split(op.namespace)
        self.addressing.warn_if_wrong(op.namespace)
        key = str(op.key)
        artifact = self.engine.address(scope, key)
        here = caller.scope(agent)
        began_at = NO_TIME if self.meter is None else self.meter.now()
        found = yield from self.engine.read(agent, artifact, here)
        if found is None:
            return None
        state = found.state
        if op.refresh_ttl and state.ttl_us is not None:
            yield from self.engine.refresh(agent, artifact)
        if self.meter is not None:
            address, at = (op.namespace, scope, key), found.position.sequence
            operation = "degraded" if found.degraded else "get"
            self.meter.read(
                operation, agent, address, artifact, found.body, at, hit=found.hit, tick=tick, began_at=began_at
            )
        return _item(found, key, op.namespace)

    def get_all(self, addresses: Sequence[tuple[Namespace, str]], caller: CallContext) -> Steps[list[Any]]:
        """Items at one position, None where there is nothing."""
        engine = self.engine
        asked = [(tuple(namespace), str(key), *self.addressing.split(tuple(namespace))) for namespace, key in addresses]
        yield from engine.fresh(None, None)
        tick = self.engine.copies.tick()
        readers = [(agent, engine.address(scope, key), caller.scope(agent)) for _, key, agent, scope in asked]
        items: list[Any] = []
        served = yield from engine.read_all(readers)
        for (namespace, key, agent, scope), each in zip(asked, served, strict=True):
            if each is None:
                items.append(None)
                continue
            if self.meter is not None:
                address, at = (namespace, scope, key), each.position.sequence
                operation = "degraded" if each.degraded else "get"
                self.meter.read(operation, agent, address, each.state.artifact, each.body, at, hit=each.hit, tick=tick)
            items.append(_item(each, key, namespace))
        return items

    def _body(self, state: ArtifactState) -> CachedContent:
        kept = self.engine.bodies.get(state.artifact)
        if kept is not None and kept.version == state.version:
            return kept
        return self.engine.bodies.keep(state, self.engine.bodies.fetch(state), state.version)

    def search(self, op: SearchOp, caller: CallContext, tick: int) -> Steps[list[CoherentSearchItem]]:
        """What a search finds, best first with a query, else in the order in which it came into being."""
        check_filter(op.filter)
        ranked = op.query is not None and op.query != "" and self.vectors is not None
        prefix = tuple(op.namespace_prefix)
        agent, scope_prefix = self.addressing.prefix(prefix)
        if prefix:
            self.addressing.warn_if_wrong(prefix)
        # Without filter and query nothing beyond the page is looked at; a negative bound counts from the end.
        page_only = not op.filter and not ranked and op.offset >= 0 and op.limit >= 0
        stop = op.offset + op.limit if page_only else None
        states, position = self._existing(scope_prefix, stop)
        if page_only:
            states = states[op.offset :]
        found: list[SearchHit] = []
        for state in states:
            value = decode(state.content_type, self._body(state).body)
            if matches(value, op.filter):
                seen_by = agent or state.writer_agent
                namespace = self.addressing.join(seen_by, prefix, scope_prefix, state.scope)
                found.append(SearchHit(state, namespace, value))
        if ranked and op.query is not None and self.vectors is not None:
            found = yield from self._rank(self.vectors, op.query, found)
        if not page_only:
            found = found[op.offset : op.offset + op.limit]
        reader = agent or caller.agent
        here = caller.scope(reader)
        results: list[CoherentSearchItem] = []
        for each in found:
            here.saw(each.state.artifact, each.state.version)
            address = (each.namespace, each.state.scope, each.state.key)
            body = self._body(each.state)
            artifact = each.state.artifact
            self.engine.serving.found(reader, artifact, body, position, here)
            if self.meter is not None:
                self.meter.read("search.hit", reader, address, artifact, body, position, hit=False, tick=tick)
            if op.refresh_ttl and each.state.ttl_us is not None:
                yield from self.engine.refresh(reader, each.state.artifact)
            results.append(_search_item(each))
        return results

    def _existing(self, prefix: Scope, stop: int | None) -> tuple[list[ArtifactState], SequenceNumber]:
        """Readable artifacts under a scope prefix, at most `stop` of them, and the one sequence they stand at."""
        engine, width = self.engine, len(prefix)
        found: list[ArtifactState] = []
        with engine.coordinator.lock:
            now, at = engine.coordinator.now(), engine.state.last_complete_sequence
            for scope, keys in engine.state.existing.items():
                if scope[:width] != prefix:
                    continue
                for artifact in keys.values():
                    if stop is not None and len(found) >= stop:
                        return found, at
                    state = engine.state.artifacts[artifact]
                    if state.content_type == JSON and state.readable(now):
                        found.append(state.copy())
        return found, at

    def _rank(self, vectors: VectorIndex, query: str, found: list[SearchHit]) -> Steps[list[SearchHit]]:
        for each in found:
            state = each.state
            each.texts = vectors.texts(state.artifact, state.version, each.value, state.index_fields)
        wanted = vectors.missing([text for each in found for text in each.texts])
        embeddings = vectors.embeddings
        if wanted:
            embedded = yield SyncOrAsync(
                functools.partial(embeddings.embed_documents, wanted),
                functools.partial(embeddings.aembed_documents, wanted),
            )
            vectors.learn(wanted, embedded)
        asked = yield SyncOrAsync(
            functools.partial(embeddings.embed_query, query), functools.partial(embeddings.aembed_query, query)
        )
        for each in found:
            each.score = vectors.score(asked, each.texts)
        vectors.forget_all_but(set(self.engine.state.artifacts))
        # What has no text to embed comes last, in its own order.
        return sorted(found, key=lambda each: (each.score is None, -(each.score or 0.0)))

    def list_namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        """Namespaces with something in them, sorted."""
        engine = self.engine
        with engine.coordinator.lock:
            now = engine.coordinator.now()
            namespaces: set[Namespace] = set()
            named = {
                path[0] for each in op.match_conditions or () if each.match_type == "prefix" and (path := each.path)
            }
            for scope, keys in engine.state.existing.items():
                readable = [state for each in keys.values() if (state := engine.state.artifacts[each]).readable(now)]
                for state in readable:
                    namespaces.add(self.addressing.listed(state.writer_agent, scope))
                if readable and self.addressing.names_agents:
                    # Asked for one agent's view, every scope is in it: any agent may read any scope.
                    namespaces.update((agent, *scope) for agent in named if agent != "*")
        return listed(namespaces, op.match_conditions, op.max_depth)[op.offset : op.offset + op.limit]


def _item(served: ReadResult, key: str, namespace: Namespace) -> Any:
    body = served.body
    value = decode(JSON, body.body)
    made = item(value, key, namespace, body.created_at, body.updated_at, body.version)
    made.stale = served.stale
    return made


def _search_item(found: SearchHit) -> CoherentSearchItem:
    state = found.state
    made = CoherentSearchItem(
        namespace=found.namespace,
        key=state.key,
        value=found.value,
        created_at=instant(state.created_at),
        updated_at=instant(state.updated_at),
        score=found.score,
    )
    made.version = state.version
    return made
