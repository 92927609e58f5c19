"""`ivf`: codes that lie in lists by k-means; a search looks at the lists nearest to the query.

The codes and estimates are those of `rabitq`; a list is a cell. A search takes lists in the order of what a good member
would score (`vecdb.indexes.lists`) until it has seen as many rows as the effort asks for, by a rule that was measured
when the index was built (`vecdb.indexes.measure`). With `allowed`, rows are counted that are allowed, so a selective
filter looks at more lists. With `bits`, finer codes order what was found, and the best of it alone is scored exactly
(`vecdb.indexes.fine`). Sources: Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", PAMI
2011, for inverted lists with residual codes; Gao & Long, "RaBitQ", SIGMOD 2024, for the codes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import BlobReader, BlobWriter
from vecdb.contracts.effort import MAX_POINTS, EffortCurve
from vecdb.contracts.index import Candidates, IndexCapabilities, Prepared, VectorView
from vecdb.contracts.params import Param
from vecdb.errors import CorruptionError
from vecdb.indexes import measure
from vecdb.indexes.coded import BITS_PARAM, Coded, encode_view, read_coded, write_coded
from vecdb.indexes.codes import Sketch, make_book
from vecdb.indexes.effort import ASKED, CodeGauge, kept_of
from vecdb.indexes.flat import exact_candidates
from vecdb.indexes.lists import chained
from vecdb.indexes.measure import Rule, Truth
from vecdb.indexes.samples import spread_positions
from vecdb.indexes.start import compiled
from vecdb.kernels import loader
from vecdb.types import METRICS, CancelCheck, Progress

__all__ = ["IvfIndex", "IvfType"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_HEAD: Final = struct.Struct("<4sIIIIIQQ")
_MAGIC: Final = b"IVF2"
_MOST_LISTS: Final = 65_536
_ASKED: Final = 1_000
_ROWS_A_LIST: Final = 32
"""Vectors of the sample for each list that is sought."""
_SAMPLE_BYTES: Final = 1 << 28
_CAPABILITIES = IndexCapabilities(
    metrics=frozenset(METRICS),
    filtered=True,
    complete=True,
    encodes_segments=True,
    deterministic=True,
    measured=True,
    prepares=True,
    min_recall_at_10=0.9,
)
_PARAMETERS: Final = {
    "lists": Param(
        "int",
        0,
        "Number of lists; 0 takes four times the square root of the number of vectors.",
        low=0,
        high=_MOST_LISTS,
    ),
    "bits": BITS_PARAM,
}


@dataclass(frozen=True, slots=True)
class IvfType:
    """Codes in lists."""

    name: str = "ivf"
    version: int = 2
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: dict(_PARAMETERS))

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> IvfIndex:
        lists = int(params["lists"]) or round(4 * np.sqrt(view.count))
        asked, sample = _draw(view, min(lists, _MOST_LISTS), seed)
        book = make_book(view.metric, view.gather(sample), view.count, seed, cells=lists, cancel=cancel)
        book = replace(book, centres=chained(book.centres))
        truth, bits = Truth(view.metric, view.gather(asked), asked), int(params["bits"])
        few = asked[:: max(1, len(asked) // ASKED)]
        gauges = [CodeGauge(book, view.gather(few), few, bits)] if bits > 1 and len(few) else []
        watched = _Watched(truth, [])
        coded = encode_view(book, view, bits, (watched, *gauges), progress, cancel)
        kept = gauges[0].kept() if gauges else measure.NEIGHBOURS if bits > 1 else 0
        return IvfIndex(coded, Rule((), ()), None, 0, kept).measured(truth, np.concatenate(watched.cells))

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> IvfIndex:
        return _read(blobs, view)


@dataclass(frozen=True, slots=True)
class _Watched:
    """Shows vectors to those who seek their neighbours, and notes their lists."""

    truth: Truth
    cells: list[I64]

    def see(self, first: int, rows: F32, made: Sketch) -> None:
        self.truth.see(first, rows)
        self.cells.append(made.cells)


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """A code of every vector of a view, list by list.

    Attributes
    ----------
    coded : Coded
    rule : Rule
        How many rows to look at for an effort.
    curve : EffortCurve or None
    effort : int
        The default.
    kept : int
        Rows that are left for exact scoring once finer codes put them in order.
    """

    coded: Coded
    rule: Rule
    curve: EffortCurve | None
    effort: int
    kept: int

    def search(
        self, queries: F32, k: int, *, allowed: npt.NDArray[np.bool_] | None, effort: int | None, view: VectorView
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
        return self.coded.asking(allowed, self.rule.rows_for(most, count), most, kept_of(self.kept, k, most))

    def measured(self, truth: Truth, cells: I64) -> IvfIndex:
        """Return this index with a rule, a curve and a default effort; `cells` has the list of every position.

        Measuring needs the compiled kernels; without them every list is looked at.
        """
        count = self.coded.count
        rule, curve = Rule((), ()), None
        loader.request()
        if len(truth.asked) and loader.wait():
            plain = replace(self.coded, fine=None)
            found, _, nearness = plain.nominate(truth.asked, None, count, min(count, measure.MOST + 1), 0)
            ranks = measure.ranks_of(found, truth)
            before = measure.rows_before(nearness, np.diff(self.coded.lists.starts), cells, truth)
            rule = measure.measure_rule(ranks, before)
            curve = measure.measure_curve(ranks, before, rule, count)
            if curve is not None and self.coded.fine is not None:

                def search(effort: int) -> I64:  # one more, for the one that asks
                    kept = kept_of(self.kept, measure.NEIGHBOURS, effort) + 1
                    return self.coded.nominate(truth.asked, None, rule.rows_for(effort, count), effort + 1, kept)[0]

                curve = measure.searched_curve(curve, truth, search)
        return IvfIndex(self.coded, rule, curve, measure.default_effort(curve, count), self.kept)

    def effort_curve(self) -> EffortCurve | None:
        return self.curve

    def dump(self, blobs: BlobWriter) -> None:
        self._write(blobs, self.coded)

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        self._write(blobs, encode_view(self.coded.book, view, self.coded.bits, (), lengths=self.coded.lengths))

    def _write(self, blobs: BlobWriter, coded: Coded) -> None:
        asked = 0 if self.curve is None else self.curve.queries
        numbers = (coded.book.dim, coded.bits, len(coded.lengths), self.effort, self.kept, asked, coded.count)
        blobs.write("head", _HEAD.pack(_MAGIC, *numbers))
        blobs.write("rule", np.array([self.rule.efforts, self.rule.rows], np.int64))
        blobs.write("curve", _table_of(self.curve))
        write_coded(blobs, coded)

    def stats(self) -> Mapping[str, int | float | str]:
        count = self.coded.count
        return {
            "vectors": count,
            "lists": len(self.coded.lengths),
            "bits": self.coded.bits,
            "effort": self.effort,
            "rescored": kept_of(self.kept, 10, self.effort) if self.kept else self.effort,
            "rows_looked_at": min(count, self.rule.rows_for(min(count, self.effort), count)),
            "code_bytes": self.coded.nbytes,
        }


def _draw(view: VectorView, lists: int, seed: int) -> tuple[I64, I64]:
    """Return positions to ask and, of the others, those to seek centres with; both ascending."""
    rng = np.random.default_rng([seed, 1])
    count = view.count
    asked = np.sort(rng.choice(count, min(_ASKED, count // 10), replace=False)).astype(np.int64)
    others = np.setdiff1d(np.arange(count, dtype=np.int64), asked, assume_unique=True)
    most = min(max(lists, _SAMPLE_BYTES // (4 * view.dim)), _ROWS_A_LIST * lists)
    spread = spread_positions(len(others), most)
    return asked, others[spread]


def _table_of(curve: EffortCurve | None) -> npt.NDArray[np.float64]:
    """Return a curve as float64 of shape (m, 3): efforts, recalls, deviations."""
    if curve is None:
        return np.empty((0, 3))
    assert curve.deviations is not None
    return np.stack([curve.efforts.astype(np.float64), curve.recalls, curve.deviations], axis=1)


def _read(blobs: BlobReader, view: VectorView) -> IvfIndex:
    head = blobs.read("head")
    numbers = _HEAD.unpack(head)[2:7] if len(head) == _HEAD.size else (0, 0, 0, 0, 0)
    bits, lists, effort, kept, asked = numbers
    if head != _HEAD.pack(_MAGIC, view.dim, *numbers, view.count) or lists > _MOST_LISTS:
        raise CorruptionError("the lists of an index are of another form or number", what="index blob", where="head")
    coded = read_coded(blobs, view, lists, bits)
    return IvfIndex(coded, _read_rule(blobs, asked), _read_curve(blobs, asked), max(1, effort), kept)


def _read_rule(blobs: BlobReader, asked: int) -> Rule:
    if not asked and not blobs.size("rule"):
        return Rule((), ())
    points = blobs.array("rule", "<i8", (2, -1))
    rising = (points[:, 1:] >= points[:, :-1]).all() and (points[0, 1:] > points[0, :-1]).all()
    known = 1 <= points.shape[1] <= MAX_POINTS and ((points >= 1) & (points < 1 << 62)).all()
    if not known or not rising:
        raise CorruptionError("the rule of an index does not rise", what="index blob", where="rule")
    efforts, rows = points.tolist()
    return Rule(tuple(efforts), tuple(rows))


def _read_curve(blobs: BlobReader, asked: int) -> EffortCurve | None:
    if not asked:
        return None
    points = blobs.array("curve", "<f8", (-1, 3))
    efforts, shares = points[:, 0], points[:, 1:]
    sound = 1 <= len(points) <= MAX_POINTS and ((shares >= 0) & (shares <= 1)).all()
    if not sound or not ((efforts >= 1) & (efforts < 1 << 53)).all() or not (efforts[1:] > efforts[:-1]).all():
        raise CorruptionError("the curve of an index is impossible", what="index blob", where="curve")
    return EffortCurve(
        efforts.astype(np.int64), np.ascontiguousarray(shares[:, 0]), asked, 10, np.ascontiguousarray(shares[:, 1])
    )
