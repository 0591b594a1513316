"""Semantic search: embeddings as a projection of what exists, made when a search first needs them.

Guarantees: a value is embedded once per text and process, in one call for all that is missing; embeddings never go on
the log, and a value written by another process is found like one's own. Does not: persist; another process embeds for
itself.
"""

import importlib
import math
import threading
from collections.abc import Sequence
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
            self._texts[artifact] = (version, found)
        return found

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Texts without a vector yet, each once."""
        return [text for text in dict.fromkeys(texts) if text not in self._by_text]

    def learn(self, texts: Sequence[str], vectors: Sequence[Vector]) -> None:
        """Keep vectors. Raises `UsageError` when they are not what the configuration promised."""
        if len(texts) != len(vectors):
            raise UsageError(f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts")
        for vector in vectors:
            if len(vector) != self._dims:
                raise UsageError(f"the embedding function returned {len(vector)} dimensions, index says {self._dims}")
        with self._lock:
            self._by_text.update(zip(texts, vectors, strict=True))

    def forget_all_but(self, artifacts: set[ArtifactId]) -> None:
        """Drop what no longer exists, once it is most of what is kept."""
        with self._lock:
            if len(self._texts) <= 2 * len(artifacts) + 1_000:
                return
            self._texts = {each: kept for each, kept in self._texts.items() if each in artifacts}
            needed = {text for _, texts in self._texts.values() for text in texts}
            self._by_text = {text: vector for text, vector in self._by_text.items() if text in needed}

    def score(self, query: Vector, texts: Sequence[str]) -> float | None:
        """Best cosine similarity of the texts with the query; None without texts."""
        if not texts:
            return None
        return max(_cosine(query, self._by_text[text]) for text in texts)


def _cosine(left: Vector, right: Vector) -> float:
    if np is not None:
        a, b = np.asarray(left), np.asarray(right)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / norm if norm else 0.0
    norm = math.hypot(*left) * math.hypot(*right)
    return sum(x * y for x, y in zip(left, right, strict=True)) / norm if norm else 0.0
