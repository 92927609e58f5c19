"""`rabitq`: a scan of 1-bit codes that nominates rows for exact scoring; nothing is linked, only cells are found.

Reads 60 bytes of a vector of 384 dimensions, where an exact scan reads 1,536: code, two factors and a position. The
nearest cells are scanned first, so that little of the rest is held to be good. Deletions and ``where`` are a mask.
`effort` is the number of rows that the scan selects for each query; its default is measured while the index is built
(`vecdb.indexes.effort`) and grows with k. With `bits`, finer codes order what was selected, and only the best of it is
scored exactly; how many that are is measured, too. Sources: `vecdb.indexes.codes`, `vecdb.indexes.fine`; the scan is
described in `vecdb.kernels.list_scan`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.index import Candidates, IndexCapabilities, Prepared, VectorView
from vecdb.contracts.params import Param
from vecdb.errors import CorruptionError
from vecdb.indexes.coded import BITS_PARAM, Coded, encode_view, read_coded, write_coded
from vecdb.indexes.codes import MAX_CELLS, make_book
from vecdb.indexes.effort import ASKED, CodeGauge, kept_of
from vecdb.indexes.flat import exact_candidates
from vecdb.indexes.lists import chained
from vecdb.indexes.samples import spread_positions
from vecdb.indexes.start import compiled
from vecdb.types import METRICS, CancelCheck, Progress

__all__ = ["RabitqIndex", "RabitqType"]

_HEAD: Final = struct.Struct("<4sIIIIIIQ")
_MAGIC: Final = b"RBQ2"
_SAMPLE: Final = 16_384
_CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS),
    filtered=True,
    complete=True,
    encodes_segments=True,
    deterministic=True,
    prepares=True,
    min_recall_at_10=0.9,
)


@dataclass(frozen=True, slots=True)
class RabitqType:
    """The scan of 1-bit codes."""

    name: str = "rabitq"
    version: int = 2
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: {"bits": BITS_PARAM})

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> RabitqIndex:
        book = make_book(
            view.metric, view.gather(spread_positions(view.count, _SAMPLE)), view.count, seed, cancel=cancel
        )
        book, bits, places = (
            replace(book, centres=chained(book.centres)),
            int(params["bits"]),
            spread_positions(view.count, ASKED),
        )
        gauges = [CodeGauge(book, view.gather(places), places, each) for each in sorted({1, bits})]
        coded = encode_view(book, view, bits, gauges, progress, cancel)
        return RabitqIndex(coded, gauges[0].effort(), gauges[-1].kept() if bits > 1 else 0)

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> RabitqIndex:
        head = blobs.read("head")
        cells, effort, kept, bits = _HEAD.unpack(head)[3:7] if len(head) == _HEAD.size else (0, 0, 0, 0)
        if head != _HEAD.pack(_MAGIC, view.dim, 0, cells, effort, kept, bits, view.count) or cells > MAX_CELLS:
            raise CorruptionError("the codes of an index are of another form", what="index blob", where="head")
        return RabitqIndex(read_coded(blobs, view, cells, bits), max(1, effort), kept)


@dataclass(frozen=True, slots=True)
class RabitqIndex:
    """A code of every vector of a view.

    Attributes
    ----------
    coded : Coded
    effort : int
        The default: rows that the scan selects for ten neighbours.
    kept : int
        Rows that are left of them for exact scoring once they were put in order by finer codes.
    """

    coded: Coded
    effort: int
    kept: int

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
        return self._asking(k, allowed, effort)(queries)

    def prepare(
        self, k: int, *, allowed: npt.NDArray[np.bool_] | None, effort: int | None, view: VectorView
    ) -> Prepared | None:
        return self._asking(k, allowed, effort) if compiled(view) else None

    def _asking(self, k: int, allowed: npt.NDArray[np.bool_] | None, effort: int | None) -> Prepared:
        count = self.coded.count
        most = min(count, max(k, effort if effort is not None else self.effort * max(10, k) // 10))
        return self.coded.asking(allowed, count, most, kept_of(self.kept, k, most))

    def dump(self, blobs: BlobWriter) -> None:
        self._write(blobs, self.coded)

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        self._write(blobs, encode_view(self.coded.book, view, self.coded.bits, (), lengths=self.coded.lengths))

    def _write(self, blobs: BlobWriter, coded: Coded) -> None:
        numbers = (coded.book.dim, 0, len(coded.lengths), self.effort, self.kept, coded.bits, coded.count)
        blobs.write("head", _HEAD.pack(_MAGIC, *numbers))
        write_coded(blobs, coded)

    def stats(self) -> Mapping[str, int | float | str]:
        return {
            "vectors": self.coded.count,
            "bits": self.coded.bits,
            "effort": self.effort,
            "rescored": kept_of(self.kept, 10, self.effort) if self.kept else self.effort,
            "code_bytes": self.coded.nbytes,
        }
