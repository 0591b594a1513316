"""Finding artifacts: what exists under a scope, and the contents for a search.

Adapters search with it; a search takes no copies and appends nothing.

Guarantees: the artifacts that are found are of one sequence. Does not: filter or rank; adapters do.
"""

import dataclasses

from ccs_stream.client.cache.content_cache import CachedContent, ContentCache
from ccs_stream.client.cache.delivery import ReadCall
from ccs_stream.client.cache.delivery_recorder import DeliveryRecorder
from ccs_stream.client.values import JSON
from ccs_stream.coordinator.port import Coordinator
from ccs_stream.protocol.deliveries import DeliverySource
from ccs_stream.protocol.directory import ArtifactState
from ccs_stream.protocol.ids import ArtifactId, Scope, SequenceNumber


@dataclasses.dataclass(frozen=True, slots=True)
class FoundArtifacts:
    """Artifacts that existed at one sequence, in the order in which they came into being."""

    states: list[ArtifactState]
    sequence: SequenceNumber


class Finder:
    """Finds artifacts of one workspace in the folded state."""

    def __init__(self, coordinator: Coordinator, contents: ContentCache, recorder: DeliveryRecorder) -> None:
        self._coordinator = coordinator
        self._state = coordinator.state
        self._contents = contents
        self._recorder = recorder

    def find(self, prefix: Scope, *, limit: int | None = None) -> FoundArtifacts:
        """The artifacts under a scope prefix whose values are JSON, at most `limit`."""
        width = len(prefix)
        found: list[ArtifactState] = []
        with self._coordinator.lock:
            now, at = self._coordinator.now(), self._state.last_complete_sequence
            for scope, keys in self._state.existing.items():
                if scope[:width] != prefix:
                    continue
                for artifact in keys.values():
                    if limit is not None and len(found) >= limit:
                        return FoundArtifacts(found, at)
                    state = self._state.artifacts[artifact]
                    if state.content_type == JSON and state.readable(now):
                        found.append(state.copy())
        return FoundArtifacts(found, at)

    def writers_by_scope(self) -> dict[Scope, set[str]]:
        """The scopes with something in them, and the agents that wrote it last."""
        found: dict[Scope, set[str]] = {}
        with self._coordinator.lock:
            now = self._coordinator.now()
            for scope, keys in self._state.existing.items():
                writers = {
                    state.writer_agent for each in keys.values() if (state := self._state.artifacts[each]).readable(now)
                }
                if writers:
                    found[scope] = writers
        return found

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

    def existing_ids(self) -> set[ArtifactId]:
        """Ids of all artifacts that the state knows, deleted ones included."""
        return set(self._state.artifacts)
