"""`flat`: the exact scan as an index type. It stores nothing and reads the vectors where they lie.

Every search scans what no index covers anyway, so `flat` gains nothing over having no index; it is the smallest index
there is, the oracle of the conformance kit, and what the cost of the plugin border is measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.index import Candidates, IndexCapabilities, InPlace, VectorView
from vecdb.contracts.params import Param
from vecdb.errors import CancelledError, CorruptionError
from vecdb.types import METRICS, CancelCheck, Progress

__all__ = ["FlatType"]

_BLOB = "flat"
_MARK = b"flat 1"
_CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS), exact=True, filtered=True, complete=True, deterministic=True, min_recall_at_10=1.0
)


@dataclass(frozen=True, slots=True)
class FlatType:
    """The exact scan; `effort` does nothing."""

    name: str = "flat"
    version: int = 1
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> FlatIndex:
        if cancel():
            raise CancelledError("building a flat index was cancelled")
        progress(view.count, view.count)
        return FlatIndex(view.count)

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> FlatIndex:
        if blobs.read(_BLOB) != _MARK:
            raise CorruptionError("a flat index holds something else than its mark", what="index blob", where=_BLOB)
        return FlatIndex(view.count)


@dataclass(frozen=True, slots=True)
class FlatIndex:
    """Nothing but the number of vectors."""

    count: int

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        return exact_candidates(queries, k, allowed, view)

    def dump(self, blobs: BlobWriter) -> None:
        blobs.write(_BLOB, _MARK)

    def stats(self) -> Mapping[str, int | float | str]:
        return {"vectors": self.count}


def exact_candidates(
    queries: npt.NDArray[np.float32], k: int, allowed: npt.NDArray[np.bool_] | None, view: VectorView
) -> Candidates:
    """Return the true best of a view, by whichever path of `exact` is at hand."""
    with view.in_place() as here:
        mask = _mask(here, view.count, allowed)
        most = here.blocks.count if mask is None else int(np.count_nonzero(mask))
        if not most:
            return _table([], len(queries))
        found, _ = exact.search(here.blocks, queries, min(k, most), allowed=mask)
        return _table([(_positions(here, places), scores) for places, scores in found], len(queries))


def _mask(here: InPlace, count: int, allowed: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    """Return which places of the blocks may be answers, None for all of them."""
    if here.places is None and here.first == 0 and count == here.blocks.count:
        return allowed
    mask = np.zeros(here.blocks.count, np.bool_)
    if here.places is None:
        mask[here.first : here.first + count] = True if allowed is None else allowed
    else:
        chosen = here.places if allowed is None else here.places[allowed]
        mask[chosen[chosen >= 0]] = True
    return mask


def _positions(here: InPlace, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if here.places is None:
        return places - here.first if here.first else places
    there = np.flatnonzero(here.places >= 0)
    found: npt.NDArray[np.int64] = there[np.searchsorted(here.places[there], places)]
    return found


def _table(found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]], queries: int) -> Candidates:
    """Return answers of different lengths as one padded table."""
    if len(found) == 1:
        return Candidates(found[0][0].reshape(1, -1), found[0][1].reshape(1, -1))
    width = max((len(positions) for positions, _ in found), default=0)
    positions = np.full((queries, width), -1, np.int64)
    scores = np.full((queries, width), -np.inf, np.float32)
    for row, (each, their) in enumerate(found):
        positions[row, : len(each)] = each
        scores[row, : len(each)] = their
    return Candidates(positions, scores)
