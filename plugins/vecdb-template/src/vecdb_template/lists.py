"""`template.lists`: each vector is in the list of its nearest centre; a search reads the lists nearest to the query."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vecdb.contracts import BlobReader, BlobWriter, Candidates, IndexCapabilities, Param, VectorView
from vecdb.errors import CancelledError, CorruptionError
from vecdb.types import METRICS


class ListsType:
    """What the index can do and which parameters it has; builds and loads indexes."""

    name = "template.lists"
    version = 1  # of what `dump` writes; one more, and stored indexes are built anew
    capabilities = IndexCapabilities(
        frozenset(METRICS), filtered=True, complete=True, deterministic=True, min_recall_at_10=0.9
    )
    parameters: ClassVar = {"lists": Param("int", 0, "Number of lists; 0: the square root of the vectors.", 0, 65_536)}

    def build(self, view: VectorView, params: Any, *, seed: int, progress: Any, cancel: Any) -> "Lists":
        lists = min(params["lists"] or round(view.count**0.5), view.count)
        sample = view.gather(np.random.default_rng(seed).permutation(view.count)[: 64 * lists])
        centres = sample[:lists].copy()
        for _ in range(8):  # rounds of k-means on a sample
            stop_if(cancel())
            nearest = nearest_of(sample, centres)
            for each in np.unique(nearest):
                centres[each] = sample[nearest == each].mean(axis=0)
        list_of = np.empty(view.count, np.int64)
        for positions, vectors in view.chunks():  # never all vectors at once: they may not fit into memory
            stop_if(cancel())
            list_of[positions] = nearest_of(vectors, centres)
            progress(int(positions[-1]) + 1, view.count)
        return Lists(centres, list_of)

    def load(self, blobs: BlobReader, view: VectorView, params: Any) -> "Lists":
        centres = blobs.array("centres", np.float32, (-1, view.dim))
        list_of = blobs.array("list_of", np.int64, (view.count,))
        if not np.isfinite(centres).all() or list_of.min() < 0 or list_of.max() >= len(centres):
            raise CorruptionError("the lists are not those that were built", what="index blob", where="list_of")
        return Lists(centres, list_of)


@dataclass(frozen=True, slots=True)
class Lists:
    """The centres, and the list of each position."""

    centres: Any
    list_of: Any

    def search(self, queries: Any, k: int, *, allowed: Any, effort: int | None, view: VectorView) -> Candidates:
        many = max(k, effort or len(self.list_of) // 2)
        held = np.bincount(self.list_of if allowed is None else self.list_of[allowed], minlength=len(self.centres))
        positions, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf, np.float32)
        for row, query in enumerate(queries):
            near = np.argsort(-scores_of(query, self.centres, view.metric))
            read = np.isin(self.list_of, near[: np.searchsorted(held[near].cumsum(), many) + 1])
            found = np.flatnonzero(read if allowed is None else read & allowed)
            if len(found):
                values = scores_of(query, view.gather(found), view.metric)
                best = np.argsort(-values, kind="stable")[:k]  # stable: equal scores stay in the order of age
                positions[row, : len(best)], scores[row, : len(best)] = found[best], values[best]
        return Candidates(positions, scores)

    def dump(self, blobs: BlobWriter) -> None:
        blobs.write("centres", self.centres)
        blobs.write("list_of", self.list_of)

    def stats(self) -> dict[str, int]:
        return {"lists": len(self.centres)}


def nearest_of(vectors: Any, centres: Any) -> Any:
    return np.argmax(vectors @ centres.T - (centres**2).sum(axis=1) / 2, axis=1)


def scores_of(query: Any, vectors: Any, metric: str) -> Any:
    if metric == "l2":
        return -((vectors - query) ** 2).sum(axis=1)
    norms = np.linalg.norm(vectors, axis=1) if metric == "cosine" else 1
    return vectors @ query / np.maximum(norms, 1e-30)


def stop_if(cancelled: bool) -> None:
    if cancelled:
        raise CancelledError("building template.lists was cancelled")
