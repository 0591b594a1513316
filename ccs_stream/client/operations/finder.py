"""Finding artifacts: what exists under a scope, and the contents for a search.

Adapters search with it; a search takes no copies and appends nothing.

Guarantees: the artifacts that are found are of one sequence; the lock that commits need is taken only where commits
come too fast for a look without it, and never while bodies are read. Does not: filter or rank; adapters do.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ccs_stream.client.cache.content_cache import CachedContent, ContentCache
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.values import JSON
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.deliveries import DeliverySource
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import ArtifactId, Scope, SequenceNumber, Version

_ATTEMPTS: Final = 3
"""How often copies are taken beside writers, before the lock is held for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class FoundArtifacts:
    """Artifacts that existed at one sequence, in the order in which they came into being."""

    states: list[ArtifactState]
    sequence: SequenceNumber
    complete: bool = True
    """False if there may be more than the limit allowed."""


class Finder:
    """Finds artifacts of one workspace in the folded state."""

    def __init__(self, coordinator: Coordinator, contents: ContentCache, recorder: DeliveryRecorder) -> None:
        self._coordinator = coordinator
        self._state = coordinator.state
        self._contents = contents
        self._recorder = recorder

    def find(
        self,
        prefix: Scope,
        *,
        limit: int | None = None,
        wanted: Callable[[CachedContent], bool] | None = None,
    ) -> FoundArtifacts:
        """The artifacts under a scope prefix whose values are JSON, at most `limit`.

        With `wanted`, artifacts whose contents are at hand and not wanted may be left out: a copy of a state takes
        longer than a look at a content. The limit then counts the wanted ones at hand. `wanted` may be asked several
        times about one content.

        In an event loop, do this in a step `RunBlocking`: it grows with what is found.
        """
        for _ in range(_ATTEMPTS):
            found = self._find_freely(prefix, limit, wanted)
            if found is not None:
                return found
        if wanted is not None:
            limit = None  # nobody has looked at the contents
        for _ in range(_ATTEMPTS):
            with self._coordinator.lock:  # for a look at what there is, and not for the copies
                seen, at = self._look(prefix, limit), self._state.last_complete_sequence
            copies = [(state.copy(), version) for state, version in seen]
            # A fold sets the version before what belongs to it: if it is the same, nothing of another one was copied.
            if all(state.version == version for state, version in copies):
                return FoundArtifacts([state for state, _ in copies], at, complete=len(copies) != limit)
        with self._coordinator.lock:
            states = [state.copy() for state, _ in self._look(prefix, limit)]
            return FoundArtifacts(states, self._state.last_complete_sequence, complete=len(states) != limit)

    def _find_freely(
        self, prefix: Scope, limit: int | None, wanted: Callable[[CachedContent], bool] | None
    ) -> FoundArtifacts | None:
        """As `find`, without the lock; None where the state has moved meanwhile."""
        state, kept = self._state, self._contents.get
        at = state.last_complete_sequence
        if state.sequence != at:
            return None
        found: list[ArtifactState] = []
        counted = 0
        for each, version in self._readable(prefix):
            if counted == limit:
                break
            if wanted is None:
                counted += 1
            else:
                content = kept(each.artifact)
                # Of a state that is moving, the version may be one of bytes and the type already that of the next one.
                if content is not None and content.version == version and content.content_type == JSON:
                    if not wanted(content):
                        continue
                    counted += 1
            found.append(each.copy())
        # A fold counts each event before it changes anything: with the same number, nothing has changed since.
        return FoundArtifacts(found, at, complete=counted != limit) if state.sequence == at else None

    def _look(self, prefix: Scope, limit: int | None) -> list[tuple[ArtifactState, Version]]:
        return list(itertools.islice(self._readable(prefix), limit))

    def _readable(self, prefix: Scope) -> Iterator[tuple[ArtifactState, Version]]:
        """The artifacts under a prefix that readers find, with their versions."""
        width, now, artifacts = len(prefix), self._coordinator.now(), self._state.artifacts
        for scope, keys in list(self._state.existing.items()):
            if scope[:width] == prefix:
                for artifact in list(keys.values()):
                    state = artifacts[artifact]
                    if state.content_type == JSON and state.readable(now):
                        yield state, state.version

    def writers_by_scope(self) -> dict[Scope, set[str]]:
        """The scopes with something in them, and the agents that wrote it last. As `find`, for `RunBlocking`."""
        found: dict[Scope, set[str]] = {}
        artifacts, now = self._state.artifacts, self._coordinator.now()
        for scope, keys in list(self._state.existing.items()):
            writers = {state.writer_agent for each in list(keys.values()) if (state := artifacts[each]).readable(now)}
            if writers:
                found[scope] = writers
        return found

    def scopes(self) -> list[Scope]:
        """The scopes with something in them. Looks at no more artifacts than it must."""
        artifacts, now = self._state.artifacts, self._coordinator.now()
        found: list[Scope] = []
        for scope, keys in list(self._state.existing.items()):
            try:
                first = next(iter(keys.values()), None)
            except RuntimeError:  # written meanwhile
                first = None
            if (first is not None and artifacts[first].readable(now)) or any(
                artifacts[each].readable(now) for each in list(keys.values())
            ):
                found.append(scope)
        return found

    def contents(self, states: Sequence[ArtifactState]) -> Iterator[tuple[int, CachedContent]]:
        """The contents of artifacts as they stand in `states`, each with its place there, in any order.

        Reads from the log in bulk, and leaves out what the log no longer has (a redacted body). For `RunBlocking`.
        """
        return self._contents.fetch_each(states)

    def content(self, state: ArtifactState) -> CachedContent:
        """The content of an artifact as it stands in `state`, from the cache or the log. Raises `ContentMissing`."""
        kept = self._contents.get(state.artifact)
        if kept is not None and kept.version == state.version:
            return kept
        return self._contents.fetch_and_keep(state)

    def finish(self, call: ReadCall, state: ArtifactState, content: CachedContent, sequence: SequenceNumber) -> None:
        """Hand a search result to the call's agent."""
        call.operation = "search.hit"
        source = DeliverySource.SEARCH
        self._recorder.finish_read(call.agent, call.read_set, state.artifact, content, sequence, call, source)

    def gone(self, artifacts: Iterable[ArtifactId]) -> list[ArtifactId]:
        """Those of these artifacts that no longer exist: deleted, or expired."""
        states, now = self._state.artifacts, self._coordinator.now()
        found = ((each, states.get(each)) for each in artifacts)
        return [each for each, state in found if state is None or not state.readable(now)]
