"""From a LangGraph namespace and the running graph to an agent, a scope, and the read set of the flow.

Guarantees: identity `"node"` takes namespaces as LangGraph means them, and the running graph node as the agent (outside
a graph, the process). Identity `"namespace"` takes the first part as the agent and the rest as the scope. Does not:
authenticate; a name is a claim.

The running node is named as `create_agent` was told, where it was; else by the names of the nodes around the running
task, outermost first, joined with "/".
"""

import itertools
import os
import re
from collections.abc import Callable
from typing import Any, Final, Literal

from langchain_core.runnables.config import var_child_runnable_config

from ccs_stream.adapters.langgraph.namespaces import Namespace, check_namespace
from ccs_stream.client.adapter_port import ModelContext, ReadSet, ReadSets
from ccs_stream.client.caller_warning import warn_caller
from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Scope
from ccs_stream.protocol.limits import (
    CONVERSATION_BYTES_MAX,
    INT64_MAX,
    NAME_BYTES_MAX,
    check_text,
    shown,
    storable,
)

Identity = Literal["node", "namespace"] | Callable[[Namespace], tuple[str, Scope]]

KNOWN_MAX: Final = 200_000
"""Addresses and namespaces that are remembered: checking one costs microseconds."""
_NODES_MAX: Final = 10_000
"""Checkpoint namespaces whose node path is remembered; every task has a new one."""
GENERATION: Final = "ccs_generation"
"""Key of a run's `configurable` that says which generation of its conversation a model's context is."""
_CREATE_AGENT: Final = "langchain_create_agent"
_NOT_AN_AGENT: Final = re.compile(
    r"^[0-9a-f]{8}-[0-9a-f]{4}-|@|^\d+$|^(user|users|memories|memory|docs|documents)([-_:]|$)", re.IGNORECASE
)
"""First parts that name a person or a collection in LangGraph's own examples, rather than an agent."""


class GraphContext:
    """The graph task that runs now, as far as LangGraph tells; there may be none."""

    __slots__ = ("_nodes", "process", "read_sets")

    def __init__(self, read_sets: ReadSets) -> None:
        self.read_sets = read_sets
        self._nodes: dict[str, str] = {}
        self.process = f"process-{os.getpid()}"
        """The agent outside a graph."""

    def agent(self) -> str:
        """The name of the running node, or of the process."""
        config = var_child_runnable_config.get()
        if config is None:
            return self.process
        metadata: dict[str, Any] = config.get("metadata") or {}
        named = metadata.get("lc_agent_name")
        if named:
            return _agent_name(str(named))
        path = metadata.get("langgraph_checkpoint_ns")
        return self._node_path(path) if path else self.process

    def names(self) -> set[str]:
        """Every name that the running task answers to; empty outside a graph."""
        config = var_child_runnable_config.get()
        metadata: dict[str, Any] = (config.get("metadata") or {}) if config is not None else {}
        path = metadata.get("langgraph_checkpoint_ns")
        if not path:
            return set()
        known = {self.agent(), *self._node_path(path).split("/")}
        return known | {str(metadata[name]) for name in ("lc_agent_name", "langgraph_node") if name in metadata}

    def call(self) -> "CallContext":
        """The flow and the agent that call now."""
        config = var_child_runnable_config.get()
        if config is not None:
            configurable: dict[str, Any] = config.get("configurable") or {}
            task = configurable.get("__pregel_task_id")
            if task is not None:
                metadata: dict[str, Any] = config.get("metadata") or {}
                thread = configurable.get("thread_id")
                context = _model_context(thread, configurable.get(GENERATION))
                if metadata.get("ls_integration") == _CREATE_AGENT:
                    around = str(metadata.get("langgraph_checkpoint_ns") or "").rpartition("|")[0]
                    if around or thread is not None:
                        return CallContext(self.read_sets, self.agent(), (thread, around), context)
                return CallContext(self.read_sets, self.agent(), (thread, task), context)
        return CallContext(self.read_sets, self.process, None, None)

    def _node_path(self, checkpoint_ns: str) -> str:
        path = self._nodes.get(checkpoint_ns)
        if path is None:
            path = _agent_name("/".join(part.partition(":")[0] for part in checkpoint_ns.split("|")))
            if len(self._nodes) >= _NODES_MAX:
                self._nodes.clear()
            self._nodes[checkpoint_ns] = path
        return path


class CallContext:
    """The flow that called a method, taken when it is called: in a graph a task of a thread, else a task or a thread.

    The tool calls of one `create_agent` are one flow: they are steps of one author, who sees all their results.
    """

    __slots__ = ("_context", "_flow", "_name", "_read_sets", "agent")

    def __init__(
        self,
        read_sets: ReadSets,
        agent: str,
        name: tuple[object, object] | None,
        context: ModelContext | None,
    ) -> None:
        """`name` names the flow in a graph; None for the asyncio task or thread that runs now."""
        self.agent = agent
        """The running node, or the process."""
        self._read_sets = read_sets
        self._name = name
        self._flow = read_sets.flow() if name is None else None
        self._context = context

    def read_set(self, agent: str) -> ReadSet:
        """The read set of `agent` in this flow."""
        if self._flow is not None:
            read_set = self._flow.get(agent)
            if read_set is None:
                read_set = self._flow[agent] = ReadSet()
            return read_set
        read_set = self._read_sets.named((self._name, agent))
        read_set.context = self._context
        return read_set


def _agent_name(name: str) -> str:
    """The name of a node as the log can hold it: a run is not refused for its names."""
    return name if name.isascii() and len(name) <= NAME_BYTES_MAX else storable(name, NAME_BYTES_MAX)


def _model_context(thread: object, generation: object) -> ModelContext | None:
    """The conversation (LangGraph's thread) and its generation, as deliveries name them."""
    known = type(generation) is int and 0 <= generation <= INT64_MAX
    if thread is None and not known:
        return None
    # A run is not refused for its names: what cannot be recorded is replaced, and what is too long is cut.
    conversation = None if thread is None else storable(str(thread), CONVERSATION_BYTES_MAX)
    return (conversation, generation if known else None)  # type: ignore[return-value]


class Addressing:
    """How one store reads namespaces."""

    def __init__(self, identity: Identity, context: GraphContext, address: Callable[[Scope, str], ArtifactId]) -> None:
        if identity not in ("node", "namespace") and not callable(identity):
            raise UsageError(f"identity is 'node', 'namespace' or a callable of the namespace, got {shown(identity)}")
        self._by_node = identity == "node"
        self._identity = identity
        self._context = context
        self._read_sets = context.read_sets
        self._warned = False
        self._address = address
        self._checked: set[Namespace] = set()
        """Namespaces that keep the rules."""
        self.known: dict[tuple[Scope, str], ArtifactId] = {}
        """The ids of addresses that were used under a namespace that keeps the rules."""

    def address(self, scope: Scope, key: str) -> ArtifactId:
        """The id of an address whose namespace was split here; from now on it is among those known."""
        artifact = self._address(scope, key)
        if len(self.known) >= KNOWN_MAX:
            for old in list(itertools.islice(self.known, KNOWN_MAX // 10)):
                self.known.pop(old, None)
        self.known[scope, key] = artifact
        return artifact

    def _check(self, namespace: Namespace) -> None:
        check_namespace(namespace)
        if len(self._checked) >= KNOWN_MAX:
            self._checked.clear()
        self._checked.add(namespace)

    def resolve(self, namespace: Namespace) -> tuple[str, Scope, ReadSet]:
        """Agent, scope and read set of a call that addresses an artifact. Raises `UsageError`."""
        if self._by_node:
            if var_child_runnable_config.get() is None:  # outside a graph, without making a CallContext
                agent = self._context.process
                return agent, namespace, self._read_sets.current(agent)
            call = self._context.call()
            return call.agent, namespace, call.read_set(call.agent)
        agent, scope = self.split(namespace)
        self.warn_if_wrong(namespace)
        return agent, scope, self._context.call().read_set(agent)

    def split(self, namespace: Namespace) -> tuple[str, Scope]:
        """Agent and scope of a namespace that addresses an artifact. Raises `UsageError`."""
        if type(namespace) is not tuple or namespace not in self._checked:
            self._check(namespace)
        if self._identity == "node":
            return self._context.agent(), namespace
        if self._identity == "namespace":
            if len(namespace) < 2:
                raise UsageError(
                    f"with identity='namespace' a namespace needs at least 2 parts, the agent and the scope, got "
                    f"{namespace!r}; CoherentStore takes any namespace"
                )
            return namespace[0], namespace[1:]
        agent, scope = self._identity(namespace)
        if type(agent) is not str or not agent or type(scope) is not tuple:
            raise UsageError(f"identity must return (agent, scope tuple), got {(agent, scope)!r} for {namespace!r}")
        check_text(agent, "the agent that identity returned")
        return agent, scope

    def prefix(self, prefix: Namespace) -> tuple[str, Scope]:
        """Agent and scope prefix of a namespace prefix, which may be shorter than an address."""
        check_namespace(prefix)
        if self._identity == "namespace":
            return (prefix[0], prefix[1:]) if prefix else ("", ())
        return self.split(prefix)

    def join(self, agent: str, prefix: Namespace, scope_prefix: Scope, scope: Scope) -> Namespace:
        """The namespace under which a search of `prefix` finds `scope`."""
        if self._identity == "node":
            return scope
        if self._identity == "namespace":
            return (agent, *scope)
        return (*prefix, *scope[len(scope_prefix) :])

    @property
    def names_agents(self) -> bool:
        """True if the first part of a namespace is an agent."""
        return self._identity == "namespace"

    def looks_wrong(self, namespace: Namespace) -> str | None:
        """Why the first part is hardly an agent, with identity='namespace'; else None."""
        if self._identity != "namespace":
            return None
        first, names = namespace[0], self._context.names()
        if _NOT_AN_AGENT.search(first):
            return f"{first!r} looks like a user or a collection"
        if names and first not in names:
            return f"{first!r} is no node of the running graph (running: {', '.join(sorted(names))})"
        return None

    def warn_if_wrong(self, namespace: Namespace) -> None:
        """Warn, once, of a first part that is hardly an agent where it is taken for one."""
        if self._warned or not self.names_agents or not namespace:
            return
        wrong = self.looks_wrong(namespace)
        if wrong is not None:
            self._warned = True
            warn_caller(
                f"the first part of a namespace is taken for an agent here, and {wrong}. All such namespaces that "
                f"agree in the rest, {namespace[1:]!r}, share one artifact, which mixes up different users' memories; "
                "use CoherentStore, or identity='node', if that is not meant. (Said once.)",
                UserWarning,
            )
