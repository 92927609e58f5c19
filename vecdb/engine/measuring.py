"""Measuring an index: how much of the truth it finds by how much it looks at, and how many dimensions the vectors fill.

Vectors of the part itself are the queries, each without itself, or queries that searches have recorded. The truth is an
exact scan of what the part covers, so a candidate as near as the k-th best counts. Everything is read under short
leases, a batch of queries each. The local dimension is the maximum-likelihood estimate of Levina and Bickel ("Maximum
Likelihood Estimation of Intrinsic Dimension", NIPS 2004), averaged over its inverse (MacKay and Ghahramani, 2005).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.index import Index
from vecdb.engine import border
from vecdb.engine.recall import as_stored
from vecdb.engine.scanorder import scan_order
from vecdb.engine.views import BuildView, PinnedView
from vecdb.errors import CancelledError
from vecdb.kernels import loader
from vecdb.registry import Provided
from vecdb.storage.measured import NOTHING, Measured, StoredCurve
from vecdb.types import CancelCheck, Metric

F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

MEASURE_FROM: Final = 1_000
"""Vectors of a part from which it is measured; asked for a recall, fewer are scanned."""
QUERIES: Final = 1_000
_LEAST_QUERIES: Final = 400
_WORK: Final = 2.5e11
"""Products of components that the truth of one part may cost, some seconds: above 650,000 vectors of 384 components
fewer queries than `QUERIES` are asked."""
KS: Final = (10, 100)
_WIDE_QUERIES: Final = 256
"""So many of the queries are asked for the larger k and for the local dimension, too."""
_BATCH: Final = 128
_MOST_EFFORT: Final = 1 << 16
_SOON: Final = 0.5
"""The ladder begins at the last effort whose recall is below this..."""
_ENOUGH: Final = 0.998
"""...and ends with the first that reaches this: who asks for more is answered by a scan."""
_PATIENCE: Final = 0.1
"""Seconds between two looks whether measuring was cancelled, while kernels are compiled."""
_NEIGHBOURS: Final = 100
_LEAST_NEIGHBOURS: Final = 20


@dataclass(slots=True)
class _Tally:
    """Recalls of one k: of each effort, over the queries so far."""

    k: int
    efforts: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    queries: int = 0

    def curve(self) -> EffortCurve | None:
        if not self.queries or not self.efforts:
            return None
        means = np.minimum(1.0, np.array(self.sums) / self.queries)
        spread = np.sqrt(np.maximum(0.0, np.array(self.squares) / self.queries - means**2))
        return EffortCurve(np.array(self.efforts, np.int64), means, self.queries, self.k, np.minimum(spread, 1.0))


@dataclass(frozen=True, slots=True)
class _Truth:
    """What the queries of a batch should find: positions in the part and canonical scores, best first, without itself.

    Scan positions would not do: vectors are moved between two looks at the file.
    """

    queries: F32
    own: Positions
    """Position of each query in the part, -1 where it is no vector of it."""
    found: list[exact.Found]


def measure(
    provided: Provided,
    index: Index,
    view: BuildView,
    *,
    seed: int,
    recorded: F32 | None = None,
    cancel: CancelCheck | None = None,
) -> Measured:
    """Measure an index over what `view` shows.

    Parameters
    ----------
    provided : Provided
        The type; what is exact is not measured, what measures itself is asked.
    index : Index
    view : BuildView
    seed : int
        Which vectors are asked.
    recorded : ndarray of float32, shape (q, dim), optional
        Real queries; they are asked besides the vectors.
    cancel : callable, optional

    Returns
    -------
    Measured
        Curves at k of 10 and, where the engine measures, 100; and the local dimension.

    Raises
    ------
    CancelledError, PluginError, VectorsMovedError
    """
    if provided.thing.capabilities.exact or view.count < MEASURE_FROM:
        return NOTHING
    _load_kernels(cancel)
    bench = _Bench(provided, index, view, cancel)
    curves: list[StoredCurve] = []
    told = border.effort_curve(provided, index)
    if told is not None:
        curves.append(as_stored(told, "held out"))
    members = _members(view, seed)
    if told is None:
        curves += bench.curves("members", members, None)
    else:
        bench.look(members[:_WIDE_QUERIES])
    if recorded is not None and len(recorded):
        curves += bench.curves("recorded", None, recorded[-QUERIES:])
    asked = 0 if recorded is None else len(recorded)
    return Measured(tuple(curves), round(1_000 * bench.dimension()), asked)


def _load_kernels(cancel: CancelCheck | None) -> None:
    """Wait for the compiled kernels, so that all of a curve is measured on the path that searches will take.

    While they were still being loaded, an index could answer the first batch by numpy, which finds everything at any
    effort: the ladder ended at its first step, and what was stored was a single point that no recall could be had from.
    """
    loader.request()
    while not loader.wait(_PATIENCE) and loader.loading():
        if cancel is not None and cancel():
            raise CancelledError("measuring an index was cancelled")


def _members(view: BuildView, seed: int) -> Positions:
    """Return positions of the vectors to ask, in random order."""
    affordable = int(_WORK / (view.count * view.dim))
    count = min(view.count, QUERIES, max(_LEAST_QUERIES, affordable))
    return np.random.default_rng(seed).choice(view.count, count, replace=False).astype(np.int64)


class _Covered(NamedTuple):
    """The vectors of the index at the commit that a batch is asked at, and where they lie."""

    view: PinnedView
    table: Positions
    blocks: VectorBlocks


class _Bench:
    """Asks an index in batches, and compares with the truth."""

    def __init__(self, provided: Provided, index: Index, view: BuildView, cancel: CancelCheck | None) -> None:
        self._provided = provided
        self._index = index
        self._view = view
        self._cancel = cancel
        self._inverse: list[float] = []

    def curves(self, source: str, members: Positions | None, recorded: F32 | None) -> Iterator[StoredCurve]:
        """Ask vectors of the part, or recorded queries, and yield a curve of each k."""
        tallies = [_Tally(k) for k in KS if 5 * k <= self._view.count]
        asked = len(members) if members is not None else 0 if recorded is None else len(recorded)
        for start in range(0, asked, _BATCH):
            if self._cancel is not None and self._cancel():
                raise CancelledError("measuring an index was cancelled")
            part = slice(start, min(asked, start + _BATCH))
            wide = start < _WIDE_QUERIES
            self._batch(
                tallies if wide else tallies[:1],
                None if members is None else members[part],
                None if recorded is None else recorded[part],
                local=wide and members is not None,
            )
        for tally in tallies:
            curve = tally.curve()
            if curve is not None:
                yield as_stored(curve, source)

    def look(self, members: Positions) -> None:
        """Estimate the local dimension alone."""
        for start in range(0, len(members), _BATCH):
            self._batch([], members[start : start + _BATCH], None, local=True)

    def dimension(self) -> float:
        """Return the local intrinsic dimension, 0 where it cannot be told: nowhere by inner products."""
        mean = float(np.mean(self._inverse)) if self._inverse else 0.0
        return 1 / mean if mean > 0 else 0.0

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Covered]:
        """Look at the newest commit, never for long: what is replaced meanwhile takes new room in the file."""
        with self._view.opened() as (view, space_view):
            table = space_view.positions_of(view.tx, self._view.ordinals)
            space_view.verify_all(view.tx)
            with PinnedView(view, space_view, self._view.ordinals, table) as pinned:
                yield _Covered(pinned, table, scan_order(view, space_view))

    def _batch(self, tallies: list[_Tally], members: Positions | None, recorded: F32 | None, *, local: bool) -> None:
        with self._opened() as covered:
            if members is not None:
                own = members[covered.table[members] >= 0]
                queries = covered.view.gather(own)
            else:
                queries = np.empty((0, self._view.dim), np.float32) if recorded is None else recorded
                own = np.full(len(queries), -1, np.int64)
            if not len(queries):
                return
            most = max([tally.k for tally in tallies] + [_NEIGHBOURS if local else 1])
            truth = _truth(covered, queries, own, most)
        if local:
            self._inverse += _inverse_dimensions(self._view.metric, truth)
        for tally in tallies:
            self._tally(tally, truth)

    def _tally(self, tally: _Tally, truth: _Truth) -> None:
        known: dict[int, npt.NDArray[np.float64]] = {}
        if not tally.efforts:
            known = self._ladder(tally, truth)
            tally.sums, tally.squares = [0.0] * len(tally.efforts), [0.0] * len(tally.efforts)
        for place, effort in enumerate(tally.efforts):
            recalls = known[effort] if effort in known else self._recalls(effort, tally.k, truth)
            tally.sums[place] += float(recalls.sum())
            tally.squares[place] += float((recalls**2).sum())
        tally.queries += len(truth.queries)

    def _ladder(self, tally: _Tally, truth: _Truth) -> dict[int, npt.NDArray[np.float64]]:
        """Find the efforts that are worth measuring with the first batch: doubling, with steps between near the top."""
        known: dict[int, npt.NDArray[np.float64]] = {}
        effort = max(tally.k, 16)
        while True:
            effort = min(effort, self._view.count)
            known[effort] = self._recalls(effort, tally.k, truth)
            if known[effort].mean() >= _ENOUGH or effort >= min(_MOST_EFFORT, self._view.count):
                break
            effort *= 2
        doubled = sorted(known)
        low = [effort for effort in doubled if known[effort].mean() < _SOON]
        kept = [effort for effort in doubled if not low or effort >= low[-1]]
        between = [round(effort * 2**0.5) for effort in kept[-4:-1] if round(effort * 2**0.5) < kept[-1]]
        tally.efforts = sorted({*kept, *between})
        return known

    def _recalls(self, effort: int, k: int, truth: _Truth) -> npt.NDArray[np.float64]:
        """Return the recall of each query at one effort, after canonical rescoring as in every search."""
        with self._opened() as covered:
            table, allowed = covered.table, None
            if self._provided.thing.capabilities.filtered and bool((table < 0).any()):
                allowed = table >= 0
            count = len(table) if allowed is None else int(allowed.sum())
            answers = border.search(
                self._provided,
                self._index,
                truth.queries,
                min(k + 1, count),
                allowed=allowed,
                matches=count,
                effort=effort,
                view=covered.view,
            )
            return np.array([_recall(covered, truth, place, found, k) for place, found in enumerate(answers)])


def _truth(covered: _Covered, queries: F32, own: Positions, most: int) -> _Truth:
    there = np.flatnonzero(covered.table >= 0)
    mask, numbers = np.zeros(covered.blocks.count, np.bool_), np.full(covered.blocks.count, -1, np.int64)
    mask[covered.table[there]], numbers[covered.table[there]] = True, there
    found, _ = exact.search(covered.blocks, queries, most + 1, allowed=mask)
    kept = []
    for itself, (positions, scores) in zip(own.tolist(), found, strict=True):
        others = numbers[positions] != itself
        kept.append((numbers[positions][others][:most], scores[others][:most]))
    return _Truth(queries, own, kept)


def _recall(covered: _Covered, truth: _Truth, place: int, answer: Positions, k: int) -> float:
    """Return the share of the best k that an answer holds; what was removed since they were found does not count."""
    positions, scores = truth.found[place]
    living = covered.table[positions] >= 0
    positions, scores = positions[living][:k], scores[living][:k]
    answer = answer[(covered.table[answer] >= 0) & (answer != truth.own[place])]
    if not len(scores):
        return 1.0
    if not len(answer):
        return 0.0
    if np.isin(positions, answer).all():  # else a candidate that ties with the last may count
        return 1.0
    _, found = exact.rescore(covered.blocks, truth.queries[place], covered.table[answer], min(k, len(answer)))
    return min(1.0, float(np.count_nonzero(found >= scores[-1])) / len(scores))


def _inverse_dimensions(metric: Metric, truth: _Truth) -> list[float]:
    """Return the inverse of the local dimension around each query that has enough neighbours at a distance.

    The largest inner products are not the nearest vectors, so they tell none.
    """
    found = []
    for _, scores in truth.found if metric != "dot" else ():
        known = scores.astype(np.float64)
        distances = -known if metric == "l2" else np.sqrt(np.maximum(0.0, 2.0 - 2.0 * known))  # of unit vectors
        distances = distances[distances > 0]
        if len(distances) >= _LEAST_NEIGHBOURS and distances[-1] > distances[0]:
            found.append(float(np.log(distances[-1] / distances[:-1]).mean()))
    return found
