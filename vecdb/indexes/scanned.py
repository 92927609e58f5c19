"""Codes in the order of positions, all of which are scanned: what covers newly sealed vectors until they are linked.

Nothing is built or sorted. `rabitq` scans the same codes, sorted by cell; the kernel is `vecdb.kernels.code_scan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobWriter
from vecdb.contracts.index import Candidates, Prepared, VectorView
from vecdb.indexes.codes import CodeBook, Codes, encode, prepare_queries, write_codes
from vecdb.indexes.flat import exact_candidates
from vecdb.indexes.start import compiled

__all__ = ["ScannedCodes"]

_PIECE: Final = 8_192


@dataclass(frozen=True, slots=True)
class ScannedCodes:
    """A code of every vector of a view, by position."""

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
        if not compiled(view):
            return exact_candidates(queries, k, allowed, view)
        from vecdb.kernels import code_scan  # numba is loaded by now, never by importing this module

        most = min(self.codes.count, max(k, effort if effort is not None else self.effort * max(10, k) // 10))
        asked, codes = prepare_queries(self.book, queries), self.codes
        code_scan.rotate(asked.turned, self.book.signs)
        found = code_scan.nominate(
            asked.turned, asked.bends, asked.bases, codes.packed, codes.cells, codes.factors, allowed, most
        )
        return Candidates(*found)

    def prepare(
        self, k: int, *, allowed: npt.NDArray[np.bool_] | None, effort: int | None, view: VectorView
    ) -> Prepared | None:
        return None  # it is one of several parts until something is built

    def dump(self, blobs: BlobWriter) -> None:
        write_codes(blobs, self.book, self.codes, self.effort)

    def stats(self) -> Mapping[str, int | float | str]:
        size = self.codes.packed.nbytes + self.codes.factors.nbytes
        return {"vectors": self.codes.count, "bits": self.book.width, "effort": self.effort, "code_bytes": size}

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        codes = _encode_all(self.book, view)
        write_codes(blobs, self.book, codes, self.effort)


def _encode_all(book: CodeBook, view: VectorView) -> Codes:
    """Encode a view in pieces of whole blocks, so that their codes follow each other."""
    parts = []
    for start in range(0, view.count, _PIECE):
        stop = min(view.count, start + _PIECE)
        rows = view.gather(np.arange(start, stop))
        parts.append(encode(book, rows)[0])
    return Codes.join(parts)
