"""Semantic search: embeddings as a projection of what exists, made when a search first needs them.

Guarantees: a value is embedded once per text and process, in one call for all that is missing; embeddings never go on
the log, and a value written by another process is found like one's own. Vectors of what was replaced or deleted are
forgotten by the next search. Does not: persist; another process embeds for itself.
"""

import importlib
import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

from langgraph.store.base import IndexConfig, ensure_embeddings, get_text_at_path, tokenize_path

from ccs_stream.protocol.errors import UsageError
from ccs_stream.protocol.ids import ArtifactId, Version

try:
    np: Any = importlib.import_module("numpy")
except ImportError:  # it makes large searches faster and is nobody's requirement
    np = None

_KNOWN: Final = frozenset({"dims", "embed", "fields"})

Vector = Sequence[float]


class VectorIndex:
    """Vectors of the artifacts that have been searched."""

    def __init__(self, config: IndexConfig) -> None:
        unknown = set(config) - _KNOWN
        if unknown or "embed" not in config or "dims" not in config:
            raise UsageError(f"index takes 'dims', 'embed' and 'fields', got {sorted(config)}")
        self.embeddings = ensure_embeddings(config["embed"])
        self._dims = config["dims"]
        self._fields = tuple(config.get("fields") or ["$"])
        self._by_text: dict[str, Vector] = {}
        self._texts: dict[ArtifactId, tuple[Version, list[str]]] = {}
        self._users: dict[str, int] = {}
        """By text, how many artifacts have it. Its vector goes with the last one."""
        self._lock = threading.Lock()

    def texts(self, artifact: ArtifactId, version: Version, value: Any, fields: tuple[str, ...] | None) -> list[str]:
        """The texts to embed of a value: at the paths of the write, else of the configuration; none for ()."""
        known = self._texts.get(artifact)
        if known is not None and known[0] == version:
            return known[1]
        found: list[str] = []
        for path in self._fields if fields is None else fields:
            found.extend(get_text_at_path(value, path if path == "$" else tokenize_path(path)))
        with self._lock:
            known = self._texts.get(artifact)
            if known is None or known[0] < version:  # another search may have met a newer version
                self._forget(artifact)
                self._texts[artifact] = (version, found)
                for text in found:
                    self._users[text] = self._users.get(text, 0) + 1
        return found

    def known(self, texts: Iterable[str]) -> dict[str, Vector]:
        """The vectors that are here, by text. The caller's own: what other searches forget stays in it."""
        with self._lock:
            return {text: self._by_text[text] for text in texts if text in self._by_text}

    def learn(self, texts: Sequence[str], vectors: Sequence[Vector]) -> dict[str, Vector]:
        """Keep vectors; returns them by text. Raises `UsageError` when they are not what the configuration promised."""
        if len(texts) != len(vectors):
            raise UsageError(f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts")
        for vector in vectors:
            if len(vector) != self._dims:
                raise UsageError(f"the embedding function returned {len(vector)} dimensions, index says {self._dims}")
        learnt = dict(zip(texts, vectors, strict=True))
        with self._lock:
            self._by_text.update((text, vector) for text, vector in learnt.items() if text in self._users)
        return learnt

    @property
    def artifacts(self) -> list[ArtifactId]:
        """The artifacts whose vectors are here."""
        with self._lock:
            return list(self._texts)

    def forget(self, artifacts: Iterable[ArtifactId]) -> None:
        """Drop what is only of these artifacts, which no longer exist."""
        with self._lock:
            for artifact in artifacts:
                self._forget(artifact)

    def _forget(self, artifact: ArtifactId) -> None:
        """The caller has the lock."""
        for text in self._texts.pop(artifact, (Version(0), []))[1]:
            left = self._users.get(text, 0) - 1
            if left > 0:
                self._users[text] = left
            else:
                self._users.pop(text, None)
                self._by_text.pop(text, None)


def best_score(query: Vector, vectors: Iterable[Vector]) -> float | None:
    """Best cosine similarity of the vectors with the query; None without vectors."""
    return max((_cosine(query, vector) for vector in vectors), default=None)


def _cosine(left: Vector, right: Vector) -> float:
    if np is not None:
        a, b = np.asarray(left), np.asarray(right)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / norm if norm else 0.0
    norm = math.hypot(*left) * math.hypot(*right)
    return sum(x * y for x, y in zip(left, right, strict=True)) / norm if norm else 0.0
