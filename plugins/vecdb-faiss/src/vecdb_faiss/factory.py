"""`faiss.factory`: whatever a factory string of Faiss describes, as an index type; position p of the view is id p.

What is stored is what Faiss serialises, behind a head with length, checksum and factory string. The checksum proves
that the bytes are those that were written; what is in them is read by Faiss, which checks less: see the README.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import BlobReader, BlobWriter, Candidates, IndexCapabilities, Param, VectorView
from vecdb.errors import CancelledError, CorruptionError, ParameterError, VecdbError
from vecdb.types import METRICS, CancelCheck, Metric, Progress
from vecdb_faiss.library import exact_kinds, library, one_thread, search_parameters, selector_of

__all__ = ["FactoryType", "FaissIndex"]

MORE = 4
"""Candidates nominated for each result where the index keeps codes, which the engine's exact scores then sort out."""
STEP = 1_024
"""Rows between two questions whether to stop."""
HEAD = struct.Struct("<8sQII")
"""Magic, length and checksum of the serialised index, and length of the factory string that follows."""
MAGIC = b"vfaiss\x00\x01"

CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS), filtered=True, add=True, deterministic=True, min_recall_at_10=0.9
)
PARAMETERS: Mapping[str, Param] = {
    "factory": Param("str", "HNSW32,Flat", "Description of the index, as faiss.index_factory reads it."),
    "train": Param("int", 65_536, "Most vectors to train on, drawn by the seed.", 1, 1 << 24),
}
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FactoryType:
    """The indexes of Faiss; everything is done in the calling thread."""

    name: str = "faiss.factory"
    version: int = 1
    capabilities: IndexCapabilities = CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: PARAMETERS)

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> FaissIndex:
        with one_thread() as faiss:
            try:
                index = faiss.index_factory(view.dim, params["factory"], _metric(view.metric))
                _seed(index, seed)
                _stop_if(cancel)
                if not index.is_trained:
                    index.train(_sample(view, params["train"], seed))
                for positions, vectors in view.chunks(STEP):
                    _stop_if(cancel)
                    index.add(_directed(vectors, view.metric))
                    progress(int(positions[-1]) + 1, view.count)
            except RuntimeError as error:
                if isinstance(error, VecdbError):
                    raise
                raise _refused(view, params["factory"], error) from error
        return FaissIndex(index, params["factory"])

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> FaissIndex:
        head, raw = blobs.read("head"), blobs.read("index")
        if head != _head(raw, params["factory"]):
            raise _damaged("head", f"it does not fit the {len(raw)} bytes of the index")
        try:
            index = library().deserialize_index(np.frombuffer(raw, np.uint8))
        except RuntimeError as error:  # written by a release that this one does not read
            raise _damaged("index", str(error)) from error
        found = (index.d, index.ntotal, index.metric_type, index.is_trained)
        expected = (view.dim, view.count, _metric(view.metric), True)
        if found != expected:
            raise _damaged("index", f"width, vectors, metric and training are {found}, expected {expected}")
        return FaissIndex(index, params["factory"])


class FaissIndex:
    """An index of Faiss.

    Parameters
    ----------
    index : faiss.Index
        Ids are positions.
    factory : str
    """

    def __init__(self, index: Any, factory: str) -> None:
        self._index = index
        self._factory = factory
        self._selects = _takes_parameters(index)
        self._settings: tuple[object, Any] = (None, None)
        self._coded = not isinstance(library().downcast_index(index), exact_kinds())

    def search(
        self,
        queries: Matrix,
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        ready = view.count if allowed is None else int(np.count_nonzero(allowed))
        if not ready:
            return Candidates.ordered(np.empty((len(queries), 0)), np.empty((len(queries), 0)))
        share, most = ready / view.count, min(max(k, effort or MORE * k) if self._coded else k, ready)
        with one_thread():
            if self._selects:
                settings = self._settings_of(most, effort, share, allowed)
                scores, positions = self._index.search(_directed(queries, view.metric), most, params=settings)
            else:  # a few kinds take no parameters: ask for more, and drop what may not be an answer
                wider = min(view.count, math.ceil(max(most, effort or 0) / share))
                scores, positions = self._index.search(_directed(queries, view.metric), wider)
                if allowed is not None:
                    positions[~allowed[positions]] = -1
        found = Candidates.ordered(positions, -scores if view.metric == "l2" else scores)
        return Candidates(found.positions[:, :most], found.scores[:, :most])

    def _settings_of(self, most: int, effort: int | None, share: float, allowed: npt.NDArray[np.bool_] | None) -> Any:
        """Return the parameters of a search; those without a filter are kept, as most searches ask alike."""
        if allowed is not None:
            return search_parameters(self._index, most, effort, share, selector_of(allowed))
        key, kept = self._settings
        if key != (most, effort, self._index.ntotal):
            kept = search_parameters(self._index, most, effort, share, None)
            self._settings = ((most, effort, self._index.ntotal), kept)
        return kept

    def add(self, view: VectorView, start: int, *, progress: Progress, cancel: CancelCheck) -> None:
        """Take in positions ``start`` to ``view.count - 1``; what was trained stays as it is."""
        with one_thread():
            for first in range(start, view.count, STEP):
                _stop_if(cancel)
                positions = np.arange(first, min(first + STEP, view.count))
                self._index.add(_directed(view.gather(positions), view.metric))
                progress(int(positions[-1]) + 1 - start, view.count - start)

    def dump(self, blobs: BlobWriter) -> None:
        """Write what Faiss serialises, behind a head with its length and checksum."""
        raw = library().serialize_index(self._index)
        blobs.write("head", _head(raw, self._factory))
        blobs.write("index", raw)

    def stats(self) -> Mapping[str, int | float | str]:
        """Return sizes and the kind of index that the factory string made."""
        kind = type(library().downcast_index(self._index)).__name__
        return {"vectors": self._index.ntotal, "factory": self._factory, "kind": kind}


def _metric(metric: Metric) -> int:
    faiss = library()
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def _directed(vectors: Matrix, metric: Metric) -> Matrix:
    """Return vectors whose inner product, or distance, is what the metric compares."""
    if metric != "cosine":
        return vectors
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _sample(view: VectorView, most: int, seed: int) -> Matrix:
    chosen = np.arange(view.count)
    if view.count > most:
        chosen = np.sort(np.random.default_rng(seed).choice(view.count, most, replace=False))
    return _directed(view.gather(chosen), view.metric)


def _seed(index: Any, seed: int) -> None:
    """Give the seed to the parts that have one; the others always begin alike, so the answers repeat anyway."""
    faiss = library()
    inner = faiss.downcast_index(index)
    while isinstance(inner, (faiss.IndexPreTransform, faiss.IndexRefine)):
        inner = faiss.downcast_index(inner.index if isinstance(inner, faiss.IndexPreTransform) else inner.base_index)
    if isinstance(inner, faiss.IndexIVF):
        inner.cp.seed = seed % (1 << 31)
    elif isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.rng = faiss.RandomGenerator(seed)


def _takes_parameters(index: Any) -> bool:
    """Return whether this kind of index takes a selector, found out by handing it one."""
    selector = selector_of(np.ones(max(index.ntotal, 1), np.bool_))
    try:
        index.search(np.ones((1, index.d), np.float32), 1, params=search_parameters(index, 1, 1, 1.0, selector))
    except RuntimeError as error:
        if "params" not in str(error):
            raise
        return False
    return True


def _head(raw: Any, factory: str) -> bytes:
    text = factory.encode()
    return HEAD.pack(MAGIC, len(raw), zlib.crc32(raw), len(text)) + text


def _stop_if(cancel: CancelCheck) -> None:
    if cancel():
        raise CancelledError("building an index of faiss.factory was cancelled")


def _refused(view: VectorView, factory: str, error: RuntimeError) -> ParameterError:
    reason = str(error).rsplit(": ", 1)[-1].strip() or "no reason given"
    return ParameterError(
        f"faiss cannot build {factory!r} over {view.count} vectors of width {view.dim}, metric {view.metric}: {reason}",
        hint="Positions are the ids, so leave out IDMap; trained kinds want some 40 vectors for each centre.",
        name="factory",
        got=factory,
        allowed="a string of faiss.index_factory",
    )


def _damaged(where: str, problem: str) -> CorruptionError:
    return CorruptionError(
        f"the stored index of faiss.factory is damaged: {problem}",
        hint="The engine builds the index anew from its vectors.",
        what="index blob",
        where=where,
    )
