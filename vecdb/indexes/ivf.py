"""`ivf`: codes that lie in lists by k-means; a search looks at the lists nearest to the query.

The codes and estimates are those of `rabitq`; a list is a cell. A search takes lists in the order of what a good member
would score (`vecdb.indexes.lists`) until it has seen as many rows as the effort asks for, by a rule that was measured
when the index was built (`vecdb.indexes.measure`). With `allowed`, rows are counted that are allowed, so a selective
filter looks at more lists. Sources: Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", PAMI
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
from vecdb.contracts.index import Candidates, IndexCapabilities, VectorView
from vecdb.contracts.params import Param
from vecdb.errors import CancelledError, CorruptionError
from vecdb.indexes import measure
from vecdb.indexes.codes import CodeBook, code_width, make_book, read_book, sketch, write_book
from vecdb.indexes.flat import exact_candidates
from vecdb.indexes.lists import Lists, Spread, bits_of, chained, join_lists, list_traits, read_lists, write_lists
from vecdb.indexes.measure import Rule, Truth
from vecdb.kernels import loader
from vecdb.types import METRICS, CancelCheck, Progress

__all__ = ["IvfIndex", "IvfType"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_HEAD: Final = struct.Struct("<4sIIIIQQ")
_MAGIC: Final = b"IVF1"
_PIECE: Final = 8_192
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
    min_recall_at_10=0.9,
)
_PARAMETERS: Final = {
    "lists": Param(
        "int",
        0,
        "Number of lists; 0 takes four times the square root of the number of vectors.",
        low=0,
        high=_MOST_LISTS,
    )
}


@dataclass(frozen=True, slots=True)
class IvfType:
    """Codes in lists."""

    name: str = "ivf"
    version: int = 1
    capabilities: IndexCapabilities = _CAPABILITIES
    parameters: Mapping[str, Param] = field(default_factory=lambda: dict(_PARAMETERS))

    def build(
        self, view: VectorView, params: Mapping[str, Any], *, seed: int, progress: Progress, cancel: CancelCheck
    ) -> IvfIndex:
        lists = int(params["lists"]) or round(4 * np.sqrt(view.count))
        asked, sample = _draw(view, min(lists, _MOST_LISTS), seed)
        book = make_book(view.metric, view.gather(sample), view.count, seed, cells=lists, cancel=cancel)
        book = replace(book, centres=chained(book.centres))
        truth = Truth(view.metric, view.gather(asked), asked)
        made, spread, cells = _encode_all(book, view, truth, progress, cancel)
        lengths = spread.lengths()
        index = IvfIndex(book, lengths, list_traits(book, lengths), made, Rule((), ()), None, 0)
        return index.measured(truth, cells)

    def load(self, blobs: BlobReader, view: VectorView, params: Mapping[str, Any]) -> IvfIndex:
        return _read(blobs, view)


@dataclass(frozen=True, slots=True)
class IvfIndex:
    """A code of every vector of a view, list by list.

    Attributes
    ----------
    book : CodeBook
        A cell of it is a list.
    lengths : ndarray of float32, shape (lists,)
        Root mean square distance of the members of a list from its centre.
    traits : ndarray of float32, shape (3, lists)
        What follows from them for the order of lists.
    lists : Lists
    rule : Rule
    curve : EffortCurve or None
    effort : int
        The default.
    """

    book: CodeBook
    lengths: F32
    traits: F32
    lists: Lists
    rule: Rule
    curve: EffortCurve | None
    effort: int

    def search(
        self, queries: F32, k: int, *, allowed: npt.NDArray[np.bool_] | None, effort: int | None, view: VectorView
    ) -> Candidates:
        if not loader.ready():  # the vectors themselves answer while kernels are loaded
            loader.request()
            return exact_candidates(queries, k, allowed, view)
        self.lists.prove()
        count = self.lists.count
        most = min(count, max(k, effort if effort is not None else self.effort * max(10, k) // 10))
        return Candidates(*self._nominate(queries, allowed, self.rule.rows_for(most, count), most)[:2])

    def _nominate(
        self, queries: F32, allowed: npt.NDArray[np.bool_] | None, rows: int, most: int
    ) -> tuple[I64, F32, F32]:
        """Return positions and scores of the best estimates among so many rows, and the nearness of all lists."""
        from vecdb.kernels import code_queries, list_scan  # numba is loaded by now, never by importing this module

        book, blocks = self.book, self.lists.blocks
        ready = code_queries.prepared(
            queries, book.mean, book.centres, self.traits, book.signs, squared=book.metric == "l2", ordered=True
        )
        found = list_scan.nominate(ready, blocks.table, blocks.shift, self.lists.starts, allowed, rows, most)
        return *found, ready.nearness

    def measured(self, truth: Truth, cells: I64) -> IvfIndex:
        """Return this index with a rule, a curve and a default effort; `cells` has the list of every position.

        Measuring needs the compiled kernels; without them every list is looked at.
        """
        count = self.lists.count
        rule, curve = Rule((), ()), None
        loader.request()
        if len(truth.asked) and loader.wait():
            found, _, nearness = self._nominate(truth.asked, None, count, min(count, measure.MOST + 1))
            ranks = measure.ranks_of(found, truth)
            before = measure.rows_before(nearness, np.diff(self.lists.starts), cells, truth)
            rule = measure.measure_rule(ranks, before)
            curve = measure.measure_curve(ranks, before, rule, count)
        effort = measure.default_effort(curve, count)
        return IvfIndex(self.book, self.lengths, self.traits, self.lists, rule, curve, effort)

    def effort_curve(self) -> EffortCurve | None:
        return self.curve

    def dump(self, blobs: BlobWriter) -> None:
        self._write(blobs, self.lists)

    def encode_segment(self, view: VectorView, blobs: BlobWriter) -> None:
        truth = Truth(view.metric, np.empty((0, view.dim), np.float32), np.empty(0, np.int64))
        self._write(blobs, _encode_all(self.book, view, truth, lambda done, total: None, lambda: False)[0])

    def _write(self, blobs: BlobWriter, lists: Lists) -> None:
        asked = 0 if self.curve is None else self.curve.queries
        head = (self.book.dim, self.book.width, len(self.lengths), self.effort, asked, lists.count)
        blobs.write("head", _HEAD.pack(_MAGIC, *head))
        write_book(blobs, self.book)
        blobs.write("lengths", self.lengths)
        blobs.write("rule", np.array([self.rule.efforts, self.rule.rows], np.int64))
        blobs.write("curve", _table_of(self.curve))
        write_lists(blobs, lists)

    def stats(self) -> Mapping[str, int | float | str]:
        return {
            "vectors": self.lists.count,
            "lists": len(self.lengths),
            "bits": self.book.width,
            "effort": self.effort,
            "rows_looked_at": min(self.lists.count, self.rule.rows_for(self.effort, self.lists.count)),
            "code_bytes": self.lists.blocks.nbytes,
        }


def _draw(view: VectorView, lists: int, seed: int) -> tuple[I64, I64]:
    """Return positions to ask and, of the others, those to seek centres with; both ascending."""
    rng = np.random.default_rng([seed, 1])
    count = view.count
    asked = np.sort(rng.choice(count, min(_ASKED, count // 10), replace=False)).astype(np.int64)
    others = np.setdiff1d(np.arange(count, dtype=np.int64), asked, assume_unique=True)
    most = min(max(lists, _SAMPLE_BYTES // (4 * view.dim)), _ROWS_A_LIST * lists)
    spread = np.unique(np.linspace(0, len(others) - 1, min(len(others), most)).astype(np.int64))
    return asked, others[spread]


def _encode_all(
    book: CodeBook, view: VectorView, truth: Truth, progress: Progress, cancel: CancelCheck
) -> tuple[Lists, Spread, I64]:
    """Return the lists of a view, how far their members are from the centres, and the list of every position."""
    parts, spread = [], Spread.of(len(book.centres))
    for start in range(0, view.count, _PIECE):
        if cancel():
            raise CancelledError("building an ivf index was cancelled")
        stop = min(view.count, start + _PIECE)
        rows = view.gather(np.arange(start, stop))
        made = sketch(book, rows)
        spread.see(made)
        parts.append((made.cells, bits_of(made), made.factors))
        truth.see(start, rows)
        progress(stop, view.count)
    return join_lists(parts, len(book.centres)), spread, np.concatenate([cells for cells, _, _ in parts])


def _table_of(curve: EffortCurve | None) -> npt.NDArray[np.float64]:
    """Return a curve as float64 of shape (m, 3): efforts, recalls, deviations."""
    if curve is None:
        return np.empty((0, 3))
    assert curve.deviations is not None
    return np.stack([curve.efforts.astype(np.float64), curve.recalls, curve.deviations], axis=1)


def _read(blobs: BlobReader, view: VectorView) -> IvfIndex:
    head = blobs.read("head")
    width = code_width(view.dim)
    lists, effort, asked = _HEAD.unpack(head)[3:6] if len(head) == _HEAD.size else (0, 0, 0)
    if head != _HEAD.pack(_MAGIC, view.dim, width, lists, effort, asked, view.count) or not 1 <= lists <= _MOST_LISTS:
        raise CorruptionError("the lists of an index are of another form or number", what="index blob", where="head")
    book = read_book(blobs, view.metric, view.dim, lists)
    lengths = blobs.array("lengths", "<f4", (lists,))
    if not ((lengths >= 0) & (lengths < 1e18)).all():
        raise CorruptionError("the numbers of an index are impossible", what="index blob", where="lengths")
    made = read_lists(blobs, width, lists, view.count)
    rule, curve = _read_rule(blobs, asked), _read_curve(blobs, asked)
    return IvfIndex(book, lengths, list_traits(book, lengths), made, rule, curve, max(1, effort))


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
