"""`rabitq`: a scan of 1-bit codes that nominates rows for exact scoring; nothing is linked, only cells are found.

Reads a thirtieth of what an exact scan reads: 48 bytes, a cell and two factors of a 384-dimensional vector. Deletions
and ``where`` are a mask. `effort` is the number of rows nominated for each query; its default is measured while the
index is built (`vecdb.indexes.effort`) and grows with k. Sources: Gao & Long, "RaBitQ", SIGMOD 2024, for the codes; the
scan is described in `vecdb.kernels.code_scan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.index import Candidates, IndexCapabilities, VectorView
from vecdb.contracts.params import Param
from vecdb.errors import CancelledError
from vecdb.indexes.codes import CodeBook, Codes, encode, make_book, prepare_queries, read_codes, write_codes
from vecdb.indexes.effort import ASKED, EffortGauge
from vecdb.indexes.flat import exact_candidates
from vecdb.kernels import loader
from vecdb.types import METRICS, CancelCheck, Progress

__all__ = ["RabitqIndex", "RabitqType"]

_PIECE: Final = 8_192
_SAMPLE: Final = 16_384
_CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS),
    filtered=True,
    complete=True,
    encodes_segments=True,
    deterministic=True,
    min_recall_at_10=0.9,
)


@dataclass(frozen=True, slots=True)
class RabitqType:
    """The scan of 1-bit codes."""

    name: str = "rabitq"
    version: int = 1
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> RabitqIndex:
        book = make_book(view.metric, view.gather(_spread(view.count, _SAMPLE)), view.count, seed)
        places = _spread(view.count, ASKED)
        gauge = EffortGauge(book, view.gather(places), places)
        codes = _encode_all(book, view, gauge, progress, cancel)
        return RabitqIndex(book, codes, gauge.effort())

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> RabitqIndex:
        return RabitqIndex(*read_codes(blobs, view.metric, view.dim, view.count))


@dataclass(frozen=True, slots=True)
class RabitqIndex:
    """A code of every vector of a view."""

    book: CodeBook
    codes: Codes
    effort: int

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        effort: int | None,
        view: VectorView,
    ) -> Candidates:
        if not loader.ready():  # the vectors themselves answer while kernels are loaded
            loader.request()
            return exact_candidates(queries, k, allowed, view)
        from vecdb.kernels import code_scan  # numba is loaded by now, never by importing this module

        most = min(self.codes.count, max(k, effort if effort is not None else self.effort * max(10, k) // 10))
        asked, codes = prepare_queries(self.book, queries), self.codes
        code_scan.rotate(asked.turned, self.book.signs)
        found = code_scan.nominate(
            asked.turned, asked.bends, asked.bases, codes.packed, codes.cells, codes.factors, allowed, most
        )
        return Candidates(*found)

    def dump(self, blobs: BlobWriter) -> None:
        write_codes(blobs, self.book, self.codes, self.effort)

    def stats(self) -> Mapping[str, int | float | str]:
        size = self.codes.packed.nbytes + self.codes.factors.nbytes
        return {"vectors": self.codes.count, "bits": self.book.width, "effort": self.effort, "code_bytes": size}

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        codes = _encode_all(self.book, view, None, lambda done, total: None, lambda: False)
        write_codes(blobs, self.book, codes, self.effort)


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many positions spread evenly over a view, so that the order of arrival does not matter."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _encode_all(
    book: CodeBook, view: VectorView, gauge: EffortGauge | None, progress: Progress, cancel: CancelCheck
) -> Codes:
    """Encode a view in pieces of whole blocks, so that their codes follow each other."""
    parts = []
    for start in range(0, view.count, _PIECE):
        if cancel():
            raise CancelledError("building a rabitq index was cancelled")
        stop = min(view.count, start + _PIECE)
        rows = view.gather(np.arange(start, stop))
        codes, signs = encode(book, rows)
        parts.append(codes)
        if gauge is not None:
            gauge.see(start, rows, codes, signs)
        progress(stop, view.count)
    return Codes.join(parts)
