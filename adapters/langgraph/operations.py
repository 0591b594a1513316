"""LangGraph's operations as steps: what a batch reads, and what it then writes.

Guarantees: the reads of a batch come before its writes and see one position. Its writes are encoded before anything is
read. Does not: call an embedding model itself; that is a step, so that it may be awaited.
"""

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchItem, SearchOp, validate_op_namespace

from ccs_stream.adapters.langgraph.filters import check_filter, listed, test_of
from ccs_stream.adapters.langgraph.identity import Addressing, CallContext
from ccs_stream.adapters.langgraph.items import CoherentSearchItem, item
from ccs_stream.adapters.langgraph.namespaces import Namespace, check_namespace, item_key
from ccs_stream.adapters.langgraph.vectors import VectorIndex, best_score
from ccs_stream.adapters.langgraph.writes import ItemWriter
from ccs_stream.client.adapter_port import (
    AdapterPort,
    ArtifactState,
    CachedContent,
    FoundArtifacts,
    ReadCall,
    ReadContent,
    RunBlocking,
    Steps,
    SyncOrAsync,
)
from ccs_stream.client.results import instant
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import SequenceNumber
from ccs_stream.protocol.limits import INT64_MAX, QUERY_BYTES_MAX, as_scope, check_scope, check_text, check_whole_number

_STATES_AT_ONCE: Final = 2_000
"""Bodies that a search reads at once: many in one look at the log, and few beyond the page."""


class SearchHit:
    """One artifact that a search has found: its state at the search's position, and its value."""

    __slots__ = ("content", "namespace", "score", "state", "texts", "value")

    def __init__(self, state: ArtifactState, content: CachedContent, namespace: Namespace, value: Any) -> None:
        self.state = state
        self.content = content
        self.namespace = namespace
        self.value = value
        self.texts: list[str] = []
        """The texts of the value that are embedded."""
        self.score: float | None = None


class FilteredValues:
    """The values of a search that pass its filter, each read from its content once."""

    def __init__(self, condition: Mapping[str, Any] | None) -> None:
        self._test = test_of(condition)
        self._passed: dict[CachedContent, Any] = {}

    def passes(self, content: CachedContent) -> bool:
        """True if the value passes; it is then kept until it is taken."""
        if content in self._passed:
            return True
        value = orjson.loads(content.json_body)
        if not self._test(value):
            return False
        self._passed[content] = value
        return True

    def take(self, content: CachedContent) -> Any:
        """The value of a content that passes; nobody else gets this object."""
        return self._passed.pop(content)


class Operations:
    """The operations of one store."""

    def __init__(
        self, port: AdapterPort, addressing: Addressing, writer: ItemWriter, vectors: VectorIndex | None
    ) -> None:
        self._port = port
        self._addressing = addressing
        self._writer = writer
        self._vectors = vectors

    def batch(self, operations: Iterable[Op], call: CallContext) -> Steps[list[Result]]:
        """The results of a batch, in the order of its operations."""
        ops = list(operations)
        for op in ops:
            _check(op)
        batches = self._writer.batches_of(ops, call)
        tick = self._port.begin_call()
        results: list[Result] = [None] * len(ops)
        if any(not isinstance(op, PutOp) for op in ops):
            yield from self._port.catch_up_steps()
        for index, op in enumerate(ops):
            if isinstance(op, GetOp):
                results[index] = yield from self._get(op, call, tick)
            elif isinstance(op, SearchOp):
                found: list[SearchItem] = list((yield from self._search(op, call, tick)))
                results[index] = found
            elif isinstance(op, ListNamespacesOp):
                results[index] = yield RunBlocking(functools.partial(self._list_namespaces, op), long=True)
            elif not isinstance(op, PutOp):
                raise UsageError(f"unknown operation {type(op).__name__}: a batch takes the operations of LangGraph")
        for batch in batches:
            yield from self._writer.commit(batch, tick, atomic=False)  # LangGraph's batches promise no more
        return results

    # Reading.

    def _get(self, op: GetOp, call: CallContext, tick: int) -> Steps[Any]:
        agent, scope = self._addressing.split(op.namespace)
        self._addressing.warn_if_wrong(op.namespace)
        key = str(op.key)  # checked with its operation
        artifact = self._addressing.address(scope, key)
        read = ReadCall(agent, call.read_set(agent), op.namespace, tick=tick)
        found = yield from self._port.read_steps(read, artifact, refresh_ttl=op.refresh_ttl)
        return None if found is None else item_of(found, key, op.namespace)

    def get_all(self, addresses: Sequence[tuple[Namespace, str]], call: CallContext) -> Steps[list[Any]]:
        """Items at one position, None where there is nothing."""
        split = [
            (check_namespace(namespace), item_key(key), *self._addressing.split(namespace))
            for namespace, key in addresses
        ]
        yield from self._port.catch_up_steps()
        tick = self._port.begin_call()
        reads = [
            (ReadCall(agent, call.read_set(agent), namespace, tick=tick), self._port.address(scope, key))
            for namespace, key, agent, scope in split
        ]
        found = yield from self._port.read_all_steps(reads)
        return [
            None if each is None else item_of(each, key, namespace)
            for (namespace, key, _, _), each in zip(split, found, strict=True)
        ]

    # Searching.

    def _search(self, op: SearchOp, call: CallContext, tick: int) -> Steps[list[CoherentSearchItem]]:
        """The results of a search: best first with a query, else in the order in which they came into being."""
        prefix = tuple(op.namespace_prefix)
        ranked = op.query is not None and op.query != "" and self._vectors is not None
        agent, scope_prefix = self._addressing.prefix(prefix)
        if prefix:
            self._addressing.warn_if_wrong(prefix)
        # Without a query nothing beyond the page is looked at; a negative bound counts from the end.
        in_order = not ranked and op.offset >= 0 and op.limit >= 0
        found: tuple[list[SearchHit], SequenceNumber] = yield RunBlocking(
            functools.partial(self._look_for, op, agent, prefix, scope_prefix, in_order=in_order), long=True
        )
        hits, sequence = found
        if ranked and op.query is not None and self._vectors is not None:
            hits = yield from self._rank(self._vectors, op.query, hits)
        if not in_order:
            hits = hits[op.offset : op.offset + op.limit]
        reader = agent or call.agent
        read_set = call.read_set(reader)
        results: list[CoherentSearchItem] = []
        for hit in hits:
            read = ReadCall(reader, read_set, hit.namespace, tick=tick)
            self._port.finder.finish(read, hit.state, hit.content, sequence)
            if op.refresh_ttl and hit.state.ttl_us is not None:
                yield from self._port.refresh_steps(reader, hit.state.artifact)
            results.append(_search_item(hit))
        return results

    def _look_for(
        self, op: SearchOp, agent: str | None, prefix: Namespace, scope_prefix: Namespace, *, in_order: bool
    ) -> tuple[list[SearchHit], SequenceNumber]:
        """Everything that matches, in the order in which it came into being, and the sequence at which that is so.

        A value whose body is no longer in the log (redacted) is passed over. With `in_order`, only the search's page.
        """
        finder = self._port.finder
        end = op.offset + op.limit
        values = FilteredValues(op.filter)
        wanted = values.passes if op.filter else None
        enough = end if in_order else None
        artifacts = finder.find(scope_prefix, limit=enough, wanted=wanted)
        hits = self._hits(values, agent, prefix, scope_prefix, artifacts, enough)
        if enough is not None and len(hits) < enough and not artifacts.complete:
            # The page is not full, because bodies are missing: what comes behind it moves up.
            artifacts = finder.find(scope_prefix, wanted=wanted)
            hits = self._hits(values, agent, prefix, scope_prefix, artifacts, enough)
        return hits[op.offset : end] if in_order else hits, artifacts.sequence

    def _hits(
        self,
        values: FilteredValues,
        agent: str | None,
        prefix: Namespace,
        scope_prefix: Namespace,
        artifacts: FoundArtifacts,
        enough: int | None,
    ) -> list[SearchHit]:
        """The hits among artifacts, in their order; at least the first `enough`, where that is given."""
        hits: list[SearchHit] = []
        for first in range(0, len(artifacts.states), _STATES_AT_ONCE):
            states = artifacts.states[first : first + _STATES_AT_ONCE]
            hits.extend(self._hits_among(values, agent, prefix, scope_prefix, states))
            if enough is not None and len(hits) >= enough:
                break
        return hits

    def _hits_among(
        self,
        values: FilteredValues,
        agent: str | None,
        prefix: Namespace,
        scope_prefix: Namespace,
        states: Sequence[ArtifactState],
    ) -> list[SearchHit]:
        found: list[tuple[int, SearchHit]] = []
        for place, content in self._port.finder.contents(states):
            if values.passes(content):
                state, value = states[place], values.take(content)
                namespace = self._addressing.join(agent or state.writer_agent, prefix, scope_prefix, state.scope)
                found.append((place, SearchHit(state, content, namespace, value)))
        found.sort(key=operator.itemgetter(0))
        return [hit for _, hit in found]

    def _rank(self, vectors: VectorIndex, query: str, hits: list[SearchHit]) -> Steps[list[SearchHit]]:
        for hit in hits:
            state = hit.state
            hit.texts = vectors.texts(state.artifact, state.version, hit.value, state.index_fields)
        wanted = dict.fromkeys(text for hit in hits for text in hit.texts)
        by_text = vectors.known(wanted)
        missing = [text for text in wanted if text not in by_text]
        embeddings = vectors.embeddings
        if missing:
            embedded = yield SyncOrAsync(
                functools.partial(embeddings.embed_documents, missing),
                functools.partial(embeddings.aembed_documents, missing),
            )
            by_text.update(vectors.learn(missing, embedded))
        query_vector = yield SyncOrAsync(
            functools.partial(embeddings.embed_query, query), functools.partial(embeddings.aembed_query, query)
        )
        for hit in hits:
            hit.score = best_score(query_vector, [by_text[text] for text in hit.texts])
        vectors.forget(self._port.finder.gone(vectors.artifacts))
        # What has no text to embed comes last, in its own order.
        return sorted(hits, key=lambda hit: (hit.score is None, -(hit.score or 0.0)))

    def _list_namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        """Namespaces with something in them, sorted."""
        finder, namespaces = self._port.finder, set[Namespace]()
        if self._addressing.names_agents:
            conditions = op.match_conditions or ()
            named = {path[0] for each in conditions if each.match_type == "prefix" and (path := each.path)}
            for scope, writers in finder.writers_by_scope().items():
                namespaces.update((writer, *scope) for writer in writers)
                # Asked for one agent's view, every scope is in it: any agent may read any scope.
                namespaces.update((agent, *scope) for agent in named if agent != "*")
        else:
            namespaces.update(finder.scopes())
        return listed(namespaces, op.match_conditions, op.max_depth)[op.offset : op.offset + op.limit]


def _check(op: Op) -> None:
    """See that an operation can be done, before any of its batch is. Raises `UsageError`, `InvalidNamespaceError`."""
    match op:
        case GetOp() | PutOp():
            check_namespace(op.namespace)
            item_key(op.key)
        case SearchOp():
            check_namespace(op.namespace_prefix)
            check_filter(op.filter)
            _check_page(op.limit, op.offset)
            if op.query is not None:
                check_text(op.query, "query", QUERY_BYTES_MAX)
        case ListNamespacesOp():
            for condition in op.match_conditions or ():
                check_scope(as_scope(condition.path, "the path of a condition"), "the path of a condition")
            validate_op_namespace(op)
            _check_page(op.limit, op.offset)
            if op.max_depth is not None:
                check_whole_number(op.max_depth, "max_depth", least=-INT64_MAX)
        case _:
            raise UsageError(f"unknown operation {type(op).__name__}: a batch takes the operations of LangGraph")


def _check_page(limit: object, offset: object) -> None:
    """Negative bounds count from the end, as slices have it."""
    check_whole_number(limit, "limit", least=-INT64_MAX)
    check_whole_number(offset, "offset", least=-INT64_MAX)


def item_of(found: ReadContent, key: str, namespace: Namespace) -> Any:
    """The item for a value that was read."""
    made = item(orjson.loads(found.json_body), key, namespace, found.created_at, found.updated_at, found.version)
    if found.stale:
        made.stale = True
    return made


def _search_item(hit: SearchHit) -> CoherentSearchItem:
    state = hit.state
    made = CoherentSearchItem(
        namespace=hit.namespace,
        key=state.key,
        value=hit.value,
        created_at=instant(state.created_at),
        updated_at=instant(state.updated_at),
        score=hit.score,
    )
    made.version = state.version
    return made
