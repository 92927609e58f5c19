"""`usearch.hnsw`: the graph of USearch as an index type; position p of the view is key p.

What is stored and how it is checked: `vecdb_usearch.layout`. Paper: Malkov & Yashunin, "Efficient and robust
approximate nearest neighbor search using hierarchical navigable small world graphs", 2018.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import BlobReader, BlobWriter, Candidates, IndexCapabilities, Param, VectorView
from vecdb.errors import CancelledError, CorruptionError, ParameterError, PluginLoadError
from vecdb.types import CancelCheck, Metric, Progress, Space
from vecdb_usearch import layout

__all__ = ["UsearchIndex", "UsearchType"]

SPACES: Mapping[Metric, str] = {"cosine": "cos", "dot": "ip", "l2": "l2sq"}
"""Metric -> what USearch calls it."""
STEP = 256
"""Rows between two questions whether to stop."""
HEAD = struct.Struct("<8sQI")
"""Magic, length and checksum of the bytes that USearch saved."""
MAGIC = b"vusearc\x01"

# Not `filtered`: the Python interface of USearch has no filter. Deterministic whatever the seed: USearch draws the
# levels of its nodes from a generator of its own that always begins alike.
# The recall is that of vectors whose lengths differ tenfold, compared by l2 (0.79 on the kit's set "hubs"); all the
# other sets and metrics of the kit reach 0.99.
CAPABILITIES = IndexCapabilities(
    metrics=frozenset(SPACES), add=True, remove=True, deterministic=True, min_recall_at_10=0.75
)
PARAMETERS: Mapping[str, Param] = {
    "connectivity": Param("int", 16, "Links of a node in each layer, twice as many in the lowest one.", 2, 512),
    "expansion_add": Param("int", 128, "Candidates examined to link a new vector.", 1, 100_000),
    "expansion_search": Param("int", 64, "Least candidates examined per query; `effort` raises it.", 1, 10_000),
    "dtype": Param("str", "f32", "How it keeps vectors; i8 keeps directions only.", choices=("f32", "f16", "i8")),
}


@dataclass(frozen=True, slots=True)
class UsearchType:
    """The graph index of USearch; everything is done in the calling thread."""

    name: str = "usearch.hnsw"
    version: int = 1
    capabilities: IndexCapabilities = CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: PARAMETERS)

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> UsearchIndex:
        if params["dtype"] == "i8" and view.metric != "cosine":
            raise ParameterError(
                f"dtype 'i8' of usearch.hnsw keeps directions only; space {view.space.name!r} has metric {view.metric}",
                hint="Use 'f16' or 'f32'.",
                name="dtype",
                got="i8",
                allowed=["f32", "f16"],
            )
        index = UsearchIndex(_empty(view.space, params))
        for positions, vectors in view.chunks(STEP):
            index.take(positions, vectors, cancel)
            progress(int(positions[-1]) + 1, view.count)
        return index

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> UsearchIndex:
        raw = _sound(blobs)
        parts = layout.parse(np.frombuffer(raw, np.uint8), "index")
        found = (parts.dim, parts.metric, parts.scalar, parts.links)
        expected = (view.dim, view.metric, params["dtype"], params["connectivity"])
        keys = parts.keys[parts.keys != layout.REMOVED]
        if found != expected or np.unique(keys).size != keys.size or (keys.size and int(keys.max()) >= view.count):
            raise _damaged("index", f"it is for {found} with {keys.size} keys, not for {expected}")
        if parts.count:
            layout.check_graph(parts, "index")
        graph = _empty(view.space, params)
        try:
            graph.load(raw)
        except RuntimeError as error:  # written by a release that this one does not read
            raise _damaged("index", str(error)) from error
        return UsearchIndex(graph)


class UsearchIndex:
    """A graph of USearch.

    Parameters
    ----------
    graph : usearch.index.Index
        Keys are positions.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        # A search with one thread uses the scratch memory of thread 0, whoever calls. USearch holds the interpreter
        # lock meanwhile (two threads measured no faster than one), so waiting here costs nothing.
        self._one_at_a_time = threading.Lock()

    def take(self, positions: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32], cancel: CancelCheck) -> None:
        """Insert vectors by one thread, so that the graph depends on the order alone.

        Raises
        ------
        CancelledError
            If `cancel` says so; nothing of these was inserted.
        """
        if cancel():
            raise CancelledError("building a graph of usearch.hnsw was cancelled")
        self._graph.add(positions.astype(np.uint64), vectors, threads=1)

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        # USearch examines max(expansion_search, asked for) candidates; nothing that threads share is changed.
        more = max(k, effort or 0) if (effort or 0) > self._graph.expansion_search else k
        positions = np.full((len(queries), min(more, len(self._graph))), -1, np.int64)
        distances = np.zeros(positions.shape, np.float32)
        if positions.size:
            with self._one_at_a_time:
                found = self._graph.search(queries, positions.shape[1], threads=1)
            counts = np.array([len(found.keys)]) if len(queries) == 1 else found.counts
            there = np.arange(positions.shape[1]) < counts[:, None]
            positions[there] = (found.keys if len(queries) == 1 else found.keys[there]).astype(np.int64)
            distances[there] = found.distances if len(queries) == 1 else found.distances[there]
        scores = -distances if view.metric == "l2" else 1.0 - distances
        return Candidates.ordered(positions[:, :k], scores[:, :k])

    def add(self, view: VectorView, start: int, *, progress: Progress, cancel: CancelCheck) -> None:
        """Take in positions ``start`` to ``view.count - 1``."""
        for first in range(start, view.count, STEP):
            positions = np.arange(first, min(first + STEP, view.count))
            self.take(positions, view.gather(positions), cancel)
            progress(int(positions[-1]) + 1 - start, view.count - start)

    def remove(self, positions: npt.NDArray[np.int64]) -> None:
        """Remove vectors; keys that are gone already are passed over."""
        self._graph.remove(np.unique(positions).astype(np.uint64), threads=1)

    def dump(self, blobs: BlobWriter) -> None:
        """Write the bytes that USearch saves, behind a head with their length and checksum."""
        raw = self._graph.save()
        blobs.write("head", HEAD.pack(MAGIC, len(raw), zlib.crc32(raw)))
        blobs.write("index", raw)

    def stats(self) -> Mapping[str, int | float | str]:
        """Return sizes and parameters."""
        return {
            "vectors": len(self._graph),
            "connectivity": self._graph.connectivity,
            "expansion_add": self._graph.expansion_add,
            "expansion_search": self._graph.expansion_search,
            "bytes": self._graph.memory_usage,
        }


def _empty(space: Space, params: Mapping[str, Any]) -> Any:
    """Return an index of USearch, which is imported here, on first use."""
    try:
        from usearch.index import Index
    except ImportError as error:
        raise PluginLoadError(
            f"usearch.hnsw needs the package usearch, which cannot be imported: {error}",
            hint="Install it: python -m pip install 'usearch>=2.16,<3'",
            plugin="usearch",
            distribution="vecdb-usearch",
        ) from error
    own = {name: params[name] for name in ("dtype", "connectivity", "expansion_add", "expansion_search")}
    return Index(ndim=space.dim, metric=SPACES[space.metric], **own)


def _sound(blobs: BlobReader) -> bytes:
    head, raw = blobs.read("head"), blobs.read("index")
    if head != HEAD.pack(MAGIC, len(raw), zlib.crc32(raw)):
        raise _damaged("head", f"it does not fit the {len(raw)} bytes of the index")
    return raw


def _damaged(where: str, problem: str) -> CorruptionError:
    return CorruptionError(
        f"the stored graph of usearch.hnsw is damaged: {problem}",
        hint="The engine builds the index anew from its vectors.",
        what="index blob",
        where=where,
    )
