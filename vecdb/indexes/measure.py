"""How much an index of lists finds by how much it looks at, measured on vectors of its own that it was not made from.

Some vectors are left out when centres are sought, and asked for their neighbours without being their own; to the index
they are as foreign as any query. Their true ten nearest come from exact products. Two things keep such a neighbour from
being nominated: its rank by estimated score, and how many rows lie in lists that are nearer to the query than its own.
From the quantiles of both come the rule how many rows to look at for an effort, and the recall that follows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.effort import EffortCurve
from vecdb.indexes.codes import unit_rows
from vecdb.types import Metric

__all__ = ["Rule", "Truth", "default_effort", "measure_curve", "measure_rule", "searched_curve"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

NEIGHBOURS: Final = 10
MOST: Final = 2_048
"""Ranks beyond this are not told apart."""
WANTED: Final = 0.99
LEAST: Final = 32
_SHARES: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.999, 1.0)
_EFFORTS: Final = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1_024, 1_536)


_EXACT_COST: Final = 200
"""An exact score takes as long as so many estimated ones."""


class Truth:
    """The true neighbours of some vectors, found while all vectors pass by.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    asked : ndarray of float32, shape (a, dim)
    places : ndarray of int64, shape (a,)
        Their positions: a vector is not its own neighbour.
    """

    def __init__(self, metric: Metric, asked: F32, places: I64) -> None:
        self.asked = unit_rows(asked) if metric == "cosine" else asked
        self.places = places
        self._metric = metric
        self._scores = np.full((len(asked), NEIGHBOURS), -np.inf, np.float32)
        self.positions = np.full((len(asked), NEIGHBOURS), -1, np.int64)
        """Of the neighbours, shape (a, 10), -1 where there are fewer; in no order."""

    def see(self, first: int, rows: F32) -> None:
        """Take in vectors, float32 (n, dim), that begin at position `first`."""
        if not len(self.asked):
            return
        scores = self._exact(rows)
        inside = np.flatnonzero((self.places >= first) & (self.places < first + len(rows)))
        scores[inside, self.places[inside] - first] = -np.inf
        both = np.concatenate([self._scores, scores], axis=1)
        chosen = np.argpartition(-both, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        old = chosen < NEIGHBOURS
        known = np.take_along_axis(self.positions, np.where(old, chosen, 0), axis=1)
        self._scores = np.take_along_axis(both, chosen, axis=1)
        found = np.where(old, known, chosen + (first - NEIGHBOURS))
        self.positions = np.where(self._scores > -np.inf, found, -1)

    def _exact(self, rows: F32) -> F32:
        scores: F32 = self.asked @ (unit_rows(rows) if self._metric == "cosine" else rows).T
        if self._metric == "l2":
            scores = 2 * scores - np.einsum("ij,ij->i", rows, rows)
        return scores


@dataclass(frozen=True, slots=True)
class Rule:
    """How many rows to look at for an effort, interpolated between points; all rows for an effort of that many.

    Attributes
    ----------
    efforts, rows : tuple of int
        Ascending, from an effort of at least 1; may be empty.
    """

    efforts: tuple[int, ...]
    rows: tuple[int, ...]

    def rows_for(self, effort: int, count: int) -> int:
        """Return how many of `count` rows to look at, at least `effort` of them."""
        place = bisect_left(self.efforts, effort)
        if place == 0:
            return max(effort, self.rows[0] if self.rows else count)
        low, least = self.efforts[place - 1], self.rows[place - 1]
        last = place == len(self.efforts)
        high, most = (max(low + 1, count), max(least, count)) if last else (self.efforts[place], self.rows[place])
        return max(effort, least + (most - least) * (effort - low) // (high - low))


def ranks_of(found: I64, truth: Truth) -> I64:
    """Return the rank of each true neighbour by estimated score, from 1, shape (a, 10); -1 where there is none.

    `found` has the positions of the best estimates of each, shape (a, m); what is not among them ranks m + 1.
    """
    most = found.shape[1]
    ranks = np.empty_like(truth.positions)
    for row, (order, own) in enumerate(zip(found, truth.places, strict=True)):
        others = order[(order != own) & (order >= 0)]
        sorting = np.argsort(others, kind="stable")
        places = np.searchsorted(others, truth.positions[row], sorter=sorting)
        places = sorting[np.minimum(places, len(others) - 1)] if len(others) else places * 0
        same = len(others) > 0 and others[places] == truth.positions[row]
        ranks[row] = np.where(same, places + 1, most + 1)
    return np.where(truth.positions >= 0, ranks, -1)


def rows_before(nearness: F32, sizes: I64, lists: I64, truth: Truth) -> I64:
    """Return how many rows lie in lists nearer than that of each true neighbour, shape (a, 10).

    nearness (a, lists); sizes (lists,); `lists` has the list of every position, shape (n,).
    """
    order = np.argsort(-nearness, axis=1, kind="stable")
    behind = np.cumsum(sizes[order], axis=1)
    before = np.empty_like(behind)
    np.put_along_axis(before, order, behind - sizes[order], axis=1)
    found: I64 = np.take_along_axis(before, lists[np.maximum(truth.positions, 0)], axis=1)
    return found


def measure_rule(ranks: I64, before: I64) -> Rule:
    """Return the rule that reaches each share of the neighbours with the least work; arrays (a, 10) as above."""
    real = ranks > 0
    if not real.any():
        return Rule((), ())
    efforts = np.array((*_EFFORTS, MOST))
    rows = np.unique(np.quantile(before[real], np.concatenate([_SHARES, 1 - np.geomspace(0.3, 0.0005, 60)]))) + 1
    lost = np.histogram2d(ranks[real], before[real], bins=(np.append(0, efforts + 0.5), np.append(-1, rows - 0.5)))[0]
    found = lost.cumsum(axis=0).cumsum(axis=1) / real.sum()
    work = _EXACT_COST * efforts[:, None] + rows
    points: dict[int, int] = {}
    for share in _SHARES:
        cheapest = int(np.argmin(np.where(found >= share, work, np.inf)))
        if found.flat[cheapest] >= share:
            effort, row = int(efforts[cheapest // len(rows)]), int(rows[cheapest % len(rows)])
            points[effort] = max(row, effort, points.get(effort, 0))
    kept = sorted(points)
    return Rule(tuple(kept), tuple(accumulate((points[each] for each in kept), max)))


def measure_curve(ranks: I64, before: I64, rule: Rule, count: int) -> EffortCurve | None:
    """Return the recall by effort, None where nothing could be measured; arrays (a, 10) as above.

    A rank among the rows that are looked at is no worse than one among all, so this is rather too low than too high.
    """
    real = ranks > 0
    if not real.any():
        return None
    efforts = [each for each in _EFFORTS if each < min(count, MOST)] + [min(count, MOST)]
    efforts = [each for each in efforts if each >= NEIGHBOURS] or [count]
    shares = np.empty((len(efforts), len(ranks)))
    for place, effort in enumerate(efforts):
        found = real & (ranks <= effort) & (before < rule.rows_for(effort, count))
        shares[place] = found.sum(axis=1) / np.maximum(1, real.sum(axis=1))
    return EffortCurve(
        np.array(efforts, np.int64), shares.mean(axis=1), len(ranks), NEIGHBOURS, np.minimum(1.0, shares.std(axis=1))
    )


def searched_curve(curve: EffortCurve, truth: Truth, search: Callable[[int], I64]) -> EffortCurve:
    """Return the curve that searches have, where more than ranks and rows decides what is found.

    `search` returns the positions found for all that are asked at an effort, shape (a, m), themselves among them.
    """
    real = truth.positions >= 0
    shares = np.empty((len(curve.efforts), len(real)))
    for place, effort in enumerate(curve.efforts.tolist()):
        same = search(effort)[:, :, None] == truth.positions[:, None, :]
        shares[place] = (same.any(axis=1) & real).sum(axis=1) / np.maximum(1, real.sum(axis=1))
    return EffortCurve(curve.efforts, shares.mean(axis=1), curve.queries, curve.k, np.minimum(1.0, shares.std(axis=1)))


def default_effort(curve: EffortCurve | None, count: int) -> int:
    """Return the effort that finds the wanted share of the ten nearest, or the most that was measured."""
    if curve is None:
        return min(count, MOST)
    reached = np.flatnonzero(curve.recalls >= WANTED)
    return max(LEAST, int(curve.efforts[reached[0] if len(reached) else -1]))
