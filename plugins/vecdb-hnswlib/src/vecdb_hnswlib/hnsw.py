"""`hnswlib.hnsw`: hnswlib's graph as an index type. Position p of the view is label p and node p: one thread inserts.

What is stored and how it is checked: `vecdb_hnswlib.stored`. Paper: Malkov & Yashunin, "Efficient and robust
approximate nearest neighbor search using hierarchical navigable small world graphs", 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import BlobReader, BlobWriter, Candidates, IndexCapabilities, Param, VectorView
from vecdb.errors import CancelledError, PluginLoadError
from vecdb.types import CancelCheck, Metric, Progress
from vecdb_hnswlib import stored

__all__ = ["HnswIndex", "HnswType", "library"]

SPACES: Mapping[Metric, str] = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
"""Metric -> what hnswlib calls it."""
STEP = 256
"""Rows between two questions whether to stop: about half a second at 768 dimensions."""

# Not `filtered`: hnswlib asks a Python function about every vector that it visits. Measured on 36,000 clustered vectors
# that is as slow as asking for more (0.4 ms at one half allowed, 13 ms at 1 %), and it holds the interpreter lock.
# The recall is that of vectors whose lengths differ tenfold, compared by l2 (0.83 on the kit's set "hubs"); all the
# other sets and metrics of the kit reach 0.99.
CAPABILITIES = IndexCapabilities(
    metrics=frozenset(SPACES), add=True, remove=True, deterministic=True, min_recall_at_10=0.75
)
PARAMETERS: Mapping[str, Param] = {
    "M": Param("int", 16, "Links of a node in each layer, twice as many in the lowest one.", 2, 512),
    "ef_construction": Param("int", 200, "Candidates examined to link a new vector.", 1, 100_000),
    "ef_search": Param("int", 64, "Least candidates examined per query; `effort` raises it.", 1, 10_000),
}


def library() -> Any:
    """Return hnswlib; imported on first use, so that registering the plugin costs nothing.

    Raises
    ------
    PluginLoadError
        It cannot be imported.
    """
    try:
        import hnswlib
    except ImportError as error:
        raise PluginLoadError(
            f"hnswlib.hnsw needs the package hnswlib, which cannot be imported: {error}",
            hint="Install it: python -m pip install 'hnswlib>=0.8,<0.9'",
            plugin="hnswlib",
            distribution="vecdb-hnswlib",
        ) from error
    return hnswlib


@dataclass(frozen=True, slots=True)
class HnswType:
    """The graph index of hnswlib; everything is done in the calling thread."""

    name: str = "hnswlib.hnsw"
    version: int = 1
    capabilities: IndexCapabilities = CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: PARAMETERS)

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> HnswIndex:
        graph = library().Index(SPACES[view.metric], view.dim)
        graph.init_index(view.count, params["M"], params["ef_construction"], random_seed=seed)
        index = HnswIndex(graph, params["ef_search"])
        for positions, vectors in view.chunks(STEP):
            index.take(positions, vectors, cancel)
            progress(int(positions[-1]) + 1, view.count)
        return index

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> HnswIndex:
        state = stored.read(blobs, SPACES[view.metric], view.dim, view.count, params)
        try:
            graph = library().Index(state)
        except RuntimeError as error:  # written by a release that lays its memory out in another way
            raise stored.damaged("head", str(error)) from error
        return HnswIndex(graph, params["ef_search"], stored.removed(state))


class HnswIndex:
    """A graph of hnswlib.

    Parameters
    ----------
    graph : hnswlib.Index
        Node, label and position are the same number.
    ef : int
        Least candidates examined per query. Set once: it is shared by all threads, so a search never changes it.
    removed : ndarray of int64, optional
        Nodes that are marked as deleted.
    """

    def __init__(self, graph: Any, ef: int, removed: npt.NDArray[np.int64] | None = None) -> None:
        self._graph = graph
        self._ef = ef
        self._removed = set() if removed is None else set(removed.tolist())
        graph.set_ef(ef)

    def take(self, positions: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32], cancel: CancelCheck) -> None:
        """Insert vectors by one thread, so that the graph depends on the seed and the order alone.

        Raises
        ------
        CancelledError
            If `cancel` says so; nothing of these was inserted.
        """
        if cancel():
            raise CancelledError("building a graph of hnswlib.hnsw was cancelled")
        self._graph.add_items(vectors, positions, num_threads=1)

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        there = self._graph.get_current_count() - len(self._removed)
        # hnswlib examines max(ef, asked for) candidates: asking for more is an effort that other threads do not see.
        most = min(k if (effort or 0) <= self._ef else max(k, effort or 0), there)
        labels, distances = self._found(queries, most)
        scores = -distances if view.metric == "l2" else 1.0 - distances
        return Candidates.ordered(labels[:, :k], scores[:, :k])

    def _found(
        self, queries: npt.NDArray[np.float32], most: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return labels and distances of the `most` nearest, -1 and infinity where fewer can be reached."""
        if most > 0:
            try:
                labels, distances = self._graph.knn_query(queries, k=most, num_threads=1)
                return labels.astype(np.int64), distances
            except RuntimeError as error:
                if "contiguous 2D array" not in str(error):
                    raise
        # Some query reaches fewer: many equal vectors leave parts of a graph without a link from outside.
        labels = np.full((len(queries), max(most, 0)), -1, np.int64)
        distances = np.full(labels.shape, np.inf, np.float32)
        if len(queries) == 1 and most > 1:
            found, their = self._found(queries, most // 2)
            labels[:, : most // 2], distances[:, : most // 2] = found, their
        elif most > 0 and len(queries) > 1:
            for row in range(len(queries)):
                labels[row], distances[row] = (each[0] for each in self._found(queries[row : row + 1], most))
        return labels, distances

    def add(self, view: VectorView, start: int, *, progress: Progress, cancel: CancelCheck) -> None:
        """Take in positions ``start`` to ``view.count - 1``."""
        self._graph.resize_index(max(view.count, 1))
        for first in range(start, view.count, STEP):
            positions = np.arange(first, min(first + STEP, view.count))
            self.take(positions, view.gather(positions), cancel)
            progress(int(positions[-1]) + 1 - start, view.count - start)

    def remove(self, positions: npt.NDArray[np.int64]) -> None:
        """Mark nodes as deleted: they still lead to others, and are never found."""
        for position in {int(each) for each in positions} - self._removed:
            self._graph.mark_deleted(position)
            self._removed.add(position)

    def dump(self, blobs: BlobWriter) -> None:
        """Write the graph with its vectors; see `vecdb_hnswlib.stored`."""
        stored.write(blobs, self._graph.__getstate__()[0])

    def stats(self) -> Mapping[str, int | float | str]:
        """Return sizes and parameters."""
        return {
            "vectors": self._graph.get_current_count(),
            "removed": len(self._removed),
            "M": self._graph.M,
            "ef_construction": self._graph.ef_construction,
            "ef_search": self._ef,
            "bytes": self._graph.index_file_size(),
        }
